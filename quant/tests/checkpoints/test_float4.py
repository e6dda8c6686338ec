"""Four-bit floats: the experts of gpt-oss against transformers, single matrices and NVFP4 against their tables."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from bestiary.nn import PackedStack
from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack

Loaded = Callable[..., QuantizedCheckpoint]
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens", "lm_head"]}


@pytest.mark.parametrize("endings", [("_blocks", "_scales"), (".blocks", ".scales")])
def test_experts_of_gpt_oss(loaded: Loaded, endings: tuple[str, str]) -> None:
    source = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (4, 6, 3, 16), dtype=torch.uint8, generator=source)
    scales = torch.randint(1, 250, (4, 6, 3), dtype=torch.uint8, generator=source)
    scales[0, 0] = torch.tensor([0, 1, 254])
    name = "model.layers.0.mlp.experts.gate_up_proj"
    found = loaded({name + endings[0]: blocks, name + endings[1]: scales, f"{name}_bias": torch.ones(4, 6)}, MXFP4)
    assert set(found.names()) == {name, f"{name}_bias"} and found.dtype(name) == "MXFP4"
    packed = found.packed(name)
    assert isinstance(packed, CodedStack)
    stack: PackedStack = packed
    assert stack.shape == found.shape(name) == (4, 6, 96)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    assert torch.equal(packed.dequantize(), expected) and torch.equal(found.read(name), expected)
    assert torch.equal(stack[2].dequantize(), expected[2])
    assert torch.equal(packed.to("cpu")[1].rows(torch.tensor([5, 0])).dequantize(), expected[1][[5, 0]])
    assert packed.nbytes == blocks.nbytes + scales.nbytes == found.nbytes(name)


def test_a_scale_that_is_no_number_makes_none(loaded: Loaded) -> None:
    tensors = {"x_blocks": torch.zeros(1, 1, 2, 16, dtype=torch.uint8), "x_scales": torch.tensor([[[255, 127]]]).byte()}
    numbers = loaded(tensors, MXFP4).read("x")
    assert numbers[..., :32].isnan().all() and torch.equal(numbers[..., 32:], torch.zeros(1, 1, 32))


@pytest.mark.parametrize("name", ["weight_packed", "weight"])
def test_single_matrices(loaded: Loaded, packing: ModuleType, name: str) -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    made, numbers = packing.mxfp4(weight)
    tensors = {f"a.{name}": made["weight_packed"], "a.weight_scale": made["weight_scale"]}
    found = loaded({**tensors, "a.bias": torch.ones(8)}, MXFP4)
    assert set(found.names()) == {"a.weight", "a.bias"} and torch.equal(found.read("a.weight"), numbers)
    assert (numbers - weight).abs().max() < weight.abs().max() / 4


def test_nvfp4_of_both_makers(loaded: Loaded, packing: ModuleType) -> None:
    """ModelOpt multiplies by the scale of the scales, compressed-tensors divides; each expert may have its own."""
    source = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (2, 4, 24), dtype=torch.uint8, generator=source)
    scales = (torch.rand(2, 4, 3, generator=source) * 100).to(torch.float8_e4m3fn)
    table = torch.tensor(packing.E2M1)
    numbers = torch.stack((table[(codes & 15).long()], table[(codes >> 4).long()]), -1).flatten(2)
    expected = numbers * scales.float().repeat_interleave(16, 2)
    divided = loaded(
        {"a.weight_packed": codes[0], "a.weight_scale": scales[0], "a.weight_global_scale": torch.tensor([4.0])},
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
    )
    assert torch.equal(divided.read("a.weight"), expected[0] / 4)
    multiplied = loaded(
        {
            "a.weight": codes,
            "a.weight_scale": scales,
            "a.weight_scale_2": torch.tensor([0.5, 2.0]),
            "a.input_scale": torch.tensor(3.0),
        },
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    )
    stack = multiplied.packed("a.weight")
    assert isinstance(stack, CodedStack) and multiplied.names() == ("a.weight",)
    assert torch.equal(stack.dequantize(), expected * torch.tensor([0.5, 2.0])[:, None, None])
    assert torch.equal(stack[1].rows(torch.tensor([3, 1])).dequantize(), expected[1, [3, 1]] * 2)
    one = loaded(
        {"a.weight": codes, "a.weight_scale": scales, "a.weight_scale_2": torch.tensor(8.0)},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    )
    assert torch.equal(one.read("a.weight"), expected * 8)
    assert isinstance(stack[1], CodedMatrix) and float(stack[1].input_scale or 0) == 3.0


@pytest.mark.parametrize("extra", [{"quant_method": "modelopt"}, {"producer": {"name": "modelopt"}}])
def test_the_file_beside_config_json_of_modelopt(loaded: Loaded, packing: ModuleType, extra: dict[str, object]) -> None:
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    stored = weight.to(torch.float8_e4m3fn)
    config = {
        **extra,
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    found = loaded({"a.weight": stored, "a.weight_scale": torch.tensor(2.0), "a.k_scale": torch.tensor(1.0)}, config)
    assert torch.equal(found.read("a.weight"), stored.float() * 2) and found.unused == ("a.k_scale",)
