"""Float8 weights and their scales, in every shape and spelling, against transformers and against the plain formula."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack

Loaded = Callable[..., QuantizedCheckpoint]
FP8 = {"quant_method": "fp8"}


def float8(*shape: int, kind: torch.dtype = torch.float8_e4m3fn) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 50).to(kind)


def scales(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.mark.parametrize("name", ["weight_scale_inv", "weight_scale", "scale", "qscale_weight"])
@pytest.mark.parametrize("grid", [(), (1,), (1, 1), (24,), (24, 1), (3, 2), (1, 40), (24, 40)])
def test_every_grid_and_name(loaded: Loaded, name: str, grid: tuple[int, ...]) -> None:
    weight, scale = float8(24, 40), scales(*grid)
    found = loaded({"a.weight": weight, f"a.{name}": scale, "b.scale": torch.ones(4)}, FP8)
    assert set(found.names()) == {"a.weight", "b.scale"} and found.dtype("a.weight") == "FP8"
    expected = Fp8Dequantize(None)._dequantize_one(weight, scale.view(-1, 1) if len(grid) == 1 else scale)
    assert torch.equal(found.read("a.weight"), expected)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz])
def test_blocks_that_do_not_fill_the_weight(loaded: Loaded, kind: torch.dtype) -> None:
    weight, scale = float8(300, 200, kind=kind), scales(3, 2)
    found = loaded(
        {"a.weight": weight, "a.weight_scale_inv": scale},
        {**FP8, "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    )
    full = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:300, :200]
    assert torch.equal(found.read("a.weight"), weight.float() * full)
    rows = torch.tensor([299, 0, 128, 127])
    packed = found.packed("a.weight")
    assert isinstance(packed, CodedMatrix) and torch.equal(
        packed.rows(rows).dequantize(), (weight.float() * full)[rows]
    )
    assert packed.nbytes == 300 * 200 + 4 * 6 + 8 * 300


@pytest.mark.parametrize("byte", [torch.uint8, torch.float8_e8m0fnu])
def test_scales_that_are_powers_of_two(loaded: Loaded, byte: torch.dtype) -> None:
    weight = float8(8, 64)
    powers = torch.randint(120, 135, (8, 2), dtype=torch.uint8)
    found = loaded({"a.weight": weight, "a.weight_scale_inv": powers.view(byte)}, {**FP8, "weight_block_size": [1, 32]})
    expected = Fp8Dequantize(None)._dequantize_one(weight, powers, output_dtype=torch.float32)
    assert torch.equal(found.read("a.weight"), expected)


@pytest.mark.parametrize("grid", [(3, 2, 2), (3, 1, 40), (3, 24, 1), (1, 1, 1), (3,), ()])
@pytest.mark.parametrize("names", [("x.gate_up_proj", "x.gate_up_proj_scale"), ("x.weight", "x.weight_scale_inv")])
def test_stacks_of_experts(loaded: Loaded, grid: tuple[int, ...], names: tuple[str, str]) -> None:
    weight, scale = float8(3, 24, 40), scales(*grid)
    found = loaded({names[0]: weight, names[1]: scale}, {"quant_method": "fbgemm_fp8"})
    each = scale.view(3, 1, 1) if grid == (3,) else scale.expand(1, 1, 1) if grid == () else scale
    tall, wide = 24 // each.shape[1], 40 // each.shape[2]
    expected = weight.float() * each.repeat_interleave(tall, 1).repeat_interleave(wide, 2)
    packed = found.packed(names[0])
    assert isinstance(packed, CodedStack) and packed.shape == (3, 24, 40)
    assert torch.equal(packed.dequantize(), expected)
    for expert in (0, 1, 2, -1, -3):
        assert torch.equal(packed[expert].dequantize(), expected[expert])
    for expert in (3, -4):
        with pytest.raises(IndexError):
            packed[expert]


@pytest.mark.parametrize("method", ["fp8", "modelopt", "compressed-tensors"])
def test_what_is_said_of_activations_is_kept_and_that_of_a_cache_is_not(loaded: Loaded, method: str) -> None:
    weight, scale = float8(4, 8), scales(1)
    tensors = {"a.k_proj.weight": weight, "a.k_proj.weight_scale": scale, "a.k_proj.input_scale": torch.tensor(0.25)}
    config: dict[str, Any] = {"quant_method": method}
    if method == "compressed-tensors":
        config |= {
            "format": "float-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
        }
    found = loaded({**tensors, "a.k_proj.k_scale": torch.ones(1), "a.v_scale": torch.ones(())}, config)
    assert found.names() == ("a.k_proj.weight",) and set(found.unused) == {"a.k_proj.k_scale", "a.v_scale"}
    packed = found.packed("a.k_proj.weight")
    assert isinstance(packed, CodedMatrix) and packed.input_scale is not None
    assert float(packed.input_scale) == 0.25 == float(packed.rows(slice(1)).to("cpu").input_scale or 0)
    assert torch.equal(packed.dequantize(), weight.float() * scale)
    assert found.nbytes("a.k_proj.weight") == 32 + 4 + 4
