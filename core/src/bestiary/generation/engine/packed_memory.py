"""What keys and values are kept as: the model's own numbers, or codes of 8 or 4 bits beside their scales.

A head's numbers are cut into groups, and each group of each token has a scale of its own; so a token is packed without
a look at any other, and is the same numbers in every batch, chunk and block.  Keys are packed after their rotation.

With eight bits a group has a scale alone; with four also its least number (asymmetric, as in KIVI, arXiv 2402.02750,
but by token for keys too), for the keys of a group are rarely centred.  Both are bfloat16, which has the range of
float32, and codes are made with the rounded ones.  Groups of at most 64 numbers part the latent of multi-head latent
attention from its rotary numbers, which are of another size.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from bestiary.generation.engine.cache_types import check_cache_type
from bestiary.nn.batch import AttentionSpec

SCALES = torch.bfloat16
FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FLOAT8).max


class Form(Protocol):
    """How keys [T, KH, D], or values, lie in memory."""

    count: ClassVar[int]
    """Of its memories."""

    @property
    def columns(self) -> tuple[tuple[int, torch.dtype], ...]:
        """The width and the type of each of its memories, for one token."""

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[T, KH, D] -> what goes into each memory, [T, width].  What is no number makes its own group none."""

    def decode(self, parts: Many[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """Rows [N, width] of each memory -> [N, KH, D]."""


def form_of(cache_type: str, spec: AttentionSpec, dtype: torch.dtype) -> Form:
    """The form that a layer's keys and values have in a cache; `dtype` is the model's.  Raises OptionError."""
    check_cache_type(cache_type)
    heads, dim = spec.kv_heads, spec.head_dim
    if cache_type == "fp8":
        return Float8(Groups.of(heads, dim, 64))
    if cache_type == "int8":
        return Int8(Groups.of(heads, dim, 64))
    if cache_type == "int4":
        return Int4(Groups.of(heads, dim, 32))
    return Plain(heads, dim, dtype if cache_type == "auto" else getattr(torch, cache_type))


@dataclass(frozen=True)
class Plain:
    """The numbers themselves."""

    heads: int
    dim: int
    dtype: torch.dtype

    count: ClassVar[int] = 1

    @property
    def columns(self) -> tuple[tuple[int, torch.dtype], ...]:
        return ((self.heads * self.dim, self.dtype),)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x.flatten(1).to(self.dtype),)

    def decode(self, parts: Many[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        return parts[0].view(-1, self.heads, self.dim).to(dtype)


@dataclass(frozen=True)
class Groups:
    """Heads cut into groups of equal, even size; where that does not come out, the head's last number is repeated."""

    heads: int
    dim: int
    each: int
    """Of a head."""
    size: int

    @classmethod
    def of(cls, heads: int, dim: int, most: int) -> Groups:
        """Groups of at most `most` numbers, an even number."""
        each = -(-dim // most)
        return cls(heads, dim, each, 2 * -(-dim // (2 * each)))

    @property
    def total(self) -> int:
        """G, of all heads together."""
        return self.heads * self.each

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """[T, KH, D] -> [T, G, size] in float32."""
        x = x.reshape(-1, self.heads, self.dim).float()
        if self.each * self.size > self.dim:
            x = torch.cat((x, x[..., -1:].expand(-1, -1, self.each * self.size - self.dim)), -1)
        return x.reshape(-1, self.total, self.size)

    def join(self, x: torch.Tensor) -> torch.Tensor:
        """[N, G, size] -> [N, KH, D]."""
        return x.reshape(-1, self.heads, self.each * self.size)[..., : self.dim]


@dataclass(frozen=True)
class Float8:
    """x = scale * code, with codes of four bits of exponent and three of mantissa (E4M3, arXiv 2209.05433)."""

    groups: Groups

    count: ClassVar[int] = 2

    @property
    def columns(self) -> tuple[tuple[int, torch.dtype], ...]:
        # Bytes: on a CPU torch does not copy its own type into rows.
        return (self.groups.total * self.groups.size, torch.uint8), (self.groups.total, SCALES)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.groups.cut(x)
        scale = (x.abs().amax(-1) / _LARGEST).to(SCALES)
        codes = (x / _divisor(scale)).clamp(-_LARGEST, _LARGEST).to(FLOAT8)
        return codes.view(torch.uint8).flatten(1), scale

    def decode(self, parts: Many[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        codes = parts[0].view(FLOAT8).to(dtype).view(-1, self.groups.total, self.groups.size)
        return self.groups.join(codes * parts[1].to(dtype)[..., None])


@dataclass(frozen=True)
class Int8:
    """x = scale * code, with codes from -127 to 127."""

    groups: Groups

    count: ClassVar[int] = 2

    @property
    def columns(self) -> tuple[tuple[int, torch.dtype], ...]:
        return (self.groups.total * self.groups.size, torch.int8), (self.groups.total, SCALES)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.groups.cut(x)
        scale = (x.abs().amax(-1) / 127).to(SCALES)
        codes = (x / _divisor(scale)).round().clamp(-127, 127)
        return codes.to(torch.int8).flatten(1), scale

    def decode(self, parts: Many[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        codes = parts[0].view(-1, self.groups.total, self.groups.size)
        return self.groups.join(codes * parts[1].to(dtype)[..., None])


@dataclass(frozen=True)
class Int4:
    """x = least + scale * code, with codes from 0 to 15.

    A byte has a code of a group's first half in its low bits, and one of the second half in its high bits.  The scale
    and the least number of a group lie side by side.
    """

    groups: Groups

    count: ClassVar[int] = 2

    @property
    def columns(self) -> tuple[tuple[int, torch.dtype], ...]:
        return (self.groups.total * self.groups.size // 2, torch.uint8), (2 * self.groups.total, SCALES)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.groups.cut(x)
        least = x.amin(-1).to(SCALES)
        scale = ((x.amax(-1) - least.float()) / 15).to(SCALES)
        codes = ((x - least.float()[..., None]) / _divisor(scale)).round().clamp(0, 15).to(torch.uint8)
        low, high = codes.chunk(2, -1)
        return (low | high << 4).flatten(1), torch.stack((scale, least), -1).flatten(1)

    def decode(self, parts: Many[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        pairs = parts[0].view(-1, self.groups.total, self.groups.size // 2)
        scale, least = parts[1].to(dtype).view(-1, self.groups.total, 1, 2).unbind(-1)
        codes = torch.cat((pairs & 15, pairs >> 4), -1).to(dtype)
        return self.groups.join(torch.addcmul(least, codes, scale))


def _divisor(scale: torch.Tensor) -> torch.Tensor:
    """Scales [T, G] as what groups are divided by: where all numbers are alike, or too small for a scale, by one."""
    return scale.masked_fill(scale == 0, 1).float()[..., None]
