"""Attention over slots, against the formula in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from bestiary.generation.engine.packed_memory import form_of
from bestiary.nn.attend import attend as core_attend
from bestiary.nn.batch import AttentionSpec
from bestiary_kernels.cpu.attention import ATTENTION, Heads, View, attend, attention_arguments
from bestiary_kernels.cpu.cache import Memory, write
from bestiary_kernels.cpu.library import Library, instruction_sets, library

SETS = pytest.mark.parametrize("instructions", instruction_sets())
TYPES = (torch.float32, torch.bfloat16, torch.float16)
POISON = 12345.0
ERROR = {torch.float32: 5e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Of a result relative to the largest value; half a unit of the last place in narrow types."""


@dataclass(frozen=True)
class Case:
    """Random sequences in one memory, their slots in no order."""

    native: Library
    dtype: torch.dtype
    lengths: tuple[int, ...]
    count: int = 1
    heads: int = 4
    kv_heads: int = 2
    dim: int = 64
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    kind: str = "auto"
    threads: int = 2

    @property
    def spec(self) -> AttentionSpec:
        return AttentionSpec(self.heads, self.kv_heads, self.dim, self.dim**-0.5 * 1.5, self.window, self.softcap)

    def check(self) -> torch.Tensor:
        """The result, after it was compared."""
        torch.manual_seed(sum(self.lengths))
        n, longest, spec = len(self.lengths), max(self.lengths), self.spec
        slots = sum(self.lengths) + 1  # the last one is nobody's, and no number
        form = form_of(self.kind, spec, self.dtype)
        parts = [torch.zeros(slots, width, dtype=kind) for width, kind in form.columns * 2]
        keys, values = Memory(*parts[: form.count]), Memory(*parts[form.count :])
        k, v = (torch.randn(slots, self.kv_heads, self.dim).to(self.dtype) for _ in range(2))
        k[-1], v[-1] = float("nan"), float("nan")
        write(self.native, k, v, torch.arange(slots), keys, values, 1)
        k, v = (form.decode(part, torch.float32) for part in (parts[: form.count], parts[form.count :]))

        seen = torch.full((n, longest + 3), slots - 1)
        order = torch.randperm(slots - 1)
        for i, mine in enumerate(order.split(self.lengths)):
            seen[i, : len(mine)] = mine
        rows = torch.randperm(n) * (self.count + 1)
        q = torch.randn(n * (self.count + 1) + 1, self.heads + 1, self.dim).to(self.dtype)[:, 1:]
        sinks = torch.randn(self.heads).to(self.dtype) if self.sinks else None
        y = torch.full((len(q), self.heads, self.dim), POISON, dtype=self.dtype)
        told = Heads(self.kv_heads, spec.scale, spec.window, spec.softcap, sinks)
        view = View(seen, torch.tensor(self.lengths), self.count, rows)
        arguments, kept = attention_arguments(q, keys, values, told, view, y, self.threads)
        kept[-1].fill_(float("nan"))
        self.native.call(ATTENTION, arguments, self.threads)

        untouched = torch.ones(len(q), dtype=torch.bool)
        for i, mine in enumerate(order.split(self.lengths)):
            part = slice(int(rows[i]), int(rows[i]) + self.count)
            untouched[part] = False
            exact = self.exact(q[part], k[mine], v[mine], sinks)
            largest = exact.abs().max()
            assert (y[part] - exact).abs().max() <= ERROR[self.dtype] * largest + 1e-6 * largest
        assert torch.all(y[untouched] == torch.tensor(POISON, dtype=self.dtype))
        return y

    def exact(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
        """The core's reference for one sequence, in float64."""
        given = [x.double().transpose(0, 1) for x in (q, k, v)]
        if self.sinks or self.softcap:  # for which it makes probabilities of float32
            wide = None if sinks is None else sinks.double()
            return by_hand(*given, self.spec, wide).transpose(0, 1)
        return core_attend(*given, self.spec).transpose(0, 1)


def by_hand(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec, sinks: torch.Tensor | None
) -> torch.Tensor:
    """[H, T, D], all in float64."""
    group, new, seen = spec.heads // spec.kv_heads, q.shape[1], k.shape[1]
    scores = q @ k.repeat_interleave(group, 0).transpose(1, 2) * spec.scale
    if spec.softcap:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    distance = torch.arange(seen - new, seen)[:, None] - torch.arange(seen)
    scores = scores.masked_fill((distance < 0) | (distance >= (spec.window or seen + 1)), -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks[:, None, None].expand(-1, new, 1)), -1)
    return scores.softmax(-1)[..., :seen] @ v.repeat_interleave(group, 0)


