"""What a repository of GGUF files gives to a text pipeline."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bestiary.errors import CheckpointError, TemplateError, TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.sources.folder import Folder
from bestiary_quant.gguf_tokenizer.carried import carried_text
from bestiary_quant.gguf_tokenizer.vocabulary import CONTROL, NORMAL, UNKNOWN

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TOKENS = ["<unk>", "<s>", "</s>", "▁", "a", "<|im_end|>"]
TYPES = [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, CONTROL]


def test_all_of_it(write: Callable[..., Path], tmp_path: Path) -> None:
    write("llama", TOKENS, TYPES, [0.0] * 6, more={".tokenizer.chat_template": CHATML}, name="model-Q4_0.gguf")
    text = carried_text(Folder(tmp_path, "me/model"), "model-Q4_0.gguf")
    assert text.tokenizer.encode("a") == [1, 3, 4]
    assert text.chat_templates == {"default": CHATML}
    assert text.end_tokens == {2, 5}


def test_a_real_model(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "weights/stories260K"
    shutil.copy(folder / "gguf/stories260K-q8_0.gguf", tmp_path)
    text = carried_text(Folder(tmp_path, "stories"), "stories260K-q8_0.gguf")
    assert text.tokenizer.same_tokens(Tokenizer.from_repository(Folder(folder / "hf", "stories")))
    assert text.chat_templates == {} and text.end_tokens == {2}


def test_the_tokenizer_beside_a_file_without_a_known_one(
    write: Callable[..., Path], shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("rwkv", TOKENS, TYPES, more={".tokenizer.chat_template": CHATML})
    with pytest.raises(TokenizerError, match="'rwkv'") as caught:
        carried_text(Folder(tmp_path, "model"), "model.gguf")
    assert "put tokenizer.json" in str(caught.value)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared_data / "weights/stories260K/hf" / name, tmp_path)
    with caplog.at_level(logging.WARNING, logger="bestiary.quant"):
        text = carried_text(Folder(tmp_path, "model"), "model.gguf")
    assert "tokenizer.json is taken instead" in caplog.text
    assert text.tokenizer.decode(text.tokenizer.encode("Once upon")) == "Once upon"
    assert text.chat_templates == {"default": CHATML} and not text.end_tokens


def test_errors(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \.gguf file"):
        carried_text(Folder(tmp_path, "model"), "model.gguf")
    write("llama", TOKENS, TYPES, [0.0] * 6, more={".tokenizer.chat_template": 7})
    with pytest.raises(TemplateError, match="a string"):
        carried_text(Folder(tmp_path, "model"), "model.gguf")
    write("llama", TOKENS, TYPES, [0.0] * 5)
    with pytest.raises(TokenizerError, match="an array of 5, for 6 tokens"):
        carried_text(Folder(tmp_path, "model"), "model.gguf")
