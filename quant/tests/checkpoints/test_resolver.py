"""What a configuration states, what tensors show and what a user asks are brought together, or told apart."""

import json
import logging
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

from bestiary.errors import OptionError
from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.checkpoints.loading import load
from bestiary_quant.checkpoints.resolver import READERS, check_asked, stated_method

Loaded = Callable[..., QuantizedCheckpoint]
HERE = "model, config.json"


def weight(rows: int = 32, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def named(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


# The method


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({"quant_method": "GPTQ"}, "gptq"),
        ({"bits": 4, "group_size": 64}, "mlx"),
        ({"group_size": 64, "bits": 4, "mode": "affine", "model.embed_tokens": {"bits": 6}}, "mlx"),
        ({"bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": False}, "gptq"),  # quantize_config.json
        ({"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}, "awq"),  # quant_config.json
        ({"producer": {"name": "modelopt", "version": "0.29"}, "quantization": {}}, "modelopt"),  # hf_quant_config.json
    ],
)
def test_what_only_one_method_writes(values: dict[str, Any], method: str) -> None:
    assert stated_method(values, HERE) == method


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        *(("gptq", "marlin"), ("gptq", "GPTQ"), ("marlin", "gptq"), ("awq", "awq_marlin"), ("mlx", "afq")),
        *(("mlx", "x4"), ("bitsandbytes", "X4"), ("nvfp4", "modelopt"), *((method, None) for method in READERS)),
    ],
)
def test_the_same_scheme_may_be_asked_for(method: str, asked: str | None) -> None:
    check_asked(asked, method, ["X4"], HERE)


@pytest.mark.parametrize(("method", "asked"), [("gptq", "q4_k"), ("gptq", "awq"), ("fp8", "mxfp4"), ("hqq", "x4")])
def test_another_scheme_is_a_conflict_with_both_sources(method: str, asked: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_asked(asked, method, ["X4", "X8"], HERE)
    told = str(caught.value)
    assert f"packed as {method} (X4, X8)" in told and f"quant='{asked}'" in told
    assert f'{HERE} ("quant_method": "{method}") and the argument quant' in told


def test_asking_reaches_the_checkpoint(loaded: Loaded, packing: ModuleType) -> None:
    tensors, numbers = packing.gptq(weight())
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    for asked in ("marlin", "gptq4"):
        assert torch.equal(loaded(named("a", tensors), config, asked).read("a.weight"), numbers)
    with pytest.raises(OptionError, match="already packed as gptq"):
        loaded(named("a", tensors), config, "q8_0")


# Settings that tensors may outvote


def test_patterns_of_gptqmodel_allow_other_bits_and_groups(loaded: Loaded, packing: ModuleType) -> None:
    """Each weight is what its shapes show; the patterns, of which one would run for ever, are not run."""
    plain = {4: packing.gptq(weight()), 8: packing.gptq(weight(), 8, 16), 3: packing.gptq(weight(), 3, 64)}
    tensors = {key: value for bits, made in plain.items() for key, value in named(f"m.{bits}", made[0]).items()}
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"+:(a+)+$": {"bits": 8}, "-:.*b": {}}}
    found = loaded(tensors, config)
    assert {name: found.dtype(name) for name in found.names()} == {f"m.{bits}.weight": f"GPTQ{bits}" for bits in plain}
    for bits, (_, numbers) in plain.items():
        assert torch.equal(found.read(f"m.{bits}.weight"), numbers)


def test_gptq_without_zeros_and_without_order(loaded: Loaded, packing: ModuleType) -> None:
    codes = torch.randint(0, 16, (32, 64), generator=torch.Generator().manual_seed(0))
    scales = torch.rand(2, 32).half()
    tensors = {"a.qweight": packing.words(codes.tolist(), 4).T.contiguous(), "a.scales": scales}
    found = loaded(tensors, {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True})
    assert torch.equal(found.read("a.weight"), (codes - 8) * scales.float().T.repeat_interleave(32, 1))


def test_compressed_tensors_in_other_spellings(loaded: Loaded, packing: ModuleType) -> None:
    """One scale for the whole, zeros that are not packed, the name of a preset, and an order that was never made."""
    codes = torch.randint(0, 256, (4, 40), generator=torch.Generator().manual_seed(0))
    tensors = {
        "weight_packed": packing.words(codes.tolist(), 8),
        "weight_shape": torch.tensor([4, 40]),
        "weight_scale": torch.tensor([0.5]),
        "weight_zero_point": torch.tensor([3], dtype=torch.int8),
        "weight_g_idx": torch.full((40,), -1, dtype=torch.int32),
        "input_scale": torch.tensor(2.0),
    }
    found = loaded(
        named("a", tensors),
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"W8A16": ["Linear"]}},
    )
    packed = found.packed("a.weight")
    assert isinstance(packed, CodedMatrix) and torch.equal(packed.dequantize(), (codes - 128 - 3) * 0.5)
    assert torch.equal(packed.rows(torch.tensor([3, 1])).dequantize(), (codes[[3, 1]] - 131) * 0.5)
    assert float(packed.input_scale or 0) == 2.0 and found.names() == ("a.weight",)


