"""Hostile checkpoints and configurations end in the project's own errors, by their headers where these suffice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from bestiary.errors import BestiaryError, CheckpointError, ConfigError
from bestiary_quant.checkpoints.loading import load

DATA = Path(__file__).parent / "data"
SMALL = (
    *("weight_shape", "bitsandbytes__nf4", "bitsandbytes__fp4", "weight_format"),
    *("nbits", "axis", "group_size", "shape", "packing", "quant_scale", "quant_zero"),
)
"""Endings of the tensors that describe others."""
BASES = {
    "gptq": ("gptq", "gptqmodel_v1_4"),
    "awq": ("awq", "gemm_32"),
    "gemv": ("awq", "gemv_32"),
    "marlin": ("marlin", "marlin_64"),
    "nf4": ("bitsandbytes", "nf4_16x128_64_nested"),
    "int8": ("bitsandbytes", "int8"),
    "pack": ("compressed_tensors", "pack_4_asymmetric"),
    "block": ("compressed_tensors", "float_8_block"),
    "nvfp4": ("compressed_tensors", "nvfp4"),
    "hqq": ("hqq", "4_1_64"),
    "mlx": ("mlx", "affine_4"),
    "modelopt": ("modelopt", "nvfp4"),
}
FP8 = ("F8_E4M3", (32, 64))
Change = Mapping[str, Any]


def base(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the configuration of one sound case."""
    file, case = BASES[name]
    with safe_open(DATA / f"{file}.safetensors", "pt") as opened:
        config = json.loads(opened.metadata()["cases"])[case]
        own = [key for key in opened.keys() if key.startswith(f"{case}:")]  # noqa: SIM118  (it is no mapping)
        tensors = {key.partition(":")[2]: opened.get_tensor(key) for key in own}
    tensors.pop("expected")
    return tensors, config


def attempt(headers: ModuleType, name: str, tensors: Change, config: Change) -> None:
    """Load a sound case with other headers or other data, and other settings; None takes away.

    Only the data of describing tensors can be read.
    """
    sound, stated = base(name)
    announced = {key: headers.header(tensor) for key, tensor in sound.items()}
    data = {key: tensor for key, tensor in sound.items() if key.rpartition(".")[2] in SMALL}
    for key, change in tensors.items():
        key = f"layer.{key}"
        if isinstance(change, torch.Tensor):
            announced[key], data[key] = headers.header(change), change
        elif change is None:
            del announced[key]
        else:
            announced[key] = change
            data.pop(key, None)
    changed = {key: value for key, value in {**stated, **config}.items() if value is not None or key not in config}
    load(headers.Headers(announced, data), changed)


@pytest.mark.parametrize("name", BASES)
def test_sound_cases_need_only_headers_and_what_describes(headers: ModuleType, name: str) -> None:
    attempt(headers, name, {}, {})


def json_state(without: str = "", **changes: Any) -> torch.Tensor:
    state = {"quant_type": "nf4", "blocksize": 64, "shape": [16, 128], "nested_blocksize": 256, "nested_offset": 0.1}
    state.pop(without, None)
    return torch.tensor(list(json.dumps({**state, **changes}).encode()), dtype=torch.uint8)