@SETS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ("auto", "int8"))
@pytest.mark.parametrize("dim", (40, 64, 80, 96, 128, 256))
def test_decoding(instructions: str, dtype: torch.dtype, kind: str, dim: int) -> None:
    Case(library(instructions), dtype, (1, 15, 16, 17, 100, 1000), dim=dim, kind=kind).check()


@SETS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ("auto", "int8"))
@pytest.mark.parametrize("dim", (40, 64, 80, 96, 128, 256))
def test_chunks(instructions: str, dtype: torch.dtype, kind: str, dim: int) -> None:
    for length, count in ((2, 2), (17, 16), (100, 100), (100, 7), (1000, 37)):
        Case(library(instructions), dtype, (length,), count, dim=dim, kind=kind).check()


@SETS
@pytest.mark.parametrize(("heads", "kv_heads"), ((1, 1), (2, 2), (6, 2), (5, 1), (7, 1), (16, 1), (24, 1)))
def test_grouped_heads(instructions: str, heads: int, kv_heads: int) -> None:
    case = Case(library(instructions), torch.float32, (33, 600), heads=heads, kv_heads=kv_heads, dim=24)
    case.check()
    replace(case, lengths=(150,), count=40).check()


@SETS
@pytest.mark.parametrize("window", (1, 5, 64, 150, 2000))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_windows(instructions: str, dtype: torch.dtype, window: int) -> None:
    case = Case(library(instructions), dtype, (3, 100, 1500), window=window)
    case.check()
    replace(case, lengths=(700,), count=130).check()


@SETS
@pytest.mark.parametrize("window", (None, 50))
@pytest.mark.parametrize("softcap", (None, 2.0))
@pytest.mark.parametrize("sinks", (False, True))
def test_softcaps_and_sinks(instructions: str, window: int | None, softcap: float | None, sinks: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        case = Case(library(instructions), dtype, (1, 17, 1100), window=window, softcap=softcap, sinks=sinks)
        case.check()
        replace(case, lengths=(300,), count=70).check()


@SETS
def test_several_chunks_at_once(instructions: str) -> None:
    Case(library(instructions), torch.float32, (40, 5, 200), 5, threads=3).check()


@SETS
@pytest.mark.parametrize("count", (1, 3))
def test_nothing_seen_gives_zeros(instructions: str, count: int) -> None:
    memory = Memory(torch.full((4, 2 * 16), float("nan")))
    view = View(torch.zeros(2, 8, dtype=torch.int64), torch.tensor([0, 0]), count)
    y = attend(library(instructions), torch.randn(2 * count, 4, 16), memory, memory, Heads(2, 0.25), view, 2)
    assert torch.equal(y, torch.zeros_like(y))


@SETS
def test_what_is_no_number_shows(instructions: str) -> None:
    native, heads = library(instructions), Heads(1, 0.25)
    for count in (1, 3):
        for place in range(2):
            k, v = torch.randn(40, 16), torch.randn(40, 16)
            (k, v)[place][11, 3] = float("nan")
            view = View(torch.arange(40)[None], torch.tensor([40]), count)
            y = attend(native, torch.randn(count, 2, 16), Memory(k), Memory(v), heads, view, 1)
            assert y.isnan().any(-1).all()


@SETS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_sequence_does_not_depend_on_what_is_beside_it(instructions: str, dtype: torch.dtype) -> None:
    native = library(instructions)
    torch.manual_seed(0)
    k, v = (Memory(torch.randn(3000, 2 * 32).to(dtype)) for _ in range(2))
    seen, lengths = torch.randint(0, 3000, (5, 1400)), torch.tensor([1400, 3, 513, 512, 1025])
    q, heads = torch.randn(5, 4, 32).to(dtype), Heads(2, 0.2)
    together = attend(native, q, k, v, heads, View(seen, lengths), 2)
    for i in range(5):
        for width in (int(lengths[i]), 1400):
            view = View(seen[i : i + 1, :width].contiguous(), lengths[i : i + 1])
            assert torch.equal(attend(native, q[i : i + 1], k, v, heads, view, 1), together[i : i + 1])


def test_a_chunk_equals_its_tokens_one_by_one() -> None:
    native = library()
    torch.manual_seed(1)
    k, v = (Memory(torch.randn(300, 2 * 64)) for _ in range(2))
    q, heads, seen = torch.randn(50, 4, 64), Heads(2, 0.125, window=60), torch.randperm(300)[None]
    chunk = attend(native, q, k, v, heads, View(seen, torch.tensor([300]), 50), 2)
    lengths = torch.arange(251, 301)
    single = attend(native, q, k, v, heads, View(seen.expand(50, -1).contiguous(), lengths), 2)
    assert torch.allclose(chunk, single, rtol=1e-5, atol=1e-6)
