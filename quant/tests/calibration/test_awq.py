"""AWQ: scales fold away without a trace, and outputs are nearer than those of rounded weights."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from bestiary.nn import LayerNorm
from bestiary.records import Architecture, resolve
from bestiary.registry import default_registry
from bestiary_quant.calibration.awq import Part, Sample, awq, best_scale
from bestiary_quant.calibration.folds import Fold, folds
from bestiary_quant.calibration.grid import rounded

NAMES = (
    "LlamaForCausalLM", "MistralForCausalLM", "Ministral3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
)  # fmt: skip
PROMPT = [1, 5, 87, 3, 44, 130, 9, 9, 70]


def tiny(name: str, index: int) -> Mapping[str, Any]:
    record = next(r for r, _ in default_registry().records(Architecture) if r.name == name)
    config: Mapping[str, Any] = resolve(record.tiny)[index]  # type: ignore[arg-type]
    return config


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_folding_changes_nothing(name: str, index: int, saved: Any, logits: Callable[..., torch.Tensor]) -> None:
    """Every fold of every layer with scales from 1/8 to 8, in the networks of all families, with their biases."""
    model = saved(tiny(name, index))
    expected = logits(model.network(), PROMPT)
    with model.puller() as (_, puller):
        weights = {name: puller.plain(name) for name in puller.names}
    random = torch.Generator().manual_seed(0)
    found: list[Fold] = []
    for number, layer in enumerate(puller.model.model.layers):
        for fold in folds(layer, f"model.layers.{number}."):
            assert fold.possible(weights)
            width = weights[fold.readers[0]].shape[-1]
            fold.apply(weights, torch.exp2(torch.rand(width, generator=random) * 6 - 3))
            found.append(fold)
    network = model.network(weights)
    heads = network.specs[0].heads == network.specs[0].kv_heads
    sparse = sum(fold.expert is not None for fold in found)
    assert len(found) - sparse >= (3 + heads) * len(network.specs) - (sparse > 0) * len(network.specs)
    made = logits(network, PROMPT)
    assert not torch.equal(made, expected)
    assert (made - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_a_norm_that_adds_one_is_divided_as_it_multiplies() -> None:
    weights: dict[str, Any] = {"n": torch.tensor([0.5, -0.5]), "w": torch.ones(1, 2)}
    Fold(("n",), ("w",), offset=1.0).apply(weights, torch.tensor([3.0, 0.5]))
    assert weights["n"].tolist() == [-0.5, 0.0] and weights["w"].tolist() == [[3.0, 0.5]]


def test_a_layer_norm_is_divided_with_its_bias() -> None:
    random = torch.Generator().manual_seed(4)
    norm, x, scale = LayerNorm(8), torch.randn(5, 8, generator=random), torch.rand(8, generator=random) + 0.5
    weights: dict[str, Any] = {"n.weight": torch.rand(8), "n.bias": torch.rand(8), "w": torch.randn(3, 8)}

    def outputs() -> torch.Tensor:
        norm.weight, norm.bias = nn.Parameter(weights["n.weight"]), nn.Parameter(weights["n.bias"])
        return (norm(x) @ weights["w"].T).detach()

    before = outputs()
    Fold(("n.weight", "n.bias"), ("w",)).apply(weights, scale)
    torch.testing.assert_close(outputs(), before, rtol=1e-5, atol=1e-6)


def inputs(columns: int = 256, count: int = 600) -> torch.Tensor:
    """As of real layers: a few columns are much larger than the others."""
    random = torch.Generator().manual_seed(1)
    size = torch.exp(torch.randn(columns, generator=random))
    size[::37] *= 20
    return torch.randn(count, columns, generator=random) * size


def test_outputs_are_nearer_than_rounded_ones() -> None:
    x = inputs()
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(2)) * 0.05
    sample = Sample(256)
    for part in torch.split(x, 37):
        sample.add(part)
    scale = best_scale([Part(weight, sample.rows(), 64)], sample.mean())

    def error(made: torch.Tensor) -> float:
        return float((x @ (made - weight).T).square().mean())

    nearest = error(rounded(weight, 4, 64).dequantize())
    folded = awq(weight * scale, sample.rows() / scale, 64, clip=False).dequantize() / scale
    clipped = awq(weight * scale, sample.rows() / scale, 64).dequantize() / scale
    assert error(folded) < 0.5 * nearest and error(clipped) < error(folded)


def test_the_scale_is_the_best_of_its_grid() -> None:
    """By the paper's formula in plain steps: s = mean|x|^(i/20), over the root of its largest times its least."""
    x, weight = inputs(64, 200), torch.randn(16, 64, generator=torch.Generator().manual_seed(3))
    size = x.abs().mean(0)
    errors, scales = [], []
    for step in range(20):
        scale = (size ** (step / 20)).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()) ** 0.5
        made = rounded(weight * scale, 4, 32).dequantize() / scale
        errors.append(float((x @ (made - weight).T).square().sum()))
        scales.append(scale)
    best = min(range(20), key=errors.__getitem__)
    assert best > 0
    torch.testing.assert_close(best_scale([Part(weight, x, 32)], size), scales[best])


def test_layout_is_that_of_the_reader() -> None:
    """What checkpoints.awq makes of a file."""
    made = awq(torch.randn(16, 128), torch.randn(9, 128), 64)
    assert made.codes.bits == 4 and made.codes.table is None and made.codes.data.shape == (16, 64)
    assert made.scaling.zeros is not None and made.scaling.zeros.dtype == torch.uint8
    assert made.scaling.zeros.shape == made.scaling.scales.shape == (16, 2) and made.scaling.run == 64
    assert made.scaling.scales.dtype == torch.float16 and made.scaling.order is None


def test_samples_are_spread_over_all_that_came() -> None:
    sample = Sample(1, limit=100)
    for start in range(0, 10_000, 7):
        sample.add(torch.arange(start, min(start + 7, 10_000)).float()[:, None])
    rows = sample.rows()[:, 0]
    assert sample.count == 10_000 and 50 <= len(rows) <= 100 and sample.mean().item() == 4999.5
    assert len(rows.diff().unique()) == 1 and rows[0] == 0 and rows[-1] > 9_800


def test_a_network_that_saw_nothing_is_rounded() -> None:
    sample, weight = Sample(64), torch.randn(8, 64)
    assert torch.equal(best_scale([Part(weight, sample.rows(), 32)], sample.mean()), torch.ones(64))
    assert torch.equal(awq(weight, sample.rows(), 32).dequantize(), rounded(weight, 4, 32).dequantize())


def test_packed_weights_are_not_folded(saved: Any) -> None:
    with saved(tiny("LlamaForCausalLM", 0)).puller() as (_, puller):
        fold = next(iter(folds(puller.model.model.layers[0], "model.layers.0.")))
        weights: dict[str, Any] = {name: puller.plain(name) for name in (*fold.divided, *fold.readers)}
    assert fold.possible(weights)
    weights[fold.readers[0]] = rounded(weights[fold.readers[0]], 4, 32)
    assert not fold.possible(weights)
