# mypy: ignore-missing-imports
"""Compile what the functions of this package launch, for a GPU that is not here: python compiling.py CAPABILITY.

Run without Triton's interpreter.  Every function is called once with the shapes of a real model; each launch is
compiled just as it would be, from the same arguments, and nothing is run.  Prints a line of JSON for each kernel: its
name, the target in its PTX, and the bytes of shared memory that a block of it takes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from bestiary_kernels.triton.attention_decode import decode_attention
from bestiary_kernels.triton.attention_prefill import prefill_attention
from bestiary_kernels.triton.experts import grouped_linear
from bestiary_kernels.triton.formats.table import FORMATS
from bestiary_kernels.triton.gated import gelu_tanh_and_mul, silu_and_mul
from bestiary_kernels.triton.linear import linear
from bestiary_kernels.triton.norm import add_rms_norm
from bestiary_kernels.triton.rope_cache import rope_and_write
from bestiary_kernels.triton.weight import Weight


class Absent:
    """As much of a driver as compiling asks for: which GPU it would be."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled_launches(capability: int) -> Iterator[tuple[str, Any]]:
    """What is compiled, with a name that says for which function and format."""
    triton.runtime.driver.set_active(Absent(capability))
    run, made = triton.runtime.JITFunction.run, []

    def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        made.append((kernel.__name__, run(kernel, *arguments, grid=grid, warmup=True, **options)))

    triton.runtime.JITFunction.run = compile_only
    for name, call in calls():
        call()
        yield from ((f"{name} {kernel}", compiled) for kernel, compiled in made)
        made.clear()


def weight(name: str, rows: int, columns: int, stack: tuple[int, ...] = ()) -> Weight:
    kind = FORMATS[name]
    shape = (*stack, rows, columns // kind.length * kind.size)
    codes = torch.zeros(shape, dtype=torch.bfloat16 if name == "plain" else torch.uint8)
    if name == "int4":
        groups = torch.zeros(*stack, rows, columns // 128, dtype=torch.float16)
        return Weight(name, codes, groups, groups.clone())
    if name == "float8_rows":
        return Weight(name, codes, torch.zeros(*stack, rows, columns // 128))
    return Weight(name, codes, torch.zeros(*stack, rows // 128, columns // 128) if name == "float8" else None)


def calls() -> Iterator[tuple[str, Any]]:
    def x(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.bfloat16)

    for name in FORMATS:
        held = weight(name, 1024, 2048)
        for rows in (1, 512) if name not in ("plain", "Q4_K") else (1, 8, 512):
            yield f"linear {name} {rows}", lambda held=held, rows=rows: linear(x(rows, 2048), held)
    for name in ("plain", "Q4_K", "MXFP4", "float8"):
        stack, offsets = weight(name, 256, 2048, (8,)), torch.zeros(9, dtype=torch.int64)
        yield f"experts {name}", lambda stack=stack, offsets=offsets: grouped_linear(x(512, 2048), offsets, stack)
    yield "norm", lambda: add_rms_norm(x(4, 4096), x(4, 4096), x(4096), 1e-6)
    yield "norm offset", lambda: add_rms_norm(x(4, 2560), None, x(2560), 1e-6, 1.0)
    yield "silu", lambda: silu_and_mul(x(4, 8192), x(4, 8192))
    yield "gelu", lambda: gelu_tanh_and_mul(x(4, 8192), x(4, 8192))
    slots, tables = torch.zeros(4, dtype=torch.int64), torch.zeros(4, 8, dtype=torch.int32)
    q, k, angles = x(4, 32, 128), x(4, 8, 128), torch.zeros(4, 32)
    for turn in (False, True):
        cache = x(512, 8 * 128), x(512, 8 * 128)
        yield (
            f"rope {turn}",
            lambda turn=turn, cache=cache: rope_and_write(q, k, k, angles, angles, *cache, slots, turn),
        )
    everything = {"window": 512, "softcap": 50.0, "sinks": x(8)}
    # Tables of single slots are what the operation `attend` has.
    slot_tables = tables.long(), {"size": 1}
    shapes = ((128, 32, 8, *slot_tables), (256, 8, 4, tables, everything), (80, 32, 32, tables, {}))
    for width, heads, kv_heads, held, told in shapes:
        q, keys, told = x(4, heads, width), x(512, kv_heads * width), {"size": 16, "scale": 0.1, **told}
        yield (
            f"decode {width}",
            lambda q=q, keys=keys, held=held, told=told: decode_attention(q, keys, keys, held, slots, **told),
        )
        yield (
            f"prefill {width}",
            lambda q=q, keys=keys, held=held, told=told: prefill_attention(
                q, keys, keys, held, slots, slots, slots, longest=512, **told
            ),
        )


if __name__ == "__main__":
    for name, compiled in compiled_launches(int(sys.argv[1])):
        (target,) = re.findall(r"^\.target (\w+)", compiled.asm["ptx"], re.MULTILINE)
        print(json.dumps({"kernel": name, "target": target, "shared": compiled.metadata.shared}), flush=True)
