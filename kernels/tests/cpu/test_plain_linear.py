"""Products with plain weights, against float64."""

import pytest
import torch

from bestiary_kernels.cpu.library import instruction_sets, library
from bestiary_kernels.cpu.linear import PlainWeight, multiply_plain, plain_arguments

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)
POISON = 12345.0


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("instructions", instruction_sets())
@pytest.mark.parametrize("m", (0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 17, 64, 101))
def test_products_equal_float64(instructions: str, dtype: torch.dtype, m: int) -> None:
    native = library(instructions)
    torch.manual_seed(m)
    for n, k in ((1, 7), (33, 300), (50, 520), (600, 40), (9, 1_661)):
        # More rows than are summed together, and columns that are cut.
        w = torch.randn(n, k).to(dtype)
        x = torch.randn(m, k)
        y = torch.full((m + 1, n + 3), POISON)
        arguments, scratch = plain_arguments(x, [PlainWeight(w)], [None], [y[:m, :n]])
        scratch.fill_(float("nan"))
        native.call(4, arguments, 2)
        exact = x.double() @ w.double().T
        size = x.double().abs() @ w.double().abs().T
        assert torch.all((y[:m, :n].double() - exact).abs() <= 1e-6 * size)
        assert torch.all(y[:, n:] == POISON) and torch.all(y[m:] == POISON)


@pytest.mark.parametrize("instructions", instruction_sets())
@pytest.mark.parametrize("m", (1, 3, 12, 40))
@pytest.mark.parametrize("block", ((32, 128), (7, 20), (70, 3)), ids=str)
def test_scales_of_blocks(instructions: str, block: tuple[int, int], m: int) -> None:
    native = library(instructions)
    n, k, (tall, wide) = 70, 300, block
    w = torch.randn(n, k).to(torch.float8_e4m3fn)
    scales = torch.rand(-(-n // tall), -(-k // wide))
    every = scales.repeat_interleave(tall, 0)[:n].repeat_interleave(wide, 1)[:, :k]
    x = torch.randn(m, k)
    (y,) = multiply_plain(native, x, [PlainWeight(w, scales, block)], [None], 2)
    exact = x.double() @ (w.double() * every.double()).T
    assert torch.allclose(y.double(), exact, rtol=1e-5, atol=1e-4)


def test_every_float8_number_is_read() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[:, None]
    for instructions in instruction_sets():
        wide = every.repeat(1, 16).contiguous()
        x = torch.zeros(1, 16)
        x[0, 3] = 1
        (y,) = multiply_plain(library(instructions), x, [PlainWeight(wide)], [None], 1)
        assert torch.equal(y[0].nan_to_num(nan=-1.0), every[:, 0].float().nan_to_num(nan=-1.0))


def test_types_of_x_and_biases() -> None:
    native = library()
    for dtype in (torch.bfloat16, torch.float16):
        w, b, x = torch.randn(40, 64).to(dtype), torch.randn(40).to(dtype), torch.randn(5, 64).to(dtype)
        (y,) = multiply_plain(native, x, [PlainWeight(w)], [b], 2)
        assert torch.equal(y, (x.double() @ w.double().T).to(dtype) + b) or torch.allclose(
            y.float(), (x.float() @ w.float().T + b.float()), rtol=1e-2, atol=2e-2
        )
