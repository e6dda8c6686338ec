"""Texts as T5 reads them: the core's tokenizer gives the ids of transformers'."""

from pathlib import Path

import pytest

from bestiary.generation.tokenizer import Tokenizer
from bestiary.sources.folder import Folder

TEXTS = ("a cat", "A cat, a hat.", " two  spaces ", "", "ünknown ☃", "a</s>cat", "cats\nhats\tat", "<extra_id_0> a")
PIECES = ("▁", "a", "c", "h", "t", "s", ",", ".", "▁a", "▁cat", "at", "▁hat", "n", "o", "w", "k", "<", ">", "/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import T5TokenizerFast

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -2.0 - 0.3 * place) for place, piece in enumerate(PIECES)]
    made = tmp_path_factory.mktemp("tokenizer")
    T5TokenizerFast(vocab=vocabulary, extra_ids=3).save_pretrained(made)
    return made


def test_ids_equal_the_reference(folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.from_repository(Folder(folder, "test/t5"))
    for text in TEXTS:
        assert ours.encode(text) == theirs(text).input_ids, text
    assert len(set(ours.encode("a cat, a hat"))) > 3
    assert ours.encode("a cat")[-1] == ours.eos_id == 1 and ours.pad_id == 0
