"""What one engine gives to one and to several requests at once.

    python benchmarks/serve.py [--shape qwen3-0.6b] [--dtype bfloat16] [--prompt 128] [--generate 64] [--json]

Random weights at the sizes of a real model; no download.  Decoding speed counts the tokens after the first of each
request.  The prefix row asks the same long prompt twice.
"""

import argparse
import json
from typing import Any

import torch

from bestiary.building import build_empty
from bestiary.config import Config, normalise
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.sampling import Sampling
from bestiary.generation.speed import measure
from bestiary.nn import CausalLM
from bestiary.records import Architecture
from bestiary.registry import default_registry
from bestiary.testing.numbers import Numbers

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "llama-1.2b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
}
COMMON = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1e6}


def random_model(shape: str, dtype: torch.dtype) -> tuple[CausalLM, Config]:
    """The network of a shape with small random weights."""
    raw = {**COMMON, **SHAPES[shape]}
    records = [record for record, _ in default_registry().records(Architecture) if record.name in raw["architectures"]]
    config = normalise(raw, shape, records[0].defaults)
    model = build_empty(records[0], config)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = torch.empty(parameter.shape, dtype=dtype).normal_(std=0.02)
            setattr(module, name, torch.nn.Parameter(values, requires_grad=False))
    assert isinstance(model, CausalLM)
    if raw["tie_word_embeddings"]:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model, config


def engine_of(model: CausalLM, dtype: torch.dtype) -> Engine:
    return Engine(
        model,
        Numbers(),
        device=torch.device("cpu"),
        dtype=dtype,
        end_tokens=frozenset(),
        context_length=4096,
        cache_tokens=8192,
    )


def prefill(engine: Engine, length: int) -> tuple[float, float]:
    """Seconds to the first token of a prompt, and of the same prompt again."""
    tokens = torch.randint(0, 1000, (length,), generator=torch.Generator().manual_seed(9)).tolist()
    found = [collect(engine.stream(tokens, Sampling(max_tokens=1, temperature=0.0))).usage.seconds for _ in range(2)]
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dtype: torch.dtype = getattr(torch, options.dtype)
    model, _ = random_model(options.shape, dtype)
    engine = engine_of(model, dtype)
    measure(engine, 16, 4, 1)
    found: dict[str, float] = {}
    one = measure(engine, options.prompt, options.generate, 1)["decode_tokens_per_second"]
    found["decode, 1 request, tokens/s"] = one
    for requests in (4, 8):
        speed = measure(engine, options.prompt, options.generate, requests)["decode_tokens_per_second"]
        found[f"decode, {requests} requests, tokens/s"] = speed
        found[f"{requests} requests over 1"] = speed / one
    first, again = prefill(engine, 1024)
    found["prompt of 1024, seconds to the first token"] = first
    found["the same again, seconds to the first token"] = again
    engine.close()
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:50} {value:8.2f}")


if __name__ == "__main__":
    main()
