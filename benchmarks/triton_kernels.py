"""How fast the kernels for GPUs are, beside what torch does of the same.

    python benchmarks/triton_kernels.py [--outputs 4096] [--columns 4096]

Products with vectors, attention of single tokens and the small operations are bound by memory: GB/s of what they must
read and write.  Products of matrices and prefill are bound by arithmetic: TFLOP/s.  torch's are those of bfloat16
weights, F.linear and F.scaled_dot_product_attention over contiguous keys, and its separate operations.  Each time is
the median of Triton's `do_bench`, which clears the cache between calls.  Without a GPU it says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

Case = tuple[str, float, str, Callable[[], Any], Callable[[], Any] | None]
"""A name, how much there is to do, its unit, ours and torch's."""


def show(case: Case) -> None:
    from triton.testing import do_bench

    name, amount, unit, ours, theirs = case
    seconds = [do_bench(function, return_mode="median") / 1e3 for function in (ours, theirs) if function]
    rates = [f"{amount / time:9.1f} {unit}" for time in seconds]
    beside = f"   torch {rates[1]}   {seconds[1] / seconds[0]:5.2f} times as fast" if theirs else ""
    print(f"{name:32}{rates[0]}{beside}", flush=True)


def weights(outputs: int, columns: int) -> Iterator[tuple[str, Any]]:
    """One in every format, of random codes; scales are small, so that the numbers are finite."""
    from bestiary_kernels.triton.formats.table import FORMATS
    from bestiary_kernels.triton.weight import Weight

    for name, kind in FORMATS.items():
        if name == "plain":
            continue
        codes = torch.randint(0, 64, (outputs, columns // kind.length * kind.size), dtype=torch.uint8, device="cuda")
        scales = addends = None
        if name == "int4":
            scales = torch.rand(outputs, columns // 128, device="cuda").half()
            addends = -8 * scales
        if name == "float8":
            scales = torch.rand(-(-outputs // 128), -(-columns // 128), device="cuda")
        yield name, Weight(name, codes, scales, addends)


def linear_cases(outputs: int, columns: int) -> Iterator[Case]:
    from bestiary_kernels.triton.linear import linear

    plain = torch.randn(outputs, columns, dtype=torch.bfloat16, device="cuda")
    for name, held in weights(outputs, columns):
        for rows in (1, 4, 512, 4096):
            x = torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda")
            few = rows < 16
            amount = held.nbytes / 1e9 if few else 2 * rows * outputs * columns / 1e12
            yield (
                f"linear {name}, {rows} rows",
                amount,
                "GB/s" if few else "TFLOP/s",
                lambda x=x, held=held: linear(x, held),  # type: ignore[misc]
                lambda x=x: F.linear(x, plain),  # type: ignore[misc]
            )


def expert_cases() -> Iterator[Case]:
    from bestiary_kernels.triton.experts import grouped_linear
    from bestiary_kernels.triton.weight import Weight

    count, outputs, columns = 64, 1408, 2048
    numbers = torch.randn(count, outputs, columns, dtype=torch.bfloat16, device="cuda")
    codes = torch.randint(0, 64, (count, outputs, columns // 256 * 144), dtype=torch.uint8, device="cuda")
    for rows in (64, 8192):
        x = torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda")
        offsets = torch.arange(0, rows + 1, rows // count, device="cuda")
        each = x.view(count, -1, columns)
        few = rows < 1024
        for name, held in (("plain", Weight("plain", numbers)), ("Q4_K", Weight("Q4_K", codes))):
            amount = held.nbytes / 1e9 if few else 2 * rows * outputs * columns / 1e12
            yield (
                f"experts {name}, {rows} rows",
                amount,
                "GB/s" if few else "TFLOP/s",
                lambda x=x, offsets=offsets, held=held: grouped_linear(x, offsets, held),  # type: ignore[misc]
                lambda each=each: torch.bmm(each, numbers.mT),  # type: ignore[misc]
            )


def attention_cases() -> Iterator[Case]:
    from bestiary_kernels.triton.attention_decode import decode_attention
    from bestiary_kernels.triton.attention_prefill import prefill_attention

    heads, kv_heads, width, size = 32, 8, 128, 16
    for count, length in ((1, 32768), (32, 4096)):
        blocks = length // size
        cache = torch.randn(2, count * length, kv_heads * width, dtype=torch.bfloat16, device="cuda")
        tables = torch.randperm(count * blocks, device="cuda").int().view(count, blocks)
        lengths = torch.full((count,), length, device="cuda")
        k, v = cache.view(2, count, length, kv_heads, width).transpose(2, 3).contiguous()
        q = torch.randn(count, heads, width, dtype=torch.bfloat16, device="cuda")
        yield (
            f"decode {count} x {length}",
            cache.nbytes / 1e9,
            "GB/s",
            lambda q=q, cache=cache, tables=tables, lengths=lengths: decode_attention(  # type: ignore[misc]
                q, *cache, tables, lengths, size=size, scale=width**-0.5
            ),
            lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True),  # type: ignore[misc]
        )
    length = 4096
    q, k = (torch.randn(length, n, width, dtype=torch.bfloat16, device="cuda") for n in (heads, kv_heads))
    table = torch.randperm(length // size, device="cuda").int()[None]
    start, whole = torch.zeros(1, dtype=torch.int64, device="cuda"), torch.full((1,), length, device="cuda")
    flat, by_head = k.flatten(1), [x.transpose(0, 1)[None] for x in (q, k, k)]
    yield (
        f"prefill {length}",
        2 * heads * length * length * width / 1e12,  # two products, of which a causal mask leaves half
        "TFLOP/s",
        lambda: prefill_attention(
            q, flat, flat, table, start, whole, whole, size=size, scale=width**-0.5, longest=length
        ),
        lambda: F.scaled_dot_product_attention(*by_head, is_causal=True, enable_gqa=True),
    )


def small_cases() -> Iterator[Case]:
    from bestiary_kernels.triton.gated import silu_and_mul
    from bestiary_kernels.triton.norm import add_rms_norm
    from bestiary_kernels.triton.rope_cache import rope_and_write, rope_and_write_reference

    rows, width = 4096, 4096
    x, residual = torch.randn(2, rows, width, dtype=torch.bfloat16, device="cuda")
    weight = torch.ones(width, dtype=torch.bfloat16, device="cuda")
    yield (
        "add and norm",
        4 * x.nbytes / 1e9,
        "GB/s",
        lambda: add_rms_norm(x, residual, weight, 1e-6),
        lambda: F.rms_norm(x + residual, (width,), weight, 1e-6),
    )
    yield "silu and mul", 3 * x.nbytes / 1e9, "GB/s", lambda: silu_and_mul(x, residual), lambda: F.silu(x) * residual
    q, k = (torch.randn(rows, n, 128, dtype=torch.bfloat16, device="cuda") for n in (32, 8))
    angles, slots = torch.randn(rows, 64, device="cuda"), torch.randperm(rows, device="cuda")
    cache = torch.zeros(2, rows, 8 * 128, dtype=torch.bfloat16, device="cuda")
    told = q, k, k, angles.cos(), angles.sin(), *cache, slots
    yield (
        "rope and cache",
        2 * (q.nbytes + 2 * k.nbytes) / 1e9,
        "GB/s",
        lambda: rope_and_write(*told),
        lambda: rope_and_write_reference(*told),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outputs", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU here: nothing is measured.")
        return
    print(torch.cuda.get_device_name())
    for cases in (linear_cases(options.outputs, options.columns), expert_cases(), attention_cases(), small_cases()):
        for case in cases:
            show(case)


if __name__ == "__main__":
    main()
