"""Random weights of every packed type, and their numbers by gguf's own dequantisation or plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
import torch

from bestiary_kernels.cpu.library import Library
from bestiary_kernels.cpu.panels import Panels, pack_blocks, pack_int4, pack_int8
from bestiary_kernels.cpu.types import BLOCKS

TYPES = (*BLOCKS, "INT8", "INT4")

_SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
"""Where the halves of a block are, which random bytes would make infinite."""


@dataclass(frozen=True)
class Made:
    """A weight, packed, and its numbers."""

    panels: Panels
    numbers: np.ndarray
    """[rows, columns] float64."""
    blocks: torch.Tensor | None = None


def make(library: Library, name: str, rows: int, columns: int, seed: int = 0) -> Made:
    """A random weight; columns are a multiple of its blocks'."""
    rng = np.random.default_rng(seed)
    if name == "INT8":
        codes = rng.integers(-128, 128, (rows, columns), dtype=np.int8)
        scales = rng.uniform(0.001, 0.02, rows).astype(np.float32)
        panels = pack_int8(library, torch.from_numpy(codes), torch.from_numpy(scales), 2)
        return Made(panels, codes.astype(np.float64) * scales[:, None])
    if name == "INT4":
        return _int4(library, rng, rows, columns)
    data = blocks(name, rows, columns, rng)
    numbers = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]).astype(np.float64)
    tensor = torch.from_numpy(data)
    return Made(pack_blocks(library, tensor, BLOCKS[name], 2), numbers, tensor)


def blocks(name: str, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of random blocks [rows, bytes] uint8."""
    type = BLOCKS[name]
    data = rng.integers(0, 256, (rows, columns // type.columns, type.nbytes), dtype=np.uint8)
    if name == "MXFP4":
        data[..., 0] = rng.integers(118, 130, data.shape[:2])
    for place in _SCALES.get(name, ()):
        halves = rng.uniform(-0.02, 0.02, data.shape[:2]).astype(np.float16)
        data[..., place : place + 2] = halves[..., None].view(np.uint8)
    return data.reshape(rows, -1)


def _int4(library: Library, rng: np.random.Generator, rows: int, columns: int, group: int = 64) -> Made:
    codes = rng.integers(0, 16, (rows, columns), dtype=np.uint8)
    scales, addends = rng.uniform(-0.02, 0.02, (2, rows, columns // group)).astype(np.float32)
    pairs = codes.reshape(rows, -1, 2, 16)
    packed = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(rows, -1)
    panels = pack_int4(library, *map(torch.from_numpy, (packed, scales, addends)), 2)
    wide_scales, wide_addends = (np.repeat(x.astype(np.float64), group, 1) for x in (scales, addends))
    return Made(panels, codes * wide_scales + wide_addends)


def quantized(x: np.ndarray) -> np.ndarray:
    """Activations [T, columns] float32 as the products see them: int8 and a scale for each 32, in float64."""
    columns = x.shape[1]
    groups = np.pad(x, ((0, 0), (0, -columns % 32))).reshape(len(x), -1, 32).astype(np.float32)
    greatest = np.abs(groups).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), greatest, out=np.zeros_like(greatest), where=greatest > 0)
    codes = np.rint(groups * inverse).astype(np.float64)
    scales = (greatest / np.float32(127)).astype(np.float64)
    return (codes * scales).reshape(len(x), -1)[:, :columns]
