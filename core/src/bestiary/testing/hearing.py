"""The small files of a model that hears in the manner of Whisper: a tokenizer of bytes, and its ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONTROLS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"),
    *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
GENERATION: dict[str, Any] = {
    "decoder_start_token_id": 258,
    "eos_token_id": 257,
    "bos_token_id": 257,
    "pad_token_id": 257,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 259, "<|de|>": 260},
    "task_to_id": {"translate": 261, "transcribe": 262},
    "no_timestamps_token_id": 266,
    "prev_sot_token_id": 264,
    "max_initial_timestamp_index": 30,
    "suppress_tokens": [1, 2, 7, 258, 259, 260, 261, 262, 263, 264, 265],
    "begin_suppress_tokens": [32, 257],
    "max_length": 96,
    "return_timestamps": False,
}


def write_small_files(folder: Path, vocabulary: int) -> None:
    """Of so many tokens 256 are bytes, one a word and ten controls; all others are timestamps."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE({**letters, "th": 256}, [("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(CONTROLS))
    backend.add_tokens([f"<|{place * 0.02:.2f}|>" for place in range(vocabulary - 267)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer"}))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
