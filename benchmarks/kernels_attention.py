"""Native attention beside torch's: decoding steps and chunks of prompts, each over keys and values in slots.

Torch is given what its engine gathers from the same slots, and the time of gathering is shown apart.  Every figure is
the least of interleaved rounds, for other work on a machine only adds to it.

    python benchmarks/kernels_attention.py [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bestiary_kernels.cpu.attention import ATTENTION, Heads, View, attention_arguments
from bestiary_kernels.cpu.cache import Memory
from bestiary_kernels.cpu.library import library

ROUNDS, SLOTS_OF_A_BLOCK = 9, 16


@dataclass(frozen=True)
class Shape:
    """One call."""

    sequences: int
    count: int
    length: int
    heads: int
    kv_heads: int
    dim: int
    dtype: torch.dtype

    @property
    def name(self) -> str:
        kind = "decode" if self.count == 1 else "chunk"
        dtype = "bf16" if self.dtype == torch.bfloat16 else "f32"
        heads = f"{self.heads}/{self.kv_heads} x {self.dim}"
        return f"{kind} {self.sequences} x {self.count} of {self.length}, {heads} {dtype}"


SHAPES = [
    Shape(sequences, count, length, heads, kv_heads, dim, dtype)
    for dtype in (torch.bfloat16, torch.float32)
    for heads, kv_heads, dim in ((14, 2, 64), (32, 8, 64), (16, 8, 128), (32, 8, 128))
    for sequences, count, length in ((1, 1, 512), (1, 1, 4096), (8, 1, 512), (1, 512, 512), (1, 512, 4096))
]


@dataclass(frozen=True)
class Contenders:
    """What is timed for one shape."""

    native: Callable[[], object]
    gather: Callable[[], object]
    torch: Callable[[], object]


def contenders(shape: Shape, threads: int) -> Contenders:
    n, width = shape.sequences, shape.kv_heads * shape.dim
    blocks = torch.randperm(n * shape.length // SLOTS_OF_A_BLOCK)
    slots = (blocks[:, None] * SLOTS_OF_A_BLOCK + torch.arange(SLOTS_OF_A_BLOCK)).view(n, shape.length)
    k, v = (torch.randn(n * shape.length, width).to(shape.dtype) for _ in range(2))
    q = torch.randn(n * shape.count, shape.heads, shape.dim).to(shape.dtype)
    y, scale = torch.empty_like(q), shape.dim**-0.5
    view = View(slots, torch.full((n,), shape.length), shape.count)
    native, heads = library(), Heads(shape.kv_heads, scale)
    arguments, kept = attention_arguments(q, Memory(k), Memory(v), heads, view, y, threads)

    def gather() -> list[torch.Tensor]:
        whole = (n, shape.length, shape.kv_heads, shape.dim)
        return [x.index_select(0, slots.flatten()).view(whole).transpose(1, 2) for x in (k, v)]

    keys, values = gather()
    mask = None
    if 1 < shape.count < shape.length:
        past = shape.length - shape.count
        mask = torch.arange(shape.length) <= torch.arange(past, shape.length)[:, None]

    def by_torch() -> torch.Tensor:
        if shape.count == 1:
            grouped = q.view(n, shape.kv_heads, -1, shape.dim)
            return F.scaled_dot_product_attention(grouped, keys, values, scale=scale)
        whole = q.transpose(0, 1)[None]
        causal = mask is None
        return F.scaled_dot_product_attention(whole, keys, values, mask, is_causal=causal, scale=scale, enable_gqa=True)

    def by_native() -> list[torch.Tensor]:
        native.call(ATTENTION, arguments, threads)
        return kept

    by_native()
    wanted = by_torch()
    wanted = wanted.reshape(y.shape) if shape.count == 1 else wanted[0].transpose(0, 1)
    assert torch.allclose(y.float(), wanted.float(), rtol=2e-2, atol=2e-2)
    return Contenders(by_native, gather, by_torch)


def milliseconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="shapes whose name has this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'milliseconds':45} {'native':>9} {'gather':>9} {'torch':>9} {'ratio':>7} {'with gather':>12}")
    for shape in SHAPES:
        if options.only not in shape.name:
            continue
        which = contenders(shape, options.threads)
        entries = (which.native, which.gather, which.torch)
        calls = [max(1, int(5 / milliseconds(entry, 1))) for entry in entries]
        rounds = [[milliseconds(entry, n) for entry, n in zip(entries, calls, strict=True)] for _ in range(ROUNDS)]
        native, gather, by_torch = (min(times) for times in zip(*rounds, strict=True))
        both = (gather + by_torch) / native
        print(f"{shape.name:45} {native:9.3f} {gather:9.3f} {by_torch:9.3f} {by_torch / native:7.2f} {both:12.2f}")


if __name__ == "__main__":
    main()