def test_an_order_of_compressed_tensors(loaded: Loaded, packing: ModuleType) -> None:
    tensors, numbers = packing.int4(weight())
    order = torch.tensor([0, 1] * 32, dtype=torch.int32)
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    scales = tensors["weight_scale"].float()
    found = loaded(named("a", {**tensors, "weight_g_idx": order}), config).read("a.weight")
    codes = (numbers / scales.repeat_interleave(32, 1)).round()
    assert torch.equal(found, codes * scales[:, order])


def test_hqq_with_settings_for_each_layer(loaded: Loaded) -> None:
    """Without common settings, each weight is what its own tensors say."""
    words = {"nbits": 8, "axis": 1, "group_size": 4}
    tensors = {
        "W_q": torch.arange(16, dtype=torch.uint8).view(4, 4),
        "scale": torch.tensor([[1.0], [2.0], [3.0], [4.0]]),
        "zero": torch.tensor([[0.5], [0.0], [1.0], [2.0]]),
        "shape": torch.tensor([2, 8]),
        "packing": torch.tensor(list(b"8bit_u8"), dtype=torch.uint8),
        **{name: torch.tensor(value, dtype=torch.int32) for name, value in words.items()},
    }
    found = loaded(named("a", tensors), {"quant_method": "hqq", "quant_config": {"self_attn.q_proj": {}}})
    expected = (torch.arange(16.0).view(4, 4) - tensors["zero"]) * tensors["scale"]
    assert torch.equal(found.read("a.weight"), expected.view(2, 8))


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "marlin"},
        {"quant_method": "gptq", "is_marlin_format": True},
        {"quant_method": "gptq_marlin", "checkpoint_format": "marlin"},
        {"quant_method": "awq", "version": "Marlin"},
    ],
)
def test_the_ways_to_say_marlin(headers: ModuleType, config: dict[str, Any]) -> None:
    announced = {"a.B": ("I32", (8, 256)), "a.s": ("F16", (1, 128)), "a.workspace": ("I32", (16,))}
    found = load(headers.Headers(announced), {**config, "bits": 4, "group_size": -1})
    assert found.names() == ("a.weight",) and found.shape("a.weight") == (128, 128)


def test_a_layer_of_mlx_with_settings_of_its_own(loaded: Loaded, packing: ModuleType) -> None:
    (four, plain4), (eight, plain8) = packing.mlx(weight()), packing.mlx(weight(), 8, 64)
    tensors = {**named("a", four), **named("b", eight), "c.weight": weight()}
    found = loaded(tensors, {"group_size": 32, "bits": 4, "b": {"group_size": 64, "bits": 8}, "c": False})
    assert torch.equal(found.read("a.weight"), plain4) and torch.equal(found.read("b.weight"), plain8)
    assert found.dtype("b.weight") == "AFQ8" and torch.equal(found.read("c.weight"), weight())


