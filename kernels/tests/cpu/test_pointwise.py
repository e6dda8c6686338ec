"""Norms, sums, gates and rotations, against the core's own layers in plain torch."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from bestiary.nn.activation import activation
from bestiary.nn.norm import LayerNorm, RMSNorm
from bestiary.nn.rope import Rope, Rotation
from bestiary_kernels.cpu import pointwise
from bestiary_kernels.cpu.library import instruction_sets, library

TYPES = (torch.float32, torch.bfloat16, torch.float16)
SETS = pytest.mark.parametrize("instructions", instruction_sets())
DTYPES = pytest.mark.parametrize("dtype", TYPES, ids=str)
SHAPES = ((1, 1), (3, 7), (5, 40), (2, 300), (70, 64), (2, 5000))
POISON = 12345.0

STEP = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Two numbers of a type that lie next to each other differ by this, relative to their size, at most."""


def poisoned(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Room for rows beside each other, and a row more."""
    return torch.full((rows + 1, columns), POISON, dtype=dtype)


def near(y: torch.Tensor, exact: torch.Tensor) -> bool:
    """Equal but for one rounding, which in narrow types is rare."""
    y, wanted = y.double(), exact.double()
    off = (y - wanted).abs() > 2e-6 * wanted.abs() + 1e-7
    far = (y - wanted).abs() > STEP[exact.dtype] * wanted.abs() + 1e-7
    rare = exact.dtype == torch.float32 or off.sum() <= 2 + 0.01 * off.numel()
    return not far.any() and bool(rare)


def norm_of(weight: torch.Tensor, offset: float) -> RMSNorm:
    layer = RMSNorm(len(weight), 1e-5, offset)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return layer


@SETS
@DTYPES
@pytest.mark.parametrize("with_bias", (True, False))
def test_layer_norms(instructions: str, dtype: torch.dtype, with_bias: bool) -> None:
    """Also of rows whose mean is far from zero."""
    native = library(instructions)
    torch.manual_seed(0)
    for rows, columns in SHAPES:
        x = (torch.randn(rows, columns + 3) * 3 + 40).to(dtype)[:, 1 : columns + 1]
        layer = LayerNorm(columns, 1e-5, with_bias)
        layer.weight = torch.nn.Parameter(torch.randn(columns), requires_grad=False)
        if layer.bias is not None:
            layer.bias = torch.nn.Parameter(torch.randn(columns), requires_grad=False)
        layer.to(dtype)
        y = poisoned(rows, columns, dtype)
        arguments, _ = pointwise.layer_norm_arguments(x, layer.weight, layer.bias, 1e-5, y[:rows])
        native.call(pointwise.LAYER_NORM, arguments, 2)
        exact = F.layer_norm(x.double(), (columns,), layer.weight.double(), None, 1e-5)
        wanted = exact if layer.bias is None else exact + layer.bias.double()
        bound = STEP[dtype] * (wanted.abs() + exact.abs()) + 4e-5
        assert bool(((y[:rows].double() - wanted).abs() <= bound).all())
        assert torch.all(y[rows:] == torch.tensor(POISON, dtype=dtype))


@SETS
@DTYPES
@pytest.mark.parametrize("name", sorted(pointwise.ACTIVATIONS))
def test_activations_alone(instructions: str, dtype: torch.dtype, name: str) -> None:
    native = library(instructions)
    torch.manual_seed(0)
    for rows, columns in SHAPES:
        x = (torch.randn(rows, columns + 3) * 3).to(dtype)[:, 1 : columns + 1]
        y = poisoned(rows, columns, dtype)
        arguments, _ = pointwise.activated_arguments(x, name, y[:rows])
        native.call(pointwise.ACTIVATE, arguments, 2)
        wide = activation(name)(x.double())
        # Rounded once; where it is nearly nothing, as near as for gates.
        assert torch.all((y[:rows].double() - wide).abs() <= STEP[dtype] * wide.abs() + 1e-6)
        assert torch.all(y[rows:] == torch.tensor(POISON, dtype=dtype))


@SETS
@DTYPES
@pytest.mark.parametrize("offset", (0.0, 1.0))
def test_norms(instructions: str, dtype: torch.dtype, offset: float) -> None:
    native = library(instructions)
    torch.manual_seed(0)
    for rows, columns in SHAPES:
        x = (torch.randn(rows, columns + 3) * 3).to(dtype)[:, 1 : columns + 1]
        weight = torch.randn(columns).to(dtype)
        y = poisoned(rows, columns, dtype)
        arguments, _ = pointwise.rms_norm_arguments(x, weight, 1e-5, offset, y[:rows])
        native.call(pointwise.RMS_NORM, arguments, 2)
        assert near(y[:rows], norm_of(weight, offset)(x))
        assert torch.all(y[rows:] == torch.tensor(POISON, dtype=dtype))


@SETS
@DTYPES
def test_norms_of_heads(instructions: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.randn(70, 9, 24).to(dtype)[:, 2:7, 4:20]
    weight = torch.randn(16).to(dtype)
    y = pointwise.rms_norm(library(instructions), x, weight, 1e-5, 0.0, 2)
    assert y.is_contiguous() and near(y, norm_of(weight, 0.0)(x))


@SETS
@DTYPES
@pytest.mark.parametrize("offset", (0.0, 1.0))
def test_sums_and_their_norms(instructions: str, dtype: torch.dtype, offset: float) -> None:
    native = library(instructions)
    torch.manual_seed(2)
    for rows, columns in SHAPES:
        x, y = (torch.randn(rows, columns + extra).to(dtype)[:, :columns] for extra in (1, 5))
        weight = torch.randn(columns).to(dtype)
        assert torch.equal(pointwise.add(native, x, y, 2), x + y)
        total, norm = poisoned(rows, columns, dtype), poisoned(rows, columns, dtype)
        arguments, _ = pointwise.add_rms_norm_arguments(x, y, weight, 1e-5, offset, total[:rows], norm[:rows])
        native.call(pointwise.ADD_RMS_NORM, arguments, 2)
        assert torch.equal(total[:rows], x + y)
        assert near(norm[:rows], norm_of(weight, offset)(x + y))
        for made in (total, norm):
            assert torch.all(made[rows:] == torch.tensor(POISON, dtype=dtype))


@SETS
@DTYPES
def test_a_sum_may_take_the_place_of_what_is_added(instructions: str, dtype: torch.dtype) -> None:
    x, y = torch.randn(3, 5000).to(dtype), torch.randn(3, 5000).to(dtype)
    exact = x + y
    arguments, _ = pointwise.add_arguments(x, y, x)
    library(instructions).call(pointwise.ADD, arguments, 2)
    assert torch.equal(x, exact)


@SETS
@DTYPES
@pytest.mark.parametrize("name", pointwise.ACTIVATIONS)
def test_gates(instructions: str, dtype: torch.dtype, name: str) -> None:
    native = library(instructions)
    torch.manual_seed(3)
    for rows, columns in SHAPES:
        both = (torch.randn(rows, 2 * columns + 1) * 4).to(dtype)
        gate, up = both[:, :columns], both[:, columns : 2 * columns]
        y = poisoned(rows, columns, dtype)
        arguments, _ = pointwise.gated_arguments(gate, up, name, y[:rows])
        native.call(pointwise.GATED, arguments, 2)
        exact = activation(name)(gate) * up
        # Where a gate is nearly shut, torch subtracts numbers that are nearly equal.
        error, size, shut = (y[:rows].double() - exact.double()).abs(), exact.double().abs(), 1e-6 * up.double().abs()
        assert torch.all(error <= 2 * STEP[dtype] * size + shut)  # two roundings
        assert (error > 2e-6 * size + shut).sum() <= 2 + 0.01 * error.numel()
        if dtype == torch.float32:
            wide = activation(name)(gate.double()) * up.double()
            assert torch.all((y[:rows] - wide).abs() <= 1e-6 * up.double().abs() + 1e-6 * wide.abs())
        assert torch.all(y[rows:] == torch.tensor(POISON, dtype=dtype))


@SETS
@pytest.mark.parametrize("name", ("silu", "gelu", "gelu_pytorch_tanh", "relu"))
def test_gates_far_out_and_what_is_no_number(instructions: str, name: str) -> None:
    gate = torch.tensor([[0.0, -20.0, 20.0, -90.0, 90.0, -1e4, 1e4, float("inf"), -float("inf"), float("nan")]])
    y = pointwise.gated(library(instructions), gate, torch.ones_like(gate), name, 1)
    exact = activation(name)(gate)
    assert torch.allclose(y[:, :-2], exact[:, :-2], rtol=1e-6, atol=1e-6)
    assert torch.equal(y[:, -2:].isnan(), exact[:, -2:].isnan())


@SETS
def test_exponentials_are_within_two_units_of_the_last_place(instructions: str) -> None:
    """A gate of silu at -x, times 1 + e^x, over x: what is left is the error of e^x where that is not small."""
    x = torch.linspace(-30, 87, 400_001)[None]
    x = x[:, x[0].abs() > 0.5]
    y = pointwise.gated(library(instructions), x, torch.ones_like(x), "silu", 2).double()
    exact = F.silu(x.double())
    # A sum and a quotient are rounded too, half a unit each.
    assert ((y - exact).abs() / exact.abs()).max() <= 3 * 2**-23


@SETS
@DTYPES
@pytest.mark.parametrize("interleaved", (False, True))
@pytest.mark.parametrize(("dim", "part"), ((64, 1.0), (40, 1.0), (96, 0.5), (80, 0.25), (12, 0.5), (128, 1.0)))
def test_rotations_are_bit_for_bit(
    instructions: str, dtype: torch.dtype, interleaved: bool, dim: int, part: float
) -> None:
    torch.manual_seed(4)
    rope = Rope(dim, {"rope_theta": 10000.0, "partial_rotary_factor": part}, interleaved=interleaved)
    for tokens in (1, 19):
        positions = torch.arange(100, 100 + tokens)
        rotation: Rotation = rope(positions, positions + 1).to(dtype)
        both = torch.randn(tokens, 8, dim).to(dtype)
        q, k = both[:, :5], both[:, 5:7]
        native = library(instructions)
        ys = pointwise.rotate(native, (q, k), rotation.cos, rotation.sin, interleaved, 2)
        assert torch.equal(ys[0], rotation.apply(q)) and torch.equal(ys[1], rotation.apply(k))
        (alone,) = pointwise.rotate(native, (k,), rotation.cos, rotation.sin, interleaved, 1)
        assert torch.equal(alone, ys[1])
        place = q.contiguous()
        arguments, _ = pointwise.rotate_arguments((place,), rotation.cos, rotation.sin, interleaved, (place,))
        native.call(pointwise.ROTATE, arguments, 1)
        assert torch.equal(place, ys[0])


@SETS
def test_every_number_of_narrow_types_is_read_and_rounded(instructions: str) -> None:
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    native = library(instructions)
    for dtype, factor in product((torch.bfloat16, torch.float16), (1.0, 1.2421875)):
        x = every.view(dtype)[None]
        factors = torch.full_like(x, factor)
        y = pointwise.gated(native, factors, x, "relu", 2)
        wanted = factors * x
        assert torch.equal(y.isnan(), wanted.isnan())
        assert torch.equal(y.nan_to_num(0, 1e9, -1e9), wanted.nan_to_num(0, 1e9, -1e9))