STATE = "weight.quant_state.bitsandbytes__nf4"
HUGE = 1 << 40
CASES: list[tuple[str, Change, Change, type[BestiaryError], str]] = [
    # settings out of bounds
    ("gptq", {}, {"bits": 5}, ConfigError, '"bits" is 5; one of 2, 3, 4, 8 is due'),
    ("gptq", {}, {"bits": True}, ConfigError, '"bits" is True'),
    ("gptq", {}, {"bits": "4"}, ConfigError, "\"bits\" is '4'"),
    ("gptq", {}, {"bits": 10**5000}, ConfigError, "a very large int"),
    ("gptq", {}, {"group_size": 0}, ConfigError, '"group_size" is 0'),
    ("gptq", {}, {"group_size": -2}, ConfigError, '"group_size" is -2'),
    ("gptq", {}, {"group_size": 1 << 60}, ConfigError, '"group_size" is 1152921504606846976'),
    ("gptq", {}, {"group_size": [[]]}, ConfigError, '"group_size" is [[]]'),
    ("gptq", {}, {"checkpoint_format": "gptq_v3"}, ConfigError, "'gptq_v3', which is not read here"),
    ("gptq", {}, {"checkpoint_format": 7}, ConfigError, '"checkpoint_format" is 7'),
    ("gptq", {}, {"is_marlin_format": "no"}, ConfigError, "true or false is due"),
    ("gptq", {}, {"modules_to_not_convert": "lm_head"}, ConfigError, "a list of names is due"),
    ("gptq", {}, {"quant_method": "gptq3"}, ConfigError, 'The quant_method "gptq3" is not read here'),
    ("gptq", {}, {"quant_method": ["gptq"]}, ConfigError, "a name is due"),
    ("awq", {}, {"version": "gemv_fast"}, ConfigError, "'gemv_fast', which is not read here"),
    ("awq", {}, {"bits": 8}, ConfigError, '"bits" is 8'),
    ("marlin", {}, {"bits": 8}, ConfigError, '"bits" is 8; one of 4 is due'),
    ("block", {}, {"format": "marlin-24"}, ConfigError, "'marlin-24', which is not read here"),
    ("block", {}, {"transform_config": {"config_groups": {}}}, ConfigError, "transform_config"),
    ("block", {}, {"config_groups": [1]}, ConfigError, '"config_groups" is [1]'),
    ("block", {}, {"config_groups": {"a": {"weights": 3}}}, ConfigError, '"weights" of "a" is 3'),
    ("block", {}, {"config_groups": {"a": {"weights": {"num_bits": 99}}}}, ConfigError, '"num_bits" is 99'),
    ("block", {}, {"config_groups": {"a": {"weights": {"block_structure": [0, 1]}}}}, ConfigError, "block_structure"),
    ("mlx", {}, {"bits": 7}, ConfigError, '"bits" is 7'),
    ("mlx", {}, {"group_size": -1}, ConfigError, '"group_size" is -1'),
    ("mlx", {}, {"mode": "mxfp5"}, ConfigError, "Did you mean 'mxfp8' or 'mxfp4'?"),
    ("mlx", {}, {"mode": "nvfp4"}, ConfigError, '"group_size" is 32'),
    ("mlx", {}, {"layer": False}, CheckpointError, '"layer" of test/model'),
    ("modelopt", {}, {"quant_algo": "W4A8_AWQ"}, ConfigError, "'W4A8_AWQ', which is not read here"),
    # settings that tensors contradict
    ("gptq", {}, {"bits": 8}, CheckpointError, 'which is 4 bits, and "bits" of test/model'),
    ("gptq", {}, {"group_size": 16}, CheckpointError, "with the group_size 16 of test/model"),
    ("gptq", {}, {"group_size": -1}, CheckpointError, "with the group_size -1 of test/model"),
    ("gptq", {}, {"checkpoint_format": "marlin"}, CheckpointError, "not in the Marlin layout"),
    ("gptq", {}, {"quant_method": "awq"}, CheckpointError, "as GPTQ has it"),
    ("gptq", {}, {"quant_method": "bitsandbytes"}, CheckpointError, 'the tensor "layer.qweight" is one of gptq or awq'),
    ("awq", {}, {"quant_method": "gptq"}, CheckpointError, "As AWQ they would agree"),
    ("awq", {}, {"group_size": 48}, CheckpointError, "does not divide them"),
    ("awq", {}, {"modules_to_not_convert": ["layer"]}, CheckpointError, 'says that "layer" is left plain'),
    ("nf4", {}, {"bnb_4bit_quant_type": "fp4"}, CheckpointError, "is fp4, and the tensors are nf4"),
    ("nf4", {}, {"quant_method": "hqq"}, CheckpointError, "is one of bitsandbytes"),
    (
        "pack",
        {},
        {"config_groups": {"a": {"weights": {"num_bits": 8}}}},
        CheckpointError,
        "says 8 bits with group_size",
    ),
    ("hqq", {}, {"quant_config": {"weight_quant_params": {"nbits": 8}}}, CheckpointError, "says 8 and 64"),
    ("mlx", {}, {"bits": 8}, CheckpointError, "do not agree with 8 bits in groups of 32"),
    ("mlx", {}, {"layer": {"bits": 8, "group_size": 64}}, CheckpointError, "do not agree with 8 bits in groups of 64"),
    # parts that are missing, of a wrong type or of a wrong shape
    ("gptq", {"scales": None}, {}, CheckpointError, "has no scales (layer.scales)"),
    ("gptq", {"qzeros": None}, {}, CheckpointError, "has no zeros (layer.qzeros)"),
    ("gptq", {"scales": ("I32", (2, 32))}, {}, CheckpointError, "has the type I32; F32 or F16 or BF16 is due"),
    ("gptq", {"qweight": ("F32", (8, 32))}, {}, CheckpointError, "has the type F32; I32 is due"),
    ("gptq", {"qweight": ("I32", (8, 32, 1))}, {}, CheckpointError, "2 dimensions, none empty, are due"),
    ("gptq", {"qweight": ("I32", (0, 32))}, {}, CheckpointError, "2 dimensions, none empty, are due"),
    (
        "gptq",
        {"qweight": ("I32", (9, 32))},
        {},
        CheckpointError,
        "has 9 rows of words, and 64 columns of 4 bits need 8",
    ),
    ("gptq", {"scales": ("F16", (HUGE, 32))}, {}, CheckpointError, "by the others it is [1099511627776, 4]"),
    ("gptq", {"qzeros": ("I32", (2, 5))}, {}, CheckpointError, "which is no number of bits"),
    ("gptq", {"g_idx": ("I32", (HUGE,))}, {}, CheckpointError, "1099511627776 columns of 4 bits need"),
    ("gptq", {"g_idx": ("F32", (64,))}, {}, CheckpointError, "has the type F32"),
    ("gptq", {"weight": ("F32", (32, 64))}, {}, CheckpointError, "stored twice, packed and plain"),
    ("awq", {"qzeros": None}, {}, CheckpointError, "The tensor 'layer.qzeros' is missing"),
    ("awq", {"scales": ("F16", (2, 31))}, {}, CheckpointError, "by the others it is [2, 32]"),
    ("gemv", {"scales": ("F16", (16, 24))}, {}, CheckpointError, "by the others it is [16, 32]"),
    ("gemv", {}, {"group_size": 1}, CheckpointError, "has room for 32 groups, and there are 96"),
    ("gemv", {"qzeros": ("I32", (16, HUGE))}, {}, CheckpointError, "by the others it is"),
    ("marlin", {"s": ("F16", (HUGE, 128))}, {}, CheckpointError, "1099511627776 groups"),
    ("marlin", {"qzeros": ("I32", (2, 16))}, {}, CheckpointError, "has no place in the Marlin layout"),
    ("nf4", {"weight.absmax": None}, {}, CheckpointError, "'layer.weight.absmax' is missing"),
    ("nf4", {"weight.absmax": ("U8", (31,))}, {}, CheckpointError, "by the others it is [32]"),
    ("nf4", {"weight.nested_absmax": None}, {}, CheckpointError, "has the type U8; F32 is due"),
    ("nf4", {"weight.quant_map": ("F32", (17,))}, {}, CheckpointError, "by the others it is [16]"),
    ("nf4", {STATE: None}, {}, CheckpointError, "is packed, and has no scale"),
    ("nf4", {STATE: ("U8", (HUGE,))}, {}, CheckpointError, "it describes others, in at most"),
    ("nf4", {STATE: torch.tensor([123, 34], dtype=torch.uint8)}, {}, CheckpointError, "does not hold JSON"),
    ("nf4", {STATE: torch.tensor([91] * 60000, dtype=torch.uint8)}, {}, CheckpointError, "does not hold JSON"),
    ("nf4", {STATE: torch.tensor([49], dtype=torch.uint8)}, {}, CheckpointError, "an object is due"),
    ("nf4", {STATE: json_state(shape=[16, 127])}, {}, CheckpointError, "codes of 4 bits"),
    ("nf4", {STATE: json_state(shape=[1 << 30, 1 << 30, 1 << 30])}, {}, CheckpointError, "codes of 4 bits"),
    ("nf4", {STATE: json_state(shape=[2048])}, {}, CheckpointError, "two or three numbers"),
    ("nf4", {STATE: json_state(shape=[-16, -128])}, {}, CheckpointError, "two or three numbers"),
    ("nf4", {STATE: json_state(blocksize=63)}, {}, CheckpointError, '"blocksize" of'),
    ("nf4", {STATE: json_state(blocksize=0)}, {}, CheckpointError, '"blocksize" of'),
    ("nf4", {STATE: json_state(nested_blocksize=10**100)}, {}, CheckpointError, '"nested_blocksize" of'),
    ("nf4", {STATE: json_state(nested_blocksize=None)}, {}, CheckpointError, '"nested_blocksize" of'),
    ("nf4", {STATE: json_state(without="nested_blocksize")}, {}, CheckpointError, "does not say how"),
    ("nf4", {STATE.replace("nf4", "fp4"): json_state()}, {}, CheckpointError, "Two packed tensors would be"),
    ("nf4", {STATE: json_state(nested_offset=10**400)}, {}, CheckpointError, '"nested_offset" of'),
    ("nf4", {STATE: json_state(nested_offset=float("nan"))}, {}, CheckpointError, '"nested_offset" of'),
    ("int8", {"SCB": None}, {}, CheckpointError, "is packed, and has no scale"),
    ("int8", {"SCB": ("F32", (15,))}, {}, CheckpointError, "by the others it is [16]"),
    ("int8", {"weight_format": torch.tensor(2, dtype=torch.uint8)}, {}, CheckpointError, "row by row is due"),
    ("pack", {"weight_scale": None}, {}, CheckpointError, "'layer.weight_scale' is missing"),
    ("pack", {"weight_shape": None}, {}, CheckpointError, "'layer.weight_shape' is missing"),
    ("pack", {"weight_shape": ("I64", (HUGE,))}, {}, CheckpointError, "it describes others"),
    ("pack", {"weight_shape": torch.tensor([20, -1])}, {}, CheckpointError, "says [20, -1]"),
    (
        "pack",
        {"weight_shape": torch.tensor([20, 3])},
        {},
        CheckpointError,
        "3 columns fill them with no number of bits",
    ),
    ("pack", {"weight_scale": ("F32", (20, 5))}, {}, CheckpointError, "and its weight [20, 64]"),
    ("pack", {"weight_zero_point": ("I32", (2, 4))}, {}, CheckpointError, "by the others it is [3, 4]"),
    ("pack", {"weight_scale": ("F32", (1,))}, {"config_groups": None}, CheckpointError, "has the type I32; I8 is due"),
    ("pack", {"weight_g_idx": ("I32", (63,))}, {}, CheckpointError, "by the others it is [64]"),
    ("block", {"weight_scale": None}, {}, CheckpointError, "has no scale (layer.weight_scale)"),
    ("block", {"weight_scale": ("F32", (3, 3))}, {}, CheckpointError, "2 x 3 blocks of 16 x 16"),
    ("block", {"weight_scale": ("F32", (2, 3, 1))}, {}, CheckpointError, "has the shape [2, 3, 1]"),
    ("block", {"weight_scale": ("I64", (2, 3))}, {}, CheckpointError, "has the type I64"),
    ("nvfp4", {"weight_scale": ("F8_E4M3", (16, 5))}, {}, CheckpointError, "do not agree"),
    ("nvfp4", {"weight_scale": ("F8_E4M3", (16, HUGE))}, {}, CheckpointError, "do not agree"),
    ("nvfp4", {"weight_global_scale": ("F32", (16,))}, {}, CheckpointError, "one number is due"),
    ("hqq", {"scale": None}, {}, CheckpointError, "'layer.scale' is missing"),
    ("hqq", {"packing": torch.tensor([65], dtype=torch.uint8)}, {}, CheckpointError, "layer.packing is 'A'"),
    ("hqq", {"packing": ("U8", (HUGE,))}, {}, CheckpointError, "it describes others"),
    ("hqq", {"axis": torch.tensor(2)}, {}, CheckpointError, "layer.axis is [2]"),
    ("hqq", {"group_size": torch.tensor(0)}, {}, CheckpointError, "layer.group_size is [0]"),
    ("hqq", {"group_size": torch.tensor(63)}, {}, CheckpointError, "does not divide"),
    ("hqq", {"shape": torch.tensor([1 << 31, 1 << 31])}, {}, CheckpointError, "layer.W_q"),
    ("hqq", {"shape": torch.tensor([32.0, 64.0])}, {}, CheckpointError, "layer.shape is [32.0, 64.0]"),
    ("hqq", {"quant_zero": torch.tensor(1)}, {}, CheckpointError, "quantised themselves"),
    ("mlx", {"biases": None}, {}, CheckpointError, "has no biases"),
    ("mlx", {"scales": None, "biases": None}, {}, CheckpointError, "is packed, and has no scale"),
    ("mlx", {"scales": ("F16", (8, HUGE))}, {}, CheckpointError, "do not agree"),
    ("mlx", {"weight": ("I32", (8, 8))}, {}, CheckpointError, "has the type I32; U32 is due"),
    ("modelopt", {"weight_scale_2": None}, {}, CheckpointError, "'layer.weight_scale_2' is missing"),
    ("modelopt", {"pre_quant_scale": ("F32", (64,))}, {}, CheckpointError, "layer.pre_quant_scale changes"),
    # float8, of which there is no sound case above
    ("gptq", {"other.weight": FP8}, {}, CheckpointError, "is packed, and has no scale"),
]


