"""Memories of keys and values, against the core's own forms of them."""

import pytest
import torch

from bestiary.generation.engine.packed_memory import Form, form_of
from bestiary.nn.batch import AttentionSpec
from bestiary_kernels.cpu import cache
from bestiary_kernels.cpu.library import instruction_sets, library

SETS = pytest.mark.parametrize("instructions", instruction_sets())
TYPES = (torch.float32, torch.bfloat16, torch.float16)
SLOTS = 40


def form(kind: str, heads: int, dim: int, dtype: torch.dtype) -> Form:
    return form_of(kind, AttentionSpec(heads, heads, dim, 1.0), dtype)


def memories(form: Form) -> list[torch.Tensor]:
    return [torch.full((SLOTS, width), 77, dtype=kind) for width, kind in form.columns]


@SETS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ("auto", "int8"))
@pytest.mark.parametrize(("heads", "dim"), ((1, 64), (2, 40), (3, 80), (2, 65), (1, 100), (2, 128), (1, 7), (2, 576)))
def test_what_is_written_is_what_the_form_encodes(
    instructions: str, dtype: torch.dtype, kind: str, heads: int, dim: int
) -> None:
    torch.manual_seed(dim)
    kept = form(kind, heads, dim, dtype)
    for tokens in (1, 4, 13):
        k, v = (torch.randn(tokens, heads + 2, dim).to(dtype)[:, 1 : heads + 1] * 3 for _ in range(2))
        k[0, 0] = 0
        slots = torch.randperm(SLOTS)[:tokens]
        made = [memories(kept), memories(kept)]
        cache.write(library(instructions), k, v, slots, cache.Memory(*made[0]), cache.Memory(*made[1]), 2)
        for x, parts in zip((k, v), made, strict=True):
            wanted = memories(kept)
            for memory, part in zip(wanted, kept.encode(x), strict=True):
                memory.index_copy_(0, slots, part)
            assert all(torch.equal(a, b) for a, b in zip(parts, wanted, strict=True))


@SETS
def test_halves_of_codes_round_to_even(instructions: str) -> None:
    x = (torch.arange(64) - 32.0 + 0.5)[None, None]
    x[0, 0, 0] = 127.0
    made = memories(form("int8", 1, 64, torch.float32))
    cache.write(library(instructions), x, None, torch.tensor([5]), cache.Memory(*made), None, 1)
    assert torch.equal(made[0][5], x[0, 0].round().to(torch.int8)) and made[1][5] == 1


@SETS
@pytest.mark.parametrize("none", (float("nan"), float("inf"), -float("inf")))
def test_what_is_no_number_makes_its_own_group_none(instructions: str, none: float) -> None:
    kept = form("int8", 2, 64, torch.float32)
    x = torch.randn(1, 2, 64)
    x[0, 0, 17] = none
    made = memories(kept)
    cache.write(library(instructions), x, None, torch.tensor([3]), cache.Memory(*made), None, 1)
    read = kept.decode([memory[3:4] for memory in made], torch.float32)
    assert read[0, 0].isnan().all() and torch.allclose(read[0, 1], x[0, 1], atol=0.05)
    assert torch.equal(made[1][3].isnan(), kept.encode(x)[1][0].isnan())
