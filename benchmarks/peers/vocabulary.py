"""A byte-level BPE tokenizer with the vocabulary size of a real one."""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shapes import Shape
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

_TRAINED = 32000
_LONGEST = 24


def texts(most: int = 8 << 20) -> Iterator[str]:
    """Code and prose that every machine has, about `most` characters of it: the modules of Python."""
    left = most
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = file.read_text(encoding="utf-8", errors="ignore")
        left -= len(text)
        if left < 0:
            return
        yield text


def write_tokenizer(folder: Path, shape: Shape) -> None:
    """tokenizer.json and tokenizer_config.json.

    The first 32,000 tokens are learned.  The vocabulary is then filled with merges of two of them that texts hardly
    ever have, so that reading and encoding cost what they cost with the published vocabulary.
    """
    made = Tokenizer(models.BPE(ignore_merges=shape.ignore_merges))
    if shape.composed:
        made.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(shape.cuts), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=_TRAINED, initial_alphabet=letters, show_progress=False)
    )
    state = json.loads(made.to_str())
    _fill(state["model"], int(shape.config["vocab_size"]) - len(shape.special))
    made = Tokenizer.from_str(json.dumps(state))
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in shape.special])
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": shape.bos,
        "eos_token": shape.special[-1],
        "pad_token": shape.special[0],
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.config["max_position_embeddings"],
        "chat_template": shape.chat_template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def _fill(model: dict[str, Any], size: int) -> None:
    choice = random.Random(0)
    vocabulary: dict[str, int] = model["vocab"]
    learned = list(vocabulary)
    while len(vocabulary) < size:
        left, right = choice.choice(learned), choice.choice(learned)
        if len(left + right) < _LONGEST and left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            model["merges"].append([left, right])