def test_experts_of_mlx_are_a_stack(loaded: Loaded, packing: ModuleType) -> None:
    made = [packing.mlx(weight() * scale) for scale in (1, 2, 3)]
    tensors = {name: torch.stack([tensors[name] for tensors, _ in made]) for name in ("scales", "biases")}
    codes = torch.stack([tensors["weight"].view(torch.int32) for tensors, _ in made]).view(torch.uint32)
    found = loaded(named("a", {**tensors, "weight": codes}), {"group_size": 32, "bits": 4})
    packed = found.packed("a.weight")
    assert isinstance(packed, CodedStack) and found.shape("a.weight") == (3, 32, 64)
    assert torch.equal(packed.dequantize(), torch.stack([numbers for _, numbers in made]))
    assert torch.equal(packed[1].dequantize(), made[1][1])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_headers_of_an_ordinary_size(headers: ModuleType, bits: int) -> None:
    announced = {
        "a.qweight": ("I32", (14336 * bits // 32, 4096)),
        "a.qzeros": ("I32", (112, 4096 * bits // 32)),
        "a.scales": ("F16", (112, 4096)),
        "a.g_idx": ("I32", (14336,)),
    }
    found = load(headers.Headers(announced), {"quant_method": "gptq", "bits": bits, "group_size": 128})
    assert found.shape("a.weight") == (4096, 14336) and found.dtype("a.weight") == f"GPTQ{bits}"
    assert found.nbytes("a.weight") == 4096 * 14336 * bits // 8 + 112 * 4096 * (16 + bits) // 8 + 4 * 14336


def test_plain_weights_under_a_configuration_are_plain(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = loaded({"a.weight": weight(), "text": torch.ones(5, dtype=torch.uint8)}, {"quant_method": "awq"})
    assert (
        found.dtype("text") == "U8"
        and torch.equal(found.read("a.weight"), weight())
        and found.packed("a.weight") is None
    )
    assert "says awq, and none of the tensors is packed" in caplog.text


# The checkpoint


def test_weights_outlive_the_checkpoint(loaded: Loaded, packing: ModuleType) -> None:
    tensors, numbers = packing.int4(weight())
    found = loaded(named("a", tensors), {"quant_method": "compressed-tensors", "format": "pack-quantized"})
    packed = found.packed("a.weight")
    found.release()
    found.close()
    assert isinstance(packed, CodedMatrix) and torch.equal(packed.dequantize(), numbers)


def test_an_unknown_name_is_told_with_its_neighbours(headers: ModuleType) -> None:
    base = headers.Headers({"a.weight": ("F32", (2, 2)), "b.weight": ("F32", (2, 2))})
    found = load(base, {"quant_method": "gptq"})
    for ask in (found.shape, found.dtype, found.nbytes, found.read):
        with pytest.raises(Exception, match=r"no weight 'a.bias'; its neighbours are a.weight\."):
            ask("a.bias")
    found.close()
    assert base.closed


# Names of real checkpoints


def names_of(path: Path) -> list[str]:
    content = path.read_bytes()
    return list(json.loads(lzma.decompress(content) if path.suffix == ".xz" else content)["weight_map"])


def announce(names: list[str]) -> Iterator[tuple[str, tuple[str, tuple[int, ...]], torch.Tensor | None]]:
    """Headers of weights of one small shape, 32 x 64, under the names of a real checkpoint, and what describes them."""
    state = {"quant_type": "nf4", "blocksize": 64, "shape": [32, 64]}
    blob = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    known = set(names)
    for name in names:
        prefix, _, last = name.rpartition(".")
        if last == "weight" and f"{prefix}.scales" in known:
            yield name, ("U32", (32, 8)), None
        elif last == "weight" and f"{prefix}.SCB" in known:
            yield name, ("I8", (32, 64)), None
        elif last == "weight" and f"{name}.absmax" in known:
            yield name, ("U8", (1024, 1)), None
        elif last.startswith("bitsandbytes__"):
            yield name, ("U8", (len(blob),)), blob
        elif last == "weight_shape":
            yield name, ("I64", (2,)), torch.tensor([32, 64])
        elif last == "weight_format":
            yield name, ("U8", ()), torch.tensor(0, dtype=torch.uint8)
        else:
            shapes = {"scales": (32, 1), "biases": (32, 1), "SCB": (32,), "absmax": (32,), "quant_map": (16,)}
            packed = {"weight_packed": ("I32", (32, 8)), "weight_scale": ("BF16", (32, 2))}
            yield name, packed.get(last, ("F32", shapes.get(last, (32, 64)))), None


REAL = {
    "qwen3-14b-mlx4bit": ("model.safetensors.index.json", "quantization", 282, "AFQ4"),
    "mistral3-vlm-mlx4bit": ("model.safetensors.index.json.xz", "quantization", 434, "AFQ4"),
    "llama-3.1-8b-bnb4": ("model.safetensors.index.json", "quantization_config", 224, "INT8"),
    "flux.1-schnell-bnb8/text_encoder_2": ("model.safetensors.index.json", "quantization_config", 144, "NF4"),
    "gemma4-mlx-or-quant": ("model.safetensors.index.json.xz", "quantization_config", 11635, "INT4"),
}


@pytest.mark.parametrize("folder", REAL)
def test_names_of_real_checkpoints(shared_data: Path, headers: ModuleType, folder: str) -> None:
    index, key, count, kind = REAL[folder]
    config = json.loads((shared_data / "checkpoints" / folder / "config.json").read_text())
    rows = list(announce(names_of(shared_data / "checkpoints" / folder / index)))
    data = {name: value for name, _, value in rows if value is not None}
    found = load(headers.Headers({name: head for name, head, _ in rows}, data), config[key])
    packed = [name for name in found.names() if found.dtype(name) == kind]
    assert len(packed) == count and {found.shape(name) for name in packed} == {(32, 64)} and found.unused == ()
    left = re.compile(r"\.(scales|biases|SCB|weight_\w+|absmax|quant_\w+)$|bitsandbytes")
    assert not [name for name in found.names() if left.search(name)]
    if config["model_type"] in ("llama", "qwen3"):
        with torch.device("meta"):
            made = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(**{key: value for key, value in config.items() if "quant" not in key})
            )
        assert set(found.names()) == set(made.state_dict())
