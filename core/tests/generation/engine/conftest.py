"""A tiny Llama with random weights, and engines over it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from bestiary.config import normalise
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import LanguageModel
from bestiary.testing.numbers import Numbers
from bestiary_llama.model import build

VOCABULARY, CONTEXT = 97, 160
END = 256


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A token for each byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    made = Tokenizer(backend, special_tokens={"eos_token": "<end>"})
    assert made.id("<end>") == END
    return made


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """Makes a Llama of 97 tokens from a seed and changes of its configuration."""

    def make(seed: int = 1, **changes: Any) -> Any:
        config = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            **changes,
        }
        model = build(normalise(config, "here")).eval()
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 4)
        return model

    return make


@pytest.fixture
def engine_over() -> Iterator[Callable[..., Engine]]:
    """Makes engines that are closed after the test."""
    made: list[Engine] = []

    def make(model: LanguageModel, *, limits: Limits | None = None, **options: Any) -> Engine:
        engine = Engine(
            model,
            options.pop("tokenizer", None) or Numbers(),
            device=torch.device("cpu"),
            dtype=torch.float32,
            end_tokens=options.pop("end_tokens", frozenset()),
            context_length=CONTEXT,
            cache_tokens=options.pop("cache_tokens", 2048),
            limits=limits or Limits(tokens=48, sequences=8),
            **options,
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
