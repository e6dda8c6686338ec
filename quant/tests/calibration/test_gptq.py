"""GPTQ: as the paper's algorithm in plain NumPy has it, and better than rounding where inputs depend on each other."""

import numpy
import pytest
import torch

from bestiary_quant.calibration.gptq import Hessian, gptq
from bestiary_quant.calibration.grid import rounded
from bestiary_quant.checkpoints.coded import stacked
from bestiary_quant.checkpoints.codes import centred


def numbers(rows: int, columns: int, count: int = 512, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs whose columns depend on each other and differ in size."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns // 4, columns, generator=random)
    inputs = torch.randn(count, columns // 4, generator=random) @ mixing
    inputs += 0.3 * torch.randn(count, columns, generator=random)
    inputs *= torch.rand(columns, generator=random) * 3 + 0.1
    return torch.randn(rows, columns, generator=random) * 0.05, inputs


def hessian(inputs: torch.Tensor) -> torch.Tensor:
    made = Hessian(inputs.shape[1])
    for part in torch.split(inputs, 100):
        made.add(part)
    return made.matrix()


def transcribed(
    w: numpy.ndarray, h: numpy.ndarray, bits: int, group: int, symmetric: bool, act_order: bool
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Algorithm 1 of arXiv 2210.17323 column by column, without its blocks, in float64: codes, numbers, group of each.

    The grid of a group covers its weights, as they are when its first column is reached, and zero; scales are 16 bits.
    """
    w, h, top = w.astype(numpy.float64).copy(), h.astype(numpy.float64).copy(), 2**bits - 1
    rows, columns = w.shape
    order = numpy.argsort(-numpy.diag(h), kind="stable") if act_order else numpy.arange(columns)
    w, h = w[:, order], h[numpy.ix_(order, order)]
    h += numpy.eye(columns) * 0.01 * numpy.diag(h).mean()
    inverse = numpy.linalg.cholesky(numpy.linalg.inv(h)).T
    codes, made = numpy.zeros((rows, columns), int), numpy.zeros((rows, columns))
    for j in range(columns):
        if j % group == 0:
            part = w[:, j : j + group]
            low, high = numpy.minimum(part.min(1), 0), numpy.maximum(part.max(1), 0)
            if symmetric:
                high = numpy.maximum(high, -low)
                low = -high
            scale = ((high - low) / top).astype(numpy.float16).astype(numpy.float64)
            zero = numpy.full(rows, (top + 1) / 2) if symmetric else numpy.round(-low / scale)
        code = numpy.clip(numpy.round(w[:, j] / scale) + zero, 0, top)
        codes[:, j], made[:, j] = code, scale * (code - zero)
        error = (w[:, j] - made[:, j]) / inverse[j, j]
        w[:, j:] -= numpy.outer(error, inverse[j, j:])
    back = numpy.argsort(order)
    return codes[:, back], made[:, back], back // group


@pytest.mark.parametrize("act_order", [False, True], ids=["in order", "act_order"])
@pytest.mark.parametrize("symmetric", [False, True], ids=["zeros", "symmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_as_the_paper(bits: int, symmetric: bool, act_order: bool) -> None:
    group, columns = 32, 160  # more than one block of 128
    weight, inputs = numbers(24, columns)
    h = hessian(inputs).double()
    made = gptq(weight, h, bits, group, symmetric=symmetric, act_order=act_order)
    codes, expected, groups = transcribed(weight.numpy(), h.numpy(), bits, group, symmetric, act_order)
    ours = made.codes.numbers(slice(None)).numpy() + (2 ** (bits - 1) if symmetric else 0)
    assert (ours == codes).all()
    assert abs(made.dequantize().numpy() - expected).max() < 1e-6
    order = made.scaling.order
    assert (order is None) if not act_order else order is not None and (order.numpy() == groups).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_outputs_are_nearer_than_rounded_ones(bits: int, symmetric: bool) -> None:
    weight, inputs = numbers(64, 256)
    h = hessian(inputs)

    def error(made: torch.Tensor) -> float:
        return float((inputs @ (made - weight).T).square().mean())

    nearest = error(rounded(weight, bits, 64, symmetric).dequantize())
    for act_order in (False, True):
        made = gptq(weight, h, bits, 64, symmetric=symmetric, act_order=act_order)
        assert error(made.dequantize()) < 0.6 * nearest


def test_layouts_are_those_of_the_reader() -> None:
    """What checkpoints.gptq makes of a file: zeros as bytes, or none and codes around their middle; g_idx as order."""
    weight, inputs = numbers(16, 128)
    with_zeros, without = gptq(weight, hessian(inputs), 4, 64), gptq(weight, hessian(inputs), 4, 64, symmetric=True)
    assert with_zeros.codes.table is None and with_zeros.scaling.zeros is not None
    assert with_zeros.scaling.zeros.dtype == torch.uint8 and with_zeros.scaling.zeros.shape == (16, 2)
    assert without.codes.table == centred(4) and without.scaling.zeros is None
    for made in (with_zeros, without):
        assert made.codes.data.shape == (16, 64) and made.codes.bits == 4 and made.scaling.run == 64
        assert made.scaling.scales.dtype == torch.float16 and made.scaling.scales.shape == (16, 2)
    ordered = gptq(weight, hessian(inputs), 4, 64, act_order=True).scaling.order
    assert ordered is not None and ordered.dtype == torch.int64 and ordered.bincount().tolist() == [64, 64]


@pytest.mark.parametrize(
    "inputs",
    [torch.zeros(0, 64), torch.zeros(9, 64), torch.ones(500, 64) * 1e4, torch.eye(64)[:1] * 1e-6],
    ids=["none", "zeros", "all alike", "one tiny"],
)
def test_inputs_that_say_little(inputs: torch.Tensor) -> None:
    """Weights whose inputs are always zero are rounded and kept."""
    weight, _ = numbers(8, 64)
    made = gptq(weight, hessian(inputs), 4, 32).dequantize()
    step = (weight.view(8, 2, 32).amax(-1).clamp(min=0) - weight.view(8, 2, 32).amin(-1).clamp(max=0)) / 15
    if not bool(inputs.any()):
        assert bool(((made - weight).view(8, 2, 32).abs() <= 0.51 * step[..., None]).all())
    outputs, expected = inputs @ made.T, inputs @ weight.T
    assert (
        made.isfinite().all() and (outputs - expected).abs().max() <= 0.2 * expected.abs().max() if len(inputs) else 1
    )


@pytest.mark.parametrize("size", [1e-8, 1e8])
def test_numbers_that_16_bits_cannot_scale(size: float) -> None:
    weight, inputs = numbers(8, 64)
    made = gptq(weight * size, hessian(inputs), 4, 32)
    assert made.scaling.scales.dtype == torch.float32
    torch.testing.assert_close(
        made.dequantize() / size, gptq(weight, hessian(inputs), 4, 32).dequantize(), rtol=0.1, atol=0.02
    )


def test_a_row_of_zeros_stays_one() -> None:
    weight, inputs = numbers(8, 64)
    weight[3] = 0
    assert not gptq(weight, hessian(inputs), 4, 32).dequantize()[3].any()


@pytest.mark.parametrize("symmetric", [False, True])
def test_stacks_are_their_experts(symmetric: bool) -> None:
    parts = []
    for seed in range(3):
        weight, inputs = numbers(8, 64, seed=seed)
        parts.append(gptq(weight, hessian(inputs), 3, 32, symmetric=symmetric))
    stack = stacked(parts)
    assert stack.shape == (3, 8, 64)
    for number, part in enumerate(parts):
        assert torch.equal(stack[number].dequantize(), part.dequantize())
