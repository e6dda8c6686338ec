"""Configurations: our one spelling against the values that transformers reads from the same config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers

import bestiary_gemma
import bestiary_llama
import bestiary_qwen
from bestiary.config import FULL, SLIDING, Config, normalise, read_json
from bestiary.errors import ConfigError
from bestiary.records import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    record.name: record
    for plugin in (bestiary_llama, bestiary_qwen, bestiary_gemma)
    for record in plugin.bestiary_architectures()
}
BY_TYPE = {model_type: record for record in ARCHITECTURES.values() for model_type in record.model_types}
BY_TYPE["mistral3"] = ARCHITECTURES["Mistral3ForConditionalGeneration"]
SIZES: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # As transformers 5 saves them, and as the hub has had them since 2023.
    "llama": ("llama", {}),
    "llama-theta-at-top": ("llama", {"rope_theta": 5e5, "torch_dtype": "bfloat16"}),
    "llama-no-kv-heads": ("llama", {"num_key_value_heads": None, "rope_scaling": None}),
    "llama-head-dim": ("llama", {"head_dim": 24, "dtype": "float16"}),
    "llama-linear-by-type": ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "llama-both-type-names": ("llama", {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 8.0}}),
    "llama-dynamic": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_theta": 1e5}),
    "llama3": ("llama", {"rope_scaling": {"rope_type": "llama3", **LLAMA3}, "rope_theta": 5e5}),
    "llama3-parameters": ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}),
    "llama-yarn-no-original": ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0}}),
    "llama-theta-beside-parameters": ("llama", {"rope_theta": 7e5, "rope_parameters": {"rope_type": "default"}}),
    "mistral": ("mistral", {"sliding_window": 64, "rope_theta": 1e6}),
    "mistral-no-window": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "mistral-window-left-out": ("mistral", {"torch_dtype": "bfloat16"}),
    "ministral": ("ministral", {"sliding_window": 5, "layer_types": [FULL, SLIDING] * 4, "head_dim": 16}),
    "ministral-left-out": ("ministral", {}),
    "ministral3": ("ministral3", {"head_dim": 16, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, **YARN}}),
    "ministral3-scaling-left-out": ("ministral3", {"head_dim": 16}),
    "ministral3-type": ("ministral3", {"rope_parameters": {"type": "yarn", "rope_theta": 1e6, **YARN}, "head_dim": 16}),
    "qwen2": ("qwen2", {"rope_theta": 1e6, "use_sliding_window": False, "sliding_window": 9, "max_window_layers": 3}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3}),
    "qwen2-window-layers-left-out": ("qwen2", {"use_sliding_window": True, "sliding_window": 9}),
    "qwen2-window-left-out": ("qwen2", {"use_sliding_window": True, "max_window_layers": 3}),
    "qwen2-silent": ("qwen2", {"sliding_window": 9, "max_window_layers": 3}),
    "qwen3": ("qwen3", {"head_dim": 32, "rope_scaling": {"rope_type": "yarn", **YARN}}),
    "qwen3-head-dim-left-out": ("qwen3", {}),
    "qwen2-moe": ("qwen2_moe", EXPERTS),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "head_dim": 16, "torch_dtype": "bfloat16"}),
    "qwen3-moe-head-dim-left-out": ("qwen3_moe", EXPERTS),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma-head-dim-left-out": ("gemma", {}),
    "gemma2": ("gemma2", {"head_dim": 32, "sliding_window": 9}),
    "gemma2-layer-types": ("gemma2", {"head_dim": 32, "sliding_window": 9, "layer_types": [FULL, SLIDING] * 4}),
    "gemma2-window-left-out": ("gemma2", {"head_dim": 32}),
    "gemma3": ("gemma3_text", {"head_dim": 32, "sliding_window": 9}),
    "gemma3-pattern": ("gemma3_text", {"head_dim": 32, "sliding_window_pattern": 3, "rope_local_base_freq": 2e4}),
    "gemma3-scaling": (
        "gemma3_text",
        {"head_dim": 32, "rope_theta": 2e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "gemma3-parameters": ("gemma3_text", {"head_dim": 32, "rope_parameters": GEMMA3_ROPE}),
    "gemma3-parameters-of-one-kind": (
        "gemma3_text",
        {"head_dim": 32, "rope_parameters": {"full_attention": GEMMA3_ROPE["full_attention"]}},
    ),
}


def check(ours: Config, theirs: transformers.PreTrainedConfig) -> None:
    """What the blocks read is what transformers would have built from."""
    for key in ("head_dim", "num_key_value_heads", "hidden_size", "num_hidden_layers", "tie_word_embeddings"):
        if getattr(theirs, key, None) is not None:  # their modelling code fills in the others
            assert ours.get(key, False) == getattr(theirs, key), key
    stated = ours.get("dtype")
    assert stated == (None if theirs.dtype is None else str(theirs.dtype).removeprefix("torch."))
    check_windows(ours, theirs)
    nested = any(isinstance(value, Mapping) for value in theirs.rope_parameters.values())
    for kind, expected in (theirs.rope_parameters if nested else {FULL: theirs.rope_parameters}).items():
        given = dict(ours.rope(kind))
        assert given.pop("max_position_embeddings") == theirs.max_position_embeddings
        expected = {key: value for key, value in expected.items() if key not in ("type", "max_position_embeddings")}
        assert given == expected, kind


def check_windows(ours: Config, theirs: transformers.PreTrainedConfig) -> None:
    layers = range(theirs.num_hidden_layers)
    window = getattr(theirs, "sliding_window", None) or None
    kinds = getattr(theirs, "layer_types", None)
    if kinds is None:  # one kind for all of them
        kinds = [SLIDING if window else FULL for _ in layers]
    assert [ours.window(layer) for layer in layers] == [window if kind == SLIDING else None for kind in kinds]


def theirs_from(raw: Mapping[str, Any], folder: Path) -> transformers.PreTrainedConfig:
    (folder / "config.json").write_text(json.dumps(raw))
    return transformers.AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("case", CASES)
def test_every_spelling_means_what_transformers_reads(case: str, tmp_path: Path) -> None:
    model_type, changes = CASES[case]
    raw = {"model_type": model_type, **SIZES, **changes}
    check(normalise(raw, "here", BY_TYPE[model_type].defaults), theirs_from(raw, tmp_path))


@pytest.mark.parametrize("case", CASES)
def test_what_transformers_saves_means_the_same(case: str, tmp_path: Path) -> None:
    model_type, changes = CASES[case]
    theirs = theirs_from({"model_type": model_type, **SIZES, **changes}, tmp_path)
    theirs.save_pretrained(tmp_path)
    check(normalise(read_json(tmp_path / "config.json"), "here", BY_TYPE[model_type].defaults), theirs)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("inner", ["mistral", "ministral3"])
def test_a_nested_language_model_is_its_own_configuration(inner: str, tied: bool, tmp_path: Path) -> None:
    raw = {
        "model_type": "mistral3",
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "text_config": {"model_type": inner, **SIZES, "head_dim": 32},
        "vision_config": {"model_type": "pixtral", "hidden_size": 32, "num_attention_heads": 2},
    }
    theirs = theirs_from(raw, tmp_path)
    ours = normalise(raw, "here", BY_TYPE[inner].defaults)
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings == tied
    assert ours.dtype == "bfloat16" and ours.text.dtype == "bfloat16"
    assert ours.text.head_dim == theirs.text_config.head_dim
    assert ours.text.rope()["rope_theta"] == theirs.text_config.rope_parameters["rope_theta"]
    check_windows(ours.text, theirs.text_config)
    assert ours.text.origin == "here, text_config"


REAL = (
    "llama-3-8b-lexi",
    "llama-3.1-8b-bnb4",
    "llama-3.2-3b",
    "smollm-135m",
    "mistral-7b-instruct",
    "mistral-devstral-small-2507",
    "mistral3-vlm-mlx4bit",
    "qwen2-cogito-14b",
    "qwen2.5-3b",
    "qwen3-14b-mlx4bit",
    "qwen3-mlx",
    "gemma-2b-it",
    "configs-sophgo/llama-2-7b-chat",
    "configs-sophgo/llama-3.2-3b-sophgo",
    "configs-sophgo/mistral-7b-instruct-v0.2",
    "configs-sophgo/qwen1.5-7b",
    "configs-sophgo/qwen2-7b",
    "configs-sophgo/qwen2.5-7b",
    "configs-sophgo/qwen3-4b",
    "configs-sophgo/yi-6b-chat",
)


@pytest.mark.parametrize("name", REAL)
def test_real_files_mean_what_transformers_reads(name: str, shared_data: Path) -> None:
    folder = shared_data / "checkpoints" / name
    raw = read_json(folder / "config.json")
    ours = normalise(raw, str(folder), ARCHITECTURES[raw["architectures"][0]].defaults)
    theirs = transformers.AutoConfig.from_pretrained(folder)
    if "text_config" not in raw:
        check(ours, theirs)
        return
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.dtype == str(theirs.dtype).removeprefix("torch.")
    check_windows(ours.text, theirs.text_config)
    assert ours.text.head_dim == theirs.text_config.head_dim
    assert ours.text.rope()["rope_theta"] == theirs.text_config.rope_parameters["rope_theta"]


@pytest.mark.parametrize("old", ["num_local_experts", "n_routed_experts", "num_experts"])
def test_experts_are_counted_under_one_name(old: str) -> None:
    assert normalise({old: 6}, "here").num_experts == 6


@pytest.mark.parametrize(
    "old, new, value",
    [("torch_dtype", "dtype", "bfloat16"), ("hidden_activation", "hidden_act", "gelu_pytorch_tanh")],
)
def test_old_names_become_new_ones(old: str, new: str, value: str) -> None:
    assert normalise({old: value}, "here")[new] == value
    assert old not in normalise({old: value}, "here")
    assert normalise({old: value}, "here", {new: "other"})[new] == value
    assert normalise({old: "other", new: value}, "here")[new] == value
    assert normalise({old: value, new: None}, "here")[new] == value


def test_defaults_stand_where_a_key_is_absent_or_null() -> None:
    defaults = {"hidden_act": "gelu", "sliding_window": 7}
    assert normalise({}, "here", defaults).hidden_act == "gelu"
    assert normalise({"hidden_act": None}, "here", defaults).hidden_act == "gelu"
    assert normalise({"hidden_act": "silu"}, "here", defaults).hidden_act == "silu"
    assert normalise({"sliding_window": None}, "here", defaults).sliding_window is None  # null says: no window


# Reading


def test_an_absent_key_names_itself_its_place_and_its_neighbour() -> None:
    config = normalise({**SIZES, "hidden_sizes": 3}, "folder/config.json")
    with pytest.raises(ConfigError) as found:
        _ = config.intermediate_sise
    assert '"intermediate_sise"' in found.value.what
    assert found.value.where == "folder/config.json"
    assert found.value.fix is not None and "'intermediate_size'" in found.value.fix


def test_an_absent_key_of_the_nested_model_names_its_place() -> None:
    config = normalise({"text_config": SIZES}, "folder/config.json")
    with pytest.raises(ConfigError) as found:
        _ = config.text.head_count
    assert found.value.where == "folder/config.json, text_config"


def test_a_configuration_reads_like_a_mapping() -> None:
    config = normalise({"vocab_size": 5}, "here")
    assert config["vocab_size"] == config.vocab_size == dict(config)["vocab_size"] == 5
    assert config.get("absent") is None and "absent" not in config
    assert len(config) == len(list(config)) and config.text is config
    with pytest.raises(TypeError):
        config["vocab_size"] = 6  # type: ignore[index]
    with pytest.raises(TypeError):
        config.rope()["rope_theta"] = 1.0  # type: ignore[index]


# Hostile values

BIG = 10**5000
COUNTS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")


@pytest.mark.parametrize("key", [*COUNTS, "num_local_experts", "n_routed_experts"])
@pytest.mark.parametrize("value", [-1, 2**31 + 1, 2**63, 2**64, 1.5, float("nan"), True, "3", [], {}, [3]])
def test_a_count_out_of_bounds_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as found:
        normalise({**SIZES, key: value}, "here")
    assert found.value.where == "here"


@pytest.mark.parametrize("key", COUNTS)
def test_a_count_of_5000_digits_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        normalise({**SIZES, key: BIG}, "here")


def test_no_attention_heads_are_refused() -> None:
    with pytest.raises(ConfigError):
        normalise({**SIZES, "num_attention_heads": 0}, "here")


def test_more_layers_than_any_model_has_are_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        normalise({**SIZES, "num_hidden_layers": 1 << 30}, "here")


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": "yarn"},
        {"rope_scaling": [1]},
        {"rope_parameters": 3},
        {"rope_parameters": {"rope_type": ["default"]}},
        {"rope_scaling": {"type": {"a": 1}, "factor": 2}},
        {"rope_scaling": {"type": 3}},
        {"rope_scaling": {"type": "linear", "factor": "2"}},
        {"rope_scaling": {"type": "linear", "factor": float("nan")}},
        {"rope_scaling": {"type": "linear", "factor": 0}},
        {"rope_scaling": {"type": "linear", "factor": -2.0}},
        {"rope_scaling": {"type": "linear", "factor": True}},
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0}},
        {"rope_theta": "10000"},
        {"rope_theta": -1.0},
        {"rope_theta": 0},
        {"rope_theta": float("inf")},
        {"rope_theta": 10**400},
        {"rope_theta": [1]},
        {"rope_local_base_freq": "x"},
        {"partial_rotary_factor": "x"},
        {"partial_rotary_factor": 2.0},
        {"partial_rotary_factor": -0.5},
        {"layer_types": "full_attention"},
        {"layer_types": [FULL]},
        {"layer_types": 3},
        {"layer_types": [1] * 8},
        {"layer_types": [[]] * 8},
        {"sliding_window": "9"},
        {"sliding_window": -1},
        {"sliding_window": 2.5},
        {"sliding_window": [9]},
        {"sliding_window": 9, "sliding_window_pattern": "x"},
        {"sliding_window": 9, "sliding_window_pattern": -2},
        {"sliding_window": 9, "sliding_window_pattern": [2]},
        {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": "x"},
        {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": [1]},
        {"text_config": 3},
        {"text_config": "x"},
        {"text_config": []},
        {"text_config": {"text_config": {}}},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_malformed_value_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as found:
        normalise({**SIZES, **changes}, "here")
    assert "here" in str(found.value.where)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"x"',
        "true",
        '{"a": 1,}',
        '{"a": \x00}',
        '{"vocab_size": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"text_config":' * 3000 + "{}" + "}" * 3000,
    ],
    ids=range(13),
)
def test_a_file_that_holds_no_object_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as found:
        normalise(read_json(path), str(path))
    assert str(path) in str(found.value.where)


@pytest.mark.parametrize("data", [b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}', b"\x80\x04K\x01."])
def test_a_file_that_is_not_utf8_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ConfigError):
        read_json(tmp_path / "config.json")
