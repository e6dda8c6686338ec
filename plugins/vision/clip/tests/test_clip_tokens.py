"""CLIP's tokenizer through the core's: from tokenizer.json, and from the two files that image models publish."""

import json
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.sources.folder import Folder

START, END = "<|startoftext|>", "<|endoftext|>"
TEXTS = (
    "",
    "a photo of a cat",
    "A  Photo,\tof\n a CAT's tail!!",
    "  it's 12 o'clock  ",
    "é É ﬁ 你好 😀\u200d ½",
    f"a {END} b{START}c <|endOfText|>",
    "low lower lowest </w> a</w>b",
    "\x00 \u2028 x\u00a0y",
)
MERGES = ("p h", "o t", "ph ot", "phot o</w>", "o f</w>", "c a", "ca t</w>", "l o", "lo w", "lo w</w>", "e r</w>")


def _vocabulary() -> dict[str, int]:
    """Bytes, bytes that end a word, what the merges make, and the two special tokens last, as OpenAI made it."""
    from bestiary.generation.pieces import _ALPHABET

    alphabet = sorted(_ALPHABET, key=_ALPHABET.__getitem__)
    names = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *(merge.replace(" ", "") for merge in MERGES)]
    return {name: place for place, name in enumerate([*names, START, END])}


def _config(count: int) -> dict[str, Any]:
    """That of FLUX's tokenizer/, with the ids of the small vocabulary."""
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(count - 2): {"content": START, "normalized": True, **flags},
            str(count - 1): {"content": END, "normalized": False, **flags},
        },
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }


def two_files(folder: Path, **changes: Any) -> Path:
    vocabulary = _vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({**_config(len(vocabulary)), **changes}), "utf-8")
    return folder


def load(folder: Path) -> Tokenizer:
    return Tokenizer.from_repository(Folder(folder, "test/clip"))


def check(tokenizer: Tokenizer, reference: Any) -> None:
    for text in TEXTS:
        for around in (True, False):
            ids = tokenizer.encode(text, add_special_tokens=around)
            assert ids == reference.encode(text, add_special_tokens=around), text
            spoken = [place for place in ids if place not in reference.all_special_ids]
            assert tokenizer.decode(ids) == reference.decode(spoken), text
    assert tokenizer.special_tokens == reference.special_tokens_map
    assert tokenizer.pad_id == tokenizer.eos_id == reference.eos_token_id == tokenizer.vocab_size - 1


@pytest.mark.parametrize("name", ["CLIPTokenizer", "CLIPTokenizerFast"])
def test_ids_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    import transformers

    reference = getattr(transformers, name).from_pretrained(two_files(tmp_path))
    check(load(tmp_path), reference)
    saved = tmp_path / "saved"
    reference.save_pretrained(saved)
    assert not (saved / "vocab.json").exists()
    check(load(saved), reference)


def test_text_of_strangers_has_no_special_tokens(tmp_path: Path) -> None:
    tokenizer = load(two_files(tmp_path))
    ids = tokenizer.encode(f"a {END} b", allow_special=False)
    assert ids.count(tokenizer.eos_id or -1) == 1 and ids[-1] == tokenizer.eos_id


def test_without_its_ends_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="bos_token"):
        load(two_files(tmp_path, bos_token=None))
