"""Chat templates as the gguf package writes them."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from bestiary.errors import TemplateError
from bestiary.generation.chat import ChatEncoder
from bestiary.generation.template import ChatTemplate
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.templates import chat_templates


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ a }}", {"default": "{{ a }}"}),
        (
            [
                {"name": "default", "template": "a"},
                {"name": "tool_use", "template": "b"},
                {"name": "rag", "template": "c"},
            ],
            {"default": "a", "tool_use": "b", "rag": "c"},
        ),
        ([{"name": "tool_use", "template": "b"}], {"tool_use": "b"}),
        (None, {}),
    ],
)
def test_names(template: str | list[dict[str, str]] | None, found: dict[str, str], tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    content = (tmp_path / "model.gguf").read_bytes()
    assert chat_templates(parse(content, len(content), "model.gguf").metadata) == found


def test_an_empty_one_is_none(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_key_value("tokenizer.chat_template", "", gguf.GGUFValueType.STRING)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    content = (tmp_path / "model.gguf").read_bytes()
    metadata = parse(content, len(content), "model.gguf").metadata
    assert metadata["tokenizer.chat_template"] == "" and chat_templates(metadata) == {}


@pytest.mark.parametrize("value", [7, True, 1.5, ["a", "b"], [1, 2], "x" * ((1 << 20) + 1)])
@pytest.mark.parametrize("key", [".tokenizer.chat_template", ".tokenizer.chat_template.rag"])
def test_what_is_no_text(key: str, value: object, written: Callable[..., Metadata]) -> None:
    with pytest.raises(TemplateError, match=r"tokenizer\.chat_template") as caught:
        chat_templates(written("none", more={key: value}))
    assert caught.value.where == "model.gguf" and len(str(caught.value)) < 500


def test_too_many(written: Callable[..., Metadata]) -> None:
    with pytest.raises(TemplateError, match="100 chat templates"):
        chat_templates(written("none", more={f".tokenizer.chat_template.t{number}": "x" for number in range(100)}))


def test_a_chat_of_a_real_file(vocabulary_file: Callable[[str], Metadata]) -> None:
    metadata = vocabulary_file("qwen2")
    tokenizer = read_gguf_tokenizer(metadata)
    template = ChatTemplate(chat_templates(metadata), source="qwen2.gguf", special_tokens=tokenizer.special_tokens)
    ids = ChatEncoder(template, tokenizer).encode("Hi<|im_end|>", add_generation_prompt=True)
    begin, end, line = 151644, 151645, 198
    assert ids[0] == begin and ids.count(end) == 2  # of the system message and of the user's, not of the user's words
    assert ids[-3:] == [begin, *tokenizer.encode("assistant"), line]
    assert tokenizer.decode(ids, skip_special_tokens=False).endswith(
        "<|im_start|>user\nHi<|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
