"""Tokenizers of repositories, written into files and read back: they give the ids of the originals."""

import json
import lzma
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.sources.folder import Folder
from bestiary_quant.gguf.cursor import Cursor
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf.metadata import Metadata, read_metadata
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.splits import SPLITS
from bestiary_quant.gguf_tokenizer.templates import chat_templates
from bestiary_quant.gguf_tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED
from bestiary_quant.writing import values
from bestiary_quant.writing.cuts import cut_name
from bestiary_quant.writing.merges import scores_of_merges
from bestiary_quant.writing.tokenizer import tokenizer_pairs
from bestiary_quant.writing.tokens import Tokens, list_tokens

ROWS = {"llama2": 32000, "mistral-7b-instruct-v0.2": 32000, "phi-3-mini": 32064, "phi-2": 51200}
ROWS |= {"qwen2-qwen3": 151936, "t5-small": 32128}
KINDS = {"phi-2": ("gpt2", "gpt-2"), "qwen2-qwen3": ("gpt2", "qwen2"), "t5-small": ("t5", None)}
# fmt: off
ATOMS = (
    "a", "b", "the", "The", "THE", "'s", "'S", "'ll", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "1", "23", "456",
    ".", "...", "!?", "é", "e\u0301", "中", "文字", "ñ", "😀", "👩\u200d👧", "한국", "ไทย", "हिं", "\u3000", "\u00a0",
    "_", "<", "|", ">", "</", "\x01", "\u200b", "ß", "İ", "½", "²", "٣", "(", ")", "{", "}", "==", "//", "\x85",
    "http://x.y", "foo_bar", "CamelCase", "\u2028", "\ufeff", "ﬁ", "Ａ", "™", "ization", " international", "ough",
)
# fmt: on


