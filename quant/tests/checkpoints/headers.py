"""A checkpoint of headers: what they announce may be of any size, and to read what has no data fails the test."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from bestiary.checkpoints.safetensors_header import BITS

NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint32: "U32",
    torch.float8_e4m3fn: "F8_E4M3",
}
Header = tuple[str, tuple[int, ...]]


def header(tensor: torch.Tensor) -> Header:
    return NAMES[tensor.dtype], tuple(tensor.shape)


class Headers:
    """A `Checkpoint` of headers, with the data of those tensors that are given."""

    config: Mapping[str, Any] = {}
    origin = "test/model"

    def __init__(self, headers: Mapping[str, Header], data: Mapping[str, torch.Tensor] | None = None) -> None:
        self.headers, self.data, self.closed = dict(headers), dict(data or {}), False

    def names(self) -> tuple[str, ...]:
        return tuple(self.headers)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.headers[name][1]

    def dtype(self, name: str) -> str:
        return self.headers[name][0]

    def nbytes(self, name: str) -> int:
        kind, shape = self.headers[name]
        return prod(shape) * BITS[kind] // 8

    def read(self, name: str) -> torch.Tensor:
        assert name in self.data, f"the data of {name} was read"
        return self.data[name]

    def release(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