@pytest.mark.parametrize(
    ("name", "tensors", "config", "kind", "says"), CASES, ids=[f"{case[0]} {case[4][:40]}" for case in CASES]
)
def test_case(
    headers: ModuleType, name: str, tensors: Change, config: Change, kind: type[BestiaryError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        attempt(headers, name, tensors, config)
    assert says in f"{caught.value.what} {caught.value.fix}", caught.value.what
    assert "test/model" in str(caught.value) and len(str(caught.value)) < 1500


SCALES = {"a.weight_scale_inv": ("F32", (2, 4)), "a.weight_scale": ("F32", (1,))}


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        ({}, {}, "has no scale (a.weight_scale_inv or"),
        (SCALES, {}, "has several scale (a.weight_scale_inv, a.weight_scale)"),
        ({"a.weight_scale_inv": ("F32", (3, 4))}, {}, "which do not part the 32 x 64 numbers"),
        ({"a.weight_scale_inv": ("F32", (2, 4))}, {"weight_block_size": [128, 128]}, "1 x 1 blocks of 128 x 128"),
        ({"a.weight_scale_inv": ("F32", (1,))}, {"weight_block_size": [16, 16]}, "2 x 4 blocks of 16 x 16"),
        ({"a.weight_scale_inv": ("F32", (HUGE, HUGE))}, {}, "which do not part"),
        ({"a.weight_scale": ("F32", (0,))}, {}, "none empty"),
        ({"a.weight_scale": ("F32", (1,))}, {"ignored_layers": ["a"]}, '"a" is left plain'),
    ],
)
def test_float8(headers: ModuleType, tensors: Change, config: Change, says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(headers.Headers({"a.weight": FP8, **tensors}), {"quant_method": "fp8", **config})
    assert says in caught.value.what


@pytest.mark.parametrize("block", [[128], [0, 128], "128", [True, 1], {"a": 1}, [1 << 40, 1]])
def test_blocks_that_are_no_pair(headers: ModuleType, block: Any) -> None:
    with pytest.raises(ConfigError, match="weight_block_size"):
        load(headers.Headers({"a.weight": FP8}), {"quant_method": "fp8", "weight_block_size": block})


@pytest.mark.parametrize("config", [None, [], "gptq", {}, {"quant_method": None}, {"quant_method": 3}])
def test_configurations_that_are_none(headers: ModuleType, config: Any) -> None:
    with pytest.raises(ConfigError):
        load(headers.Headers({}), config)


@pytest.mark.parametrize("order", [[0] * 63 + [2], [-1] + [0] * 63, [1 << 30] * 64])
@pytest.mark.parametrize("name", ["gptq", "pack"])
def test_an_order_that_names_no_group(loaded: Callable[..., Any], name: str, order: list[int]) -> None:
    tensors, config = base(name)
    part = "layer.g_idx" if name == "gptq" else "layer.weight_g_idx"
    order = [place + 2 if place == 2 and name == "pack" else place for place in order]
    found = loaded({**tensors, part: torch.tensor(order, dtype=torch.int32)}, config)
    with pytest.raises(CheckpointError, match="names groups"):
        found.packed("layer.weight")


KEYS = st.sampled_from(
    ["bits", "group_size", "version", "checkpoint_format", "sym", "weight_block_size", "config_groups", "mode", "layer"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.sampled_from(["gptq_v2", "gemv", "marlin", "mxfp4", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["weights", "num_bits"]), inner),
    max_leaves=5,
)


@pytest.mark.parametrize("name", BASES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.data())
def test_any_change_is_read_or_refused(headers: ModuleType, name: str, change: st.DataObject) -> None:
    """Tensors of other shapes, types and contents, and other settings: a weight of its shape, or a typed error."""
    tensors, config = base(name)
    config.update(change.draw(st.dictionaries(KEYS, VALUES, max_size=1)))
    victim = change.draw(st.sampled_from(sorted(tensors)))
    kind = change.draw(st.sampled_from(["shape", "type", "content", "drop", "none"]))
    tensor = tensors[victim]
    if kind == "shape":
        shape = [max(0, size + change.draw(st.integers(-2, 2))) for size in tensor.shape]
        tensors[victim] = torch.zeros(shape + [1] * change.draw(st.integers(0, 1)), dtype=tensor.dtype)
    elif kind == "type":
        tensors[victim] = torch.zeros(tensor.shape, dtype=change.draw(st.sampled_from(list(headers.NAMES))))
    elif kind == "content":
        raw = tensor.flatten().view(torch.uint8).clone()
        raw[change.draw(st.integers(0, len(raw) - 1))] = change.draw(st.integers(0, 255))
        tensors[victim] = raw.view(tensor.dtype).view(tensor.shape)
    elif kind == "drop":
        del tensors[victim]
    checkpoint = headers.Headers({key: headers.header(value) for key, value in tensors.items()}, tensors)
    try:
        found = load(checkpoint, config)
        for weight in found.names():
            packed = found.packed(weight)
            if packed is not None:
                assert packed.dequantize().shape == found.shape(weight) == packed.shape
    except (CheckpointError, ConfigError):
        pass
