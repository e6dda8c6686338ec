"""What a decoding step costs beside the arithmetic: a 28-layer model whose operations do nothing.

Every operation that a kernel would do (linear layers, norms, rotations, attention, activations, the embedding) returns
a buffer that was there before.  What is left is the scheduler, the batch, the calls of the modules, the choice of a
token and its text.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from bestiary.config import normalise
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.events import Stepped
from bestiary.generation.engine.paged_attention import PagedLayer
from bestiary.generation.sampling import Sampling
from bestiary.nn import Embedding, Linear, RMSNorm
from bestiary.nn.rope import Rope, Rotation
from bestiary.testing.numbers import Numbers
from bestiary_qwen.model import build

LAYERS, STEPS = 28, 300
CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "rope_theta": 1e6,
}


def do_nothing() -> None:
    """Put operations that return what they returned before in place of the real ones, in this process."""
    buffers: dict[Any, torch.Tensor] = {}

    def kept(layer: Any, x: torch.Tensor, width: int) -> torch.Tensor:
        key = layer, x.shape[0]
        found = buffers.get(key)
        if found is None:
            found = buffers[key] = torch.zeros(x.shape[0], width)
        return found

    Linear.forward = lambda layer, x: kept(layer, x, layer.weight.shape[0])
    Embedding.forward = lambda layer, x: kept(layer, x, layer.weight.shape[1])
    RMSNorm.forward = lambda layer, x: x
    Rope.forward = lambda layer, positions, lengths: Rotation(positions, positions)
    Rotation.to = lambda rotation, dtype: rotation
    Rotation.apply = lambda rotation, x: x
    PagedLayer.attend = lambda layer, q, k, v, spec, sinks=None: q


def measure(requests: int) -> float:
    """Milliseconds of the median step in which `requests` sequences decode."""
    model = build(normalise(CONFIG, "here")).eval()
    engine = Engine(
        model,
        Numbers(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        end_tokens=frozenset(),
        context_length=4096,
        cache_tokens=requests * 1024,
    )
    seconds: list[float] = []
    last = time.perf_counter()

    def note(event: object) -> None:
        nonlocal last
        now = time.perf_counter()
        if isinstance(event, Stepped) and event.tokens == requests:
            seconds.append(now - last)  # with the loop around the step
        last = now

    engine.subscribe(note)
    streams = [engine.stream([1 + index], Sampling(max_tokens=STEPS)) for index in range(requests)]
    for stream in streams:
        collect(stream)
    engine.close()
    return 1000 * statistics.median(seconds)


def main() -> None:
    torch.set_num_threads(1)
    do_nothing()
    print(f"a step of {LAYERS} layers that do nothing, milliseconds (median of {STEPS})")
    for requests in (1, 8, 64):
        print(f"{requests:4} requests  {measure(requests):6.2f}")


if __name__ == "__main__":
    main()
