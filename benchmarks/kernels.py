"""The native products alone: the memory's speed with one row of activations, arithmetic with many.

    python benchmarks/kernels.py --types Q4_0,Q4_K,Q6_K,Q8_0,bfloat16 --shape 8192x2048 --json kernels.json

Weights rotate through more memory than the caches hold.  Beside each figure stand what the machine does at best in the
same run: reading memory, and torch's own product of float32 matrices.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bestiary_kernels.cpu.library import Library, library
from bestiary_kernels.cpu.linear import PlainWeight, multiply, multiply_plain
from bestiary_kernels.cpu.panels import pack_blocks
from bestiary_kernels.cpu.types import BLOCKS

ROTATED = 160 << 20
"""Bytes of weights that are used in turn."""

Product = Callable[[torch.Tensor, int], object]
"""(x, which of the copies)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="Q4_0,Q4_K,Q5_K,Q6_K,Q8_0,bfloat16")
    parser.add_argument("--shape", default="8192x2048", help="rows x columns")
    parser.add_argument("--rows", default="1,2,4,8,16,512", help="rows of activations")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    n, k = map(int, arguments.shape.split("x"))
    native = library()
    bandwidth, peak = read_speed(), float32_speed()
    print(f"{native.instruction_set}, {arguments.threads} threads; memory {bandwidth / 1e9:.1f} GB/s,", end=" ")
    print(f"torch float32 {peak / 1e9:.0f} GFLOP/s")
    print(f"{'type':9} {'rows':>5} {'us':>9} {'GB/s':>6} {'of memory':>9} {'GOP/s':>6} {'of float32':>10}")
    found = []
    for name in arguments.types.split(","):
        product, copies, nbytes = weights(native, name, n, k, arguments.threads)
        for m in map(int, arguments.rows.split(",")):
            x = torch.randn(m, k)
            seconds = best(product, x, copies)
            speed, work = nbytes / seconds, 2 * m * n * k / seconds
            found.append({"type": name, "rows": m, "seconds": seconds, "bytes": nbytes, "operations": 2 * m * n * k})
            print(f"{name:9} {m:5} {seconds * 1e6:9.0f} {speed / 1e9:6.1f} {speed / bandwidth:9.0%}", end=" ")
            print(f"{work / 1e9:6.0f} {work / peak:10.1f}")
    if arguments.json:
        facts = {"bandwidth": bandwidth, "float32": peak, "threads": arguments.threads, "measured": found}
        arguments.json.write_text(json.dumps(facts, indent=1))


def weights(native: Library, name: str, n: int, k: int, threads: int) -> tuple[Product, int, int]:
    """What multiplies with one of several copies of a random weight, how many there are, and the bytes of one."""
    if name not in BLOCKS:
        plain = [PlainWeight(torch.randn(n, k).to(getattr(torch, name)))]
        nbytes = plain[0].data.nbytes
        plain += [PlainWeight(plain[0].data.clone()) for _ in range(ROTATED // nbytes)]
        return lambda x, i: multiply_plain(native, x, [plain[i]], [None], threads), len(plain), nbytes
    type = BLOCKS[name]
    # Random bytes: of scales that are no numbers, products are none either, which takes no longer.
    blocks = torch.from_numpy(np.random.default_rng(0).integers(0, 120, (n, k // type.columns * type.nbytes), np.uint8))
    panels = [pack_blocks(native, blocks, type, threads) for _ in range(1 + ROTATED // blocks.nbytes)]
    return lambda x, i: multiply(native, x, [panels[i]], [None], threads), len(panels), blocks.nbytes


def best(product: Product, x: torch.Tensor, copies: int) -> float:
    """Seconds of a call: the tenth part of all that were faster."""
    times = []
    for turn in range(max(3, 60 // copies) if len(x) <= 32 else 1):
        for copy in range(copies if len(x) <= 32 else 3):
            start = time.perf_counter()
            product(x, copy)
            times.append(time.perf_counter() - start)
        del turn
    return float(np.percentile(times, 10))


def read_speed() -> float:
    """Bytes a second of reading much memory, with all threads."""
    memory = torch.ones(1 << 27, dtype=torch.float32)
    return memory.nbytes / min(timed(memory.sum) for _ in range(8))


def float32_speed() -> float:
    """Floating-point operations a second of torch's product of matrices."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / min(timed(lambda: a @ b) for _ in range(8))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
