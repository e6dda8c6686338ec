"""Tiny random checkpoints with a tokenizer of bytes, and what transformers makes of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bestiary.testing.reference import Reference, make_reference

CONTROLS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
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


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE({**{letter: place for place, letter in enumerate(letters)}, "th": 256}, [("t", "h")])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(CONTROLS))
    backend.add_tokens([f"<|{place * 0.02:.2f}|>" for place in range(vocabulary - 267)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer"}))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: beside other work, threads that wait for each other cost five times the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reference]:
    """Makes, or finds, the checkpoint of a configuration."""
    made: dict[str, Reference] = {}

    def make(config: dict[str, Any]) -> Reference:
        name = json.dumps(config)
        if name not in made:
            folder = tmp_path_factory.mktemp("whisper")
            made[name] = make_reference(config, folder)
            _write_tokenizer(folder, config["vocab_size"])
            (folder / "generation_config.json").write_text(json.dumps(GENERATION))
        return made[name]

    return make
