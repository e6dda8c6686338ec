"""Importance lowers the error that it weighs, for every scheme that makes use of it; and so the error of outputs."""

import pytest
import torch

from bestiary_quant.calibration.collector import Squares
from bestiary_quant.calibration.importance import Importance, same_input
from bestiary_quant.making.pack import pack
from bestiary_quant.making.schemes import SCHEMES

WEIGHED = [name for name, scheme in SCHEMES.items() if scheme.weighs]


def measured(experts: int | None = None) -> tuple[Importance, torch.Tensor, torch.Tensor]:
    """The importance of a weight from its inputs, the weight, and the inputs."""
    random = torch.Generator().manual_seed(0)
    size = torch.exp(torch.randn(512, generator=random) * 1.5)
    inputs = torch.randn(experts or 1, 700, 512, generator=random) * size
    squares = Squares(512, experts)
    for number, rows in enumerate(inputs):
        squares.add(rows, None if experts is None else number)
    weight = torch.randn(*((experts,) if experts else ()), 64, 512, generator=random) * 0.02
    return Importance({"w": squares.sums()}, {"w": torch.tensor(squares.counts)}), weight, inputs


def test_the_k_quants_are_among_them() -> None:
    assert {"q2k", "q3k", "q4k", "q5k", "q6k"} <= set(WEIGHED)


@pytest.mark.parametrize("scheme", WEIGHED)
def test_the_weighted_error_is_lower(scheme: str) -> None:
    importance, weight, inputs = measured()
    means = importance.of("w", (64, 512))
    with_it, without = pack(weight, scheme, means), pack(weight, scheme)
    assert means is not None and with_it is not None and without is not None
    errors = [made.dequantize() - weight for made in (with_it, without)]
    weighted = [float((error.square() * means).sum()) for error in errors]
    outputs = [float((inputs[0] @ error.T).square().sum()) for error in errors]
    assert weighted[0] < 0.97 * weighted[1] and outputs[0] < outputs[1]


def test_each_expert_has_its_own() -> None:
    importance, weight, _ = measured(3)
    means = importance.of("w", (3, 64, 512))
    assert means is not None and means.shape == (3, 512)
    stack = pack(weight, "q4k", means)
    assert stack is not None
    for number in range(3):
        alone = pack(weight[number], "q4k", means[number])
        assert alone is not None and torch.equal(stack[number].dequantize(), alone.dequantize())  # type: ignore[index]


def test_sums_are_exact_beyond_float32() -> None:
    """A column that is large once and small a million times: float32 would lose all but the first."""
    squares = Squares(1)
    squares.add(torch.tensor([[4096.0]]))
    for _ in range(1000):
        squares.add(torch.ones(1000, 1, dtype=torch.bfloat16))
    assert squares.sums().tolist() == [4096.0**2 + 1e6] and squares.counts == [1_000_001]


def test_weights_with_the_same_input() -> None:
    front = "model.layers.3."
    assert same_input(f"{front}self_attn.v_proj.weight") == same_input(f"{front}self_attn.q_proj.weight")
    assert same_input(f"{front}mlp.experts.up_proj") == same_input(f"{front}mlp.experts.gate_proj")
    names = (
        "self_attn.o_proj.weight",
        "mlp.down_proj.weight",
        "mlp.up_proj.weight",
        "mlp.shared_expert.up_proj.weight",
    )
    assert len({same_input(front + name) for name in names}) == 4
    assert same_input("lm_head.weight") == "lm_head.weight"