@pytest.fixture(scope="module")
def original(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folder]:
    """The repository of a tokenizer as Hugging Face has it."""

    def unpack(name: str) -> Folder:
        folder = tmp_path_factory.mktemp(name)
        for file in (shared_data / "tokenizers/hf" / name).iterdir():
            if file.suffix == ".xz":
                (folder / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
            else:
                shutil.copy(file, folder)
        return Folder(folder, name)

    return unpack


def written(repository: Folder, rows: int, config: Mapping[str, Any] | None = None) -> Metadata:
    pairs = tokenizer_pairs(repository, rows, config or {})
    data = values.encoded(pairs)
    return read_metadata(Cursor(data, len(data), repository.origin), len(pairs))


@pytest.mark.parametrize("name", ROWS)
def test_real_ones(name: str, original: Callable[[str], Folder]) -> None:
    repository = original(name)
    metadata = written(repository, ROWS[name])
    theirs, made = Tokenizer.from_repository(repository), read_gguf_tokenizer(metadata)
    model, way = KINDS.get(name, ("llama", "default"))
    assert metadata.text("tokenizer.ggml.model") == model and metadata.text("tokenizer.ggml.pre") == way
    assert metadata.count("tokenizer.ggml.tokens") == metadata.count("tokenizer.ggml.token_type") == ROWS[name]
    assert made.special_tokens == {
        role: text for role, text in theirs.special_tokens.items() if role.endswith("_token")
    }
    draw, special = random.Random(5), list(theirs.special_tokens.values())
    for number in range(600):
        # "</s>" of Llama 2 is found in the middle of a text neither before nor after normalization.
        atoms = (*ATOMS, *special * 3) if number % 3 == 0 and name != "llama2" else ATOMS
        text = "".join(draw.choices(atoms, k=draw.randint(1, 14)))
        ids = theirs.encode(text)
        assert made.encode(text) == ids, text
        assert made.decode(ids) == theirs.decode(ids) or theirs.clean_up


def test_scores_are_those_of_the_original(original: Callable[[str], Folder], shared_data: Path) -> None:
    """From the merges of tokenizer.json come the scores that SentencePiece gave, as llama.cpp's converter has them."""
    metadata = written(original("llama2"), 32000)
    content = lzma.decompress((shared_data / "tokenizers/gguf-vocab/llama-spm.gguf.xz").read_bytes())
    theirs = parse(content, len(content), "llama-spm.gguf").metadata
    for key in ("tokens", "scores", "token_type"):
        ours, due = (list(pairs[f"tokenizer.ggml.{key}"]) for pairs in (metadata, theirs))  # type: ignore[arg-type]
        assert ours == due, key


def test_vectors_of_llama_cpp(original: Callable[[str], Folder], shared_data: Path) -> None:
    """Texts and ids that llama.cpp tests its own tokenizers with."""
    folder = shared_data / "tokenizers/gguf-vocab"
    for name, recorded in (("llama2", "llama-spm"), ("phi-3-mini", "phi-3"), ("qwen2-qwen3", "qwen2")):
        made = read_gguf_tokenizer(written(original(name), ROWS[name]))
        texts = (folder / f"{recorded}.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
        lines = (folder / f"{recorded}.gguf.out").read_text().splitlines()
        for text, line in zip(texts, lines, strict=False):
            assert made.encode(text, add_special_tokens=False) == [int(number) for number in line.split()], text


def test_every_way_to_cut_is_found() -> None:
    """The expressions of each way lead to its name, or to that of one that is the same but for BOS."""
    import tokenizers

    for name, split in SPLITS.items():
        steps: list[dict[str, Any]] = [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            for pattern in split.patterns
        ]
        steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
        state: dict[str, Any] = {
            "normalizer": {"type": "NFC"} if split.composed else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "model": {"ignore_merges": split.whole},
        }
        found = SPLITS[cut_name(state, tokenizers.Tokenizer(tokenizers.models.BPE()), name)]
        assert (found.patterns, found.composed, found.whole) == (split.patterns, split.composed, split.whole)


def test_other_spellings_of_a_cut(models: ModuleType, tmp_path: Path) -> None:
    """A step of the library in place of an expression, and an expression that is written differently."""
    state = models.byte_level("qwen3")
    digits = [{"type": "Digits", "individual_digits": True}]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    state["pre_tokenizer"]["pretokenizers"], state["normalizer"] = [*digits, level], None
    assert _way(state, tmp_path / "1") == "starcoder"
    state["pre_tokenizer"] = level
    assert _way(state, tmp_path / "2") == "gpt-2"
    state = models.byte_level("llama")
    split = state["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"(?i:'(?:[stmd]|re|ve|ll))"
    )
    split["behavior"], split["invert"] = "Removed", True
    assert _way(state, tmp_path / "3") == "llama-bpe"


def _way(state: Mapping[str, Any], folder: Path) -> str | None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(state))
    return written(Folder(folder, "x"), 512).text("tokenizer.ggml.pre")


@pytest.mark.parametrize("fault", ["Lowercase", "unknown expression", "prefix", "WordPiece", "rows"])
def test_what_files_cannot_say(fault: str, models: ModuleType, tmp_path: Path) -> None:
    state, rows = models.byte_level("llama"), 512
    match fault:
        case "Lowercase":
            state["normalizer"] = {"type": "Lowercase"}
        case "unknown expression":
            state["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "[a-m]+|[^a-m]+"
        case "prefix":
            state["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True
        case "WordPiece":
            keys = {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##", "vocab": {"a": 0}}
            state["model"] = {**keys, "max_input_chars_per_word": 100}
            state["added_tokens"], state["post_processor"] = [], None
        case "rows":
            rows = 100
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(TokenizerError):
        written(Folder(tmp_path, "x"), rows)


def test_templates_by_name(models: ModuleType, tmp_path: Path) -> None:
    source = models.write_model("llama", tmp_path / "x")
    stated = json.loads((source / "tokenizer_config.json").read_text())
    named = {"default": "{{ 1 }}", "tool_use": "{{ 2 }}", "rag": "é {{ 3 }}"}
    stated["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
    (source / "tokenizer_config.json").write_text(json.dumps(stated))
    metadata = written(Folder(source, "x"), 512)
    assert chat_templates(metadata) == named
    assert metadata["tokenizer.chat_templates"] == ["rag", "tool_use"]
    (source / "chat_template.jinja").write_text("alone")
    assert chat_templates(written(Folder(source, "x"), 512)) == {"default": "alone"}


def test_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert written(Folder(tmp_path, "x"), 512).text("tokenizer.ggml.model") == "none"


def test_ids_of_the_configuration_fill_in(models: ModuleType, tmp_path: Path) -> None:
    source = models.write_model("qwen3", tmp_path / "x")
    (source / "tokenizer_config.json").write_text("{}")
    metadata = written(Folder(source, "x"), 512, {"bos_token_id": 0, "eos_token_id": [1, 2], "pad_token_id": 99999})
    assert (metadata.whole("tokenizer.ggml.bos_token_id"), metadata.whole("tokenizer.ggml.eos_token_id")) == (0, 1)
    assert "tokenizer.ggml.padding_token_id" not in metadata and metadata["tokenizer.ggml.add_bos_token"] is False


def test_scores_of_a_rearranged_vocabulary() -> None:
    """Where ids do not follow the merges, pieces are scored by rank: a score that is higher is merged before."""
    texts = ["<s>", "<0x00>", "abc", "ab", "a", "b", "c", "[PAD7]"]
    types = [CONTROL, BYTE, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, UNUSED]
    tokens = Tokens(texts, types, {text: place for place, text in enumerate(texts)})
    scores = scores_of_merges(tokens, [("a", "b"), ("ab", "c")])
    assert scores[3] > scores[2] > scores[4] and scores[0] == scores[1] == 0.0 and scores[7] == -10000.0


def test_hostile_ids(models: ModuleType, tmp_path: Path) -> None:
    """An added token far beyond the embedding is an error, and takes no memory of that size."""
    state = models.byte_level("llama")
    state["added_tokens"][2]["id"] = (1 << 32) - 1
    with pytest.raises(TokenizerError):
        list_tokens(state, 512, "x")
    state = models.byte_level("llama")
    state["model"]["vocab"]["[PAD511]"] = 300
    with pytest.raises(TokenizerError, match="Two tokens would be '\\[PAD511\\]'"):
        list_tokens(state, 512, "x")


def test_added_tokens_without_a_row(models: ModuleType) -> None:
    state = models.byte_level("llama")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    state["added_tokens"].append({"id": 512, "content": "<image>", **flags})
    assert len(list_tokens(state, 512, "x").texts) == 512
    state["added_tokens"][-1]["id"] = 511
    tokens = list_tokens(state, 512, "x")
    assert (tokens.texts[511], tokens.types[511]) == ("<image>", USER_DEFINED)
