"""Files of X-LoRA models: what is found in them, and what is refused before it does harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from safetensors.torch import save_file

from bestiary.adapters.xlora_config import parse_order, parse_xlora_config
from bestiary.adapters.xlora_files import XLora, read_xlora
from bestiary.errors import BestiaryError, CheckpointError, ConfigError, ModelNotFound, OptionError
from bestiary.sources.folder import Folder

CONFIG = {"hidden_size": 8, "adapters": ["adapter_1", "adapter_2"], "xlora_depth": 2, "xlora_size": 5}
CLASSIFIER = {
    "inner.0.weight": torch.ones(5, 8),
    "inner.0.bias": torch.ones(5),
    "last.weight": torch.ones(2, 5),
}


def adapter(folder: Path, **config: Any) -> None:
    folder.mkdir(parents=True)
    given = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(given))
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Folder]:
    def write(config: Any = CONFIG, classifier: dict = CLASSIFIER, names: tuple = ("adapter_1", "adapter_2")) -> Folder:
        for name in names:
            adapter(tmp_path / name)
        (tmp_path / "xlora_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        save_file(classifier, tmp_path / "xlora_classifier.safetensors")
        return Folder(tmp_path, "x")

    return write


def widths(xlora: XLora) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape) for layer in xlora.classifier]


def test_it_is_found(make: Callable) -> None:
    xlora = read_xlora(make())
    assert widths(xlora) == [(5, 8), (2, 5)]
    assert [layer.bias is None for layer in xlora.classifier] == [False, True]
    assert (len(xlora.adapters), xlora.layer_count, xlora.config.relu) == (2, 1, False)


def test_layers_are_ordered_by_number_and_not_by_name(make: Callable) -> None:
    inner = {f"inner.{number}.weight": torch.full((5, 5), float(number)) for number in (10, 3, 2)}
    classifier = {"inner.1.weight": torch.ones(5, 8), **inner, "last.weight": torch.ones(2, 5)}
    xlora = read_xlora(make({**CONFIG, "xlora_depth": 5}, classifier))
    assert [float(layer.weight[0, 0]) for layer in xlora.classifier] == [1, 2, 3, 10, 1]


def test_an_ordering_names_the_adapters_and_their_order(tmp_path: Path, make: Callable) -> None:
    repository = make(names=("somewhere/adapter_2", "adapter_1", "adapter_10"))
    xlora = read_xlora(repository, {"order": ["adapter_2", "adapter_1"], "base_model_id": "any"})
    assert len(xlora.adapters) == 2
    weights = tmp_path / "somewhere/adapter_2/adapter_model.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"."):
        read_xlora(Folder(tmp_path, "x"), {"order": ["adapter_2", "adapter_1"]})


def test_folders_are_found_by_the_paths_of_the_training(make: Callable) -> None:
    config = {**CONFIG, "adapters": {"0": "/home/me/adapter_1", "1": "D:\\runs\\adapter_2"}}
    assert len(read_xlora(make(config)).adapters) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 1 << 70}, "hidden_size"),
        ({"xlora_depth": -1}, "xlora_depth"),
        ({"xlora_depth": 10**9}, "xlora_depth"),
        ({"softmax_temperature": 0}, "softmax_temperature"),
        ({"softmax_temperature": float("nan")}, "softmax_temperature"),
        ({"global_scaling_weight": float("inf")}, "global_scaling_weight"),
        ({"scaling_pass_value": "1"}, "scaling_pass_value"),
        ({"layerwise_scalings": "yes"}, "layerwise_scalings"),
        ({"top_k_lora": 3}, "of 2 adapters"),
        ({"top_k_lora": 0}, "top_k_lora"),
        ({"adapters": "adapter_1"}, "adapters"),
        ({"adapters": [1]}, "adapters"),
        ({"adapters": ["a"] * 1000}, "adapters"),
        ({"adapters": []}, "names no"),
        ({"adapters": ["adapter_1", "adapter_3"]}, "no adapter 'adapter_3' here"),
        ({"adapters": ["../adapter_1", "/etc/passwd"]}, "no adapter '/etc/passwd' here"),
        ({"topk_lora": 2}, "not supported"),
    ],
)
def test_configurations_that_are_refused(change: dict, message: str, make: Callable) -> None:
    with pytest.raises(ConfigError, match=message):
        read_xlora(make({**CONFIG, **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last.weight": torch.ones(3, 5)}, "makes 3 scalings for 2 adapters"),
        ({"last.weight": torch.ones(2, 4)}, "reads 4 numbers and is given 5"),
        ({"last.weight": torch.ones(10)}, "has the shapes"),
        ({"last.weight": torch.full((2, 5), torch.nan)}, "finite"),
        ({"last.weight": torch.ones(2, 5, dtype=torch.int64)}, "floating-point"),
        ({"inner.0.bias": torch.ones(1)}, "has the shapes"),
        ({"inner.1.weight": torch.ones(5, 5)}, "has 3 layers"),
        ({"inner.99999999999.weight": torch.ones(5, 5)}, "no part of"),
        ({"other": torch.ones(1)}, "no part of"),
        ({"model.internal_xlora_classifier.last.weight": torch.ones(2, 5)}, "second"),
    ],
)
def test_classifiers_that_are_refused(change: dict, message: str, make: Callable) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_xlora(make(CONFIG, {**CLASSIFIER, **change}))


def test_a_classifier_that_was_cut_short_says_why(tmp_path: Path, make: Callable) -> None:
    make()
    config = {**CONFIG, "peft_type": "XLORA", "adapters": {"0": "adapter_1", "1": "adapter_2"}}
    (tmp_path / "xlora_config.json").unlink()
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.internal_xlora_classifier.layers"
    save_file({f"{prefix}.3.weight": torch.ones(2, 5)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="has 1 layers") as caught:
        read_xlora(Folder(tmp_path, "x"))
    assert "PEFT" in (caught.value.fix or "")
    save_file(
        {f"{prefix}.3.weight": torch.ones(2, 5), f"{prefix}.0.weight": torch.ones(5, 8)},
        tmp_path / "adapter_model.safetensors",
    )
    assert read_xlora(Folder(tmp_path, "x")).config.relu


def test_files_that_are_absent(tmp_path: Path, make: Callable) -> None:
    with pytest.raises(ModelNotFound, match="xlora_config"):
        read_xlora(Folder(tmp_path, "x"))
    make()
    (tmp_path / "xlora_classifier.safetensors").rename(tmp_path / "xlora_classifier.pt")
    with pytest.raises(CheckpointError, match=r"no xlora_classifier\.safetensors"):
        read_xlora(Folder(tmp_path, "x"))


def test_several_configurations_are_told(tmp_path: Path, make: Callable) -> None:
    make()
    (tmp_path / "a").mkdir()
    (tmp_path / "xlora_config.json").rename(tmp_path / "a/xlora_config.json")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/xlora_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="more than one"):
        read_xlora(Folder(tmp_path, "x"))


def test_limits_and_kinds_of_adapters(tmp_path: Path, make: Callable) -> None:
    repository = make()
    with pytest.raises(OptionError, match="bytes"):
        read_xlora(repository, most_bytes=sum(repository.files().values()) // 2)
    with pytest.raises(OptionError, match="rank 2"):
        read_xlora(repository, most_rank=1)
    adapter(tmp_path / "dora", use_dora=True)
    weights = tmp_path / "dora/adapter_model.safetensors"
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file({**tensors, f"{name}.lora_magnitude_vector": torch.ones(8)}, weights)
    with pytest.raises(ConfigError, match="DoRA"):
        read_xlora(Folder(tmp_path, "x"), {"order": ["adapter_1", "dora"]})


def test_a_foreign_base_is_told(make: Callable) -> None:
    with pytest.raises(ConfigError, match="for 'other', the X-LoRA model for 'mine'"):
        read_xlora(make({**CONFIG, "base_model_id": "mine"}), {"base_model_id": "other"})


@pytest.mark.parametrize(
    "order",
    [
        {"order": "adapter_1"},
        {"order": []},
        {"order": ["a", "a"]},
        {"order": [3]},
        {"order": ["a"] * 1000},
        {"layers": {"a": -1}},
        {"layers": {"a": True}},
        {"layers": {"a": 10**12}},
        {"layers": ["a"]},
        {"preload_adapters": [{"name": "a", "adapter_model_id": "b"}]},
        {"ordre": ["a"]},
    ],
)
def test_orderings_that_are_refused(order: dict) -> None:
    with pytest.raises(ConfigError):
        parse_order(order)


def test_json_that_is_none_is_refused(make: Callable) -> None:
    with pytest.raises(ConfigError):
        read_xlora(make("[" * 100_000))


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = some.sampled_from([*CONFIG, "softmax_temperature", "top_k_lora", "order", "layers", "enable_softmax", "x"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.dictionaries(KEYS, JSON, max_size=6))
def test_any_json_is_read_or_refused(raw: dict) -> None:
    for parse in (lambda: parse_xlora_config(raw, "here"), lambda: parse_order(raw)):
        try:
            parse()
        except BestiaryError as error:
            assert error.what
