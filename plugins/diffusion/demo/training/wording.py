"""The two tokenizers, written from the lexicon: byte pairs as CLIP has them, and pieces as T5 has them."""

import json
import string
from pathlib import Path

from prompts import lexicon
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer, T5Tokenizer

CLIP_LENGTH = 32
T5_LENGTH = 512
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer() -> CLIPTokenizer:
    """Small letters, and any byte, so that no text is unknown; start and end have the last two numbers, as in CLIP."""
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = lexicon()
    trainer = BpeTrainer(vocab_size=5000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH)


def t5_tokenizer() -> T5Tokenizer:
    """Words of the lexicon, also with capitals, and else letter by letter: T5 keeps capitals."""
    words = [spelt for word in lexicon() for spelt in dict.fromkeys([word, word.capitalize(), word.upper()])]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁" + word, -4.0) for word in words]
    pieces += [(mark, -4.0) for mark in ".,!?"]
    known = {piece for piece, _ in pieces}
    pieces += [(letter, -8.0) for letter in ["▁", *string.digits, *string.ascii_letters] if letter not in known]
    Unigram(pieces, unk_id=2, byte_fallback=False)  # raises where the pieces are no vocabulary
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


def save(folder: Path) -> None:
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    t5_tokenizer().save_pretrained(folder / "tokenizer_2")
