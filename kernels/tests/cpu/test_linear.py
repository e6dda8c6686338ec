"""Products with packed weights, against exact arithmetic on the same int8 activations."""

import numpy as np
import pytest
import torch
from packed_weights import TYPES, blocks, make, quantized

from bestiary_kernels.cpu.library import instruction_sets, library
from bestiary_kernels.cpu.linear import linear_arguments, multiply
from bestiary_kernels.cpu.panels import pack_blocks, take_rows, unpack_blocks
from bestiary_kernels.cpu.types import BLOCKS

SETS = instruction_sets()
ROWS = (1, 2, 5, 17, 64)
POISON = 12345.0


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("m", ROWS)
def test_products_equal_exact_arithmetic(instructions: str, name: str, m: int) -> None:
    native = library(instructions)
    rng = np.random.default_rng(m)
    for n, k in ((1, 256), (33, 768), (48, 512)):
        made = make(native, name, n, k, seed=n)
        x = rng.normal(size=(m, k)).astype(np.float32)
        x[0, :32] = 0
        y = torch.full((m + 1, n + 3), POISON)
        arguments, scratch = linear_arguments(torch.from_numpy(x), [made.panels], [None], [y[:m, :n]])
        scratch.fill_(0x7F)
        native.call(3, arguments, 2)
        exact = quantized(x) @ made.numbers.T
        size = np.abs(quantized(x)) @ np.abs(made.numbers.T)
        assert np.all(np.abs(y[:m, :n].numpy() - exact) <= 1e-6 * np.abs(exact).max(1, keepdims=True) + 1e-7 * size)
        assert torch.all(y[:, n:] == POISON) and torch.all(y[m:] == POISON)


@pytest.mark.parametrize("name", ("INT8",))
def test_columns_need_not_fill_a_group(name: str) -> None:
    native = library()
    made = make(native, name, 20, 96, seed=3)
    x = np.random.default_rng(1).normal(size=(3, 90)).astype(np.float32)
    wide = np.pad(x, ((0, 0), (0, 6)))
    (y,) = multiply(native, torch.from_numpy(wide), [made.panels], [None], 2)
    exact = quantized(x) @ made.numbers[:, :90].T
    assert np.abs(y.numpy() - exact).max() <= 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("instructions", SETS)
def test_a_row_does_not_depend_on_what_is_beside_it(instructions: str, name: str) -> None:
    native = library(instructions)
    made = make(native, name, 40, 512)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(71, 512)).astype(np.float32))
    (whole,) = multiply(native, x, [made.panels], [None], 2)
    for rows in (slice(0, 1), slice(1, 3), slice(3, 8), slice(8, 30), slice(30, 71)):
        (part,) = multiply(native, x[rows], [made.panels], [None], 1)
        assert torch.equal(part, whole[rows])


@pytest.mark.parametrize("name", BLOCKS)
def test_packing_loses_nothing(name: str) -> None:
    native = library()
    data = torch.from_numpy(blocks(name, 37, 768, np.random.default_rng(5)))
    panels = pack_blocks(native, data, BLOCKS[name], 2)
    assert torch.equal(unpack_blocks(native, panels, 2), data)
    assert panels.data.numel() == 48 * data.shape[1]  # the same bytes, but for the rows that fill the last panel


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("instructions", SETS)
def test_rows_are_their_numbers(instructions: str, name: str) -> None:
    native = library(instructions)
    made = make(native, name, 37, 512, seed=9)
    index = torch.tensor([36, 0, 17, 17, 5])
    rows = take_rows(native, made.panels, index, torch.float32, 2)
    assert np.allclose(rows.numpy(), made.numbers[index.numpy()], rtol=3e-7, atol=1e-9)
    every = take_rows(native, made.panels, None, torch.bfloat16, 2)
    assert torch.equal(every, take_rows(native, made.panels, None, torch.float32, 1).bfloat16())


def test_biases_and_several_weights_share_one_x() -> None:
    native = library()
    made = [make(native, name, n, 512) for name, n in (("Q4_K", 33), ("Q6_K", 16), ("Q8_0", 5))]
    x = torch.randn(3, 512).bfloat16()
    biases = [torch.randn(33).bfloat16(), None, torch.randn(5).bfloat16()]
    together = multiply(native, x, [m.panels for m in made], biases, 2)
    for y, m, bias in zip(together, made, biases, strict=True):
        (alone,) = multiply(native, x, [m.panels], [None], 1)
        assert torch.equal(y, alone if bias is None else alone + bias)


def test_numbers_that_are_none_show() -> None:
    native = library()
    made = make(native, "Q4_0", 16, 64)
    x = torch.ones(3, 64)
    x[0, 5], x[1, 40] = float("nan"), float("inf")
    (y,) = multiply(native, x, [made.panels], [None], 1)
    assert y[:2].isnan().all() and y[2].isfinite().all()
