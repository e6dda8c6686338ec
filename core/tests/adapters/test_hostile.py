"""Adapters that are wrong, by accident or on purpose: each a typed error that says what, where and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.adapters.peft import PeftAdapter, read_peft
from bestiary.adapters.peft_config import parse_config
from bestiary.errors import (
    BestiaryError,
    CheckpointError,
    ConfigError,
    ModelNotFound,
    OptionError,
    UnsafeName,
    WeightMismatch,
)
from bestiary.sources.folder import Folder

NAME = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def case(case_of: Callable) -> Any:
    return case_of("llama")


@pytest.fixture
def adapter(case: Any, train: Callable) -> Path:
    folder: Path = train(case, target_modules=["q_proj", "up_proj"]).folder
    return folder


def read(folder: Path) -> PeftAdapter:
    return read_peft(Folder(folder, "org/adapter"))


def configure(folder: Path, **changes: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def write(folder: Path, change: Callable[[Tensors], Any]) -> Path:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return folder


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"r": 0}, '"r" is 0; a rank of at least 1'),
    ({"r": -4}, "rank of at least 1"),
    ({"r": True}, "rank of at least 1"),
    ({"r": 4.0}, "rank of at least 1"),
    ({"r": 10**6000}, "a very large int"),
    ({"rank_pattern": {"q_proj": 0}}, "rank_pattern, 'q_proj'\" is 0"),
    ({"lora_alpha": float("nan")}, '"lora_alpha" is nan; a finite number'),
    ({"lora_alpha": float("inf")}, "finite number"),
    ({"lora_alpha": "16"}, "finite number"),
    ({"lora_alpha": None}, "finite number"),
    ({"alpha_pattern": {"q_proj": float("nan")}}, "alpha_pattern, 'q_proj'\" is nan"),
    ({"alpha_pattern": ["q_proj"]}, "an object is due"),
    ({"rank_pattern": {"(a+)+b": 4}}, "not a simple one"),
    ({"rank_pattern": {"(a|a)(a|a)(a|a)(a|a)x": 4}}, "not a simple one"),
    ({"rank_pattern": {"a?" * 30 + "a" * 30: 4}}, "not a simple one"),
    ({"rank_pattern": {"(?P<x>a)(?P=x)": 4}}, "not a simple one"),
    ({"rank_pattern": {"x" * 300: 4}}, "not a simple one"),
    ({"rank_pattern": {"q_proj)": 4}}, "unbalanced"),
    ({"peft_type": "LOHA"}, "type 'LOHA'"),
    ({"peft_type": None}, "type None"),
    ({"peft_type": ["LORA"]}, "only LORA"),
    ({"bias": "all"}, "\"bias\" is 'all'"),
    ({"bias": "lora_only"}, "biases"),
    ({"modules_to_save": ["embed_tokens", "lm_head"]}, r"\['embed_tokens', 'lm_head'\]"),
    ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
    ({"init_lora_weights": "loftq"}, "loftq"),
    ({"use_qalora": True}, "use_qalora"),
    ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"lora_bias": True}, "lora_bias"),
    ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    ({"kasa_config": {"beta": 1}}, "kasa_config"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
    ({"use_something_new": 3}, '"use_something_new" is 3'),
    ({"use_rslora": "yes"}, "true or false"),
    ({"use_dora": 1}, "true or false"),
    ({"layers_to_transform": "all"}, "numbers of layers"),
    ({"target_parameters": "experts"}, "list of names"),
    ({"target_modules": [1]}, "list of names"),
]


@pytest.mark.parametrize(("changes", "said"), CONFIGS, ids=[said for _, said in CONFIGS])
def test_configurations(changes: dict[str, Any], said: str, adapter: Path) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        parse_config(json.loads((adapter / "adapter_config.json").read_text()) | changes, "here")
    assert found.value.where == "here" and len(found.value.what) < 400


def test_what_is_switched_off_changes_nothing(adapter: Path) -> None:
    before = read(adapter).config
    configure(adapter, modules_to_save=[], use_something_new=False, a_newer_config=None, alora_invocation_tokens=[])
    assert read(adapter).config == before


TENSORS: list[tuple[Callable[[Tensors], Any], type[BestiaryError], str]] = [
    (lambda tensors: tensors.pop(f"{NAME}.lora_A.weight"), CheckpointError, "no lora_A, which lora_B needs"),
    (lambda tensors: tensors.pop(f"{NAME}.lora_B.weight"), CheckpointError, "no lora_B, which lora_A needs"),
    (lambda tensors: tensors[f"{NAME}.lora_B.weight"].fill_(torch.nan), CheckpointError, "not finite"),
    (lambda tensors: tensors[f"{NAME}.lora_A.weight"][1, 2:3].fill_(-torch.inf), CheckpointError, "not finite"),
    (lambda tensors: tensors.clear(), CheckpointError, "no tensors of an adapter"),
    (lambda tensors: tensors.update({f"{NAME}.lora_A.weight": torch.ones(3, 64)}), CheckpointError, "with rank 4"),
    (lambda tensors: tensors.update({f"{NAME}.lora_A.weight": torch.ones(64)}), CheckpointError, "is no adapter"),
    (lambda tensors: tensors.update({f"{NAME}.lora_A.weight": torch.ones(4, 0)}), CheckpointError, "is no adapter"),
    (
        lambda tensors: tensors.update({f"{NAME}.lora_A.weight": torch.ones(4, 64, dtype=torch.int32)}),
        CheckpointError,
        "floating-point",
    ),
    (lambda tensors: tensors.update({f"{NAME}.lora_B.bias": torch.ones(64)}), CheckpointError, "is no part of"),
    (lambda tensors: tensors.update({"x.lora_embedding_A": torch.ones(4, 8)}), CheckpointError, "an embedding"),
    (lambda tensors: tensors.update({"x.lora_velora_embed": torch.ones(4)}), CheckpointError, "is no part of"),
    (lambda tensors: tensors.update({"x.modules_to_save.weight": torch.ones(4)}), CheckpointError, "is no part of"),
    (
        lambda tensors: tensors.update({f"{NAME}.lora_A.other.weight": torch.ones(4, 64)}),
        CheckpointError,
        "more than one adapter",
    ),
    (
        lambda tensors: tensors.update({f"{NAME.removeprefix('base_model.model.')}.lora_A.weight": torch.ones(4, 64)}),
        CheckpointError,
        "more than one adapter",
    ),
    (
        lambda tensors: tensors.update({f"{NAME}.lora_magnitude_vector": torch.ones(64)}),
        CheckpointError,
        "a magnitude, and use_dora is False",
    ),
    (
        lambda tensors: tensors.update(
            {"y.z_proj.lora_A.weight": torch.ones(4, 1), "y.z_proj.lora_B.weight": torch.ones(1, 4)}
        ),
        CheckpointError,
        "does not name y.z_proj",
    ),
    (
        lambda tensors: tensors.update(
            {f"{'x.' * 300}q_proj.lora_{part}.weight": torch.ones(4, 4) for part in "AB"},
        ),
        CheckpointError,
        "is no part of",
    ),
]


@pytest.mark.parametrize(("change", "kind", "said"), TENSORS, ids=[said for _, _, said in TENSORS])
def test_tensors(change: Callable[[Tensors], Any], kind: type[BestiaryError], said: str, adapter: Path) -> None:
    with pytest.raises(kind, match=said) as found:
        read(write(adapter, change))
    assert str(adapter) in str(found.value) and len(found.value.what) < 400


def test_files(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:100], whole[:-1], b"\xff" * 64, b"PK\x03\x04" + bytes(64)):
        weights.write_bytes(content)
        with pytest.raises(CheckpointError):
            read(adapter)
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"only adapter_model\.bin: opening that would run code") as found:
        read(adapter)
    assert "safetensors" in str(found.value.fix)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors\."):
        read(adapter)
    for content in (b"", b"[]", b"{", b'{"r": 1e999}' + bytes(3), b"[" * 100_000):
        (adapter / "adapter_config.json").write_bytes(content)
        with pytest.raises(ConfigError):
            read(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ModelNotFound, match="no adapter in PEFT's format"):
        read(adapter)
    with pytest.raises((ModelNotFound, UnsafeName)):
        read_peft(Folder(adapter, "it"), "../../etc")


def test_limits(adapter: Path) -> None:
    with pytest.raises(OptionError, match="rank 4; the limit is 3"):
        read_peft(Folder(adapter, "it"), most_rank=3)
    with pytest.raises(OptionError, match="the limit is 100"):
        read_peft(Folder(adapter, "it"), most_bytes=100)
    with pytest.raises(OptionError, match="rank 300; the limit is 256"):
        read(configure(adapter, rank_pattern={"up_proj": 300}))


def test_other_layers_than_the_configuration_names(adapter: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not name model\.layers\.[12]\.") as found:
        read(configure(adapter, layers_to_transform=[0]))
    assert "adapter_model.safetensors" in str(found.value.where)
    with pytest.raises(CheckpointError, match="does not name"):
        read(configure(adapter, layers_to_transform=None, target_modules=["up_proj"]))


def test_the_wrong_model(case: Any, case_of: Callable, train: Callable) -> None:
    other = train(case_of("qwen"), target_modules=["q_proj", "shared_expert.down_proj", "shared_expert_gate"]).read()
    with pytest.raises(WeightMismatch, match="The adapter does not fit the model") as found:
        case.adapters().load("it", other)
    assert found.value.what.count("which the adapter changes") == 6 and "base model" in str(found.value.fix)
    wide = train(case, target_modules=["q_proj"], layers_to_transform=[1])
    write(
        wide.folder, lambda tensors: tensors.update({name: torch.ones(4, 96) for name in tensors if "lora_A" in name})
    )
    with pytest.raises(WeightMismatch, match=r"shape \[64, 96\]; the model's has \[64, 64\]") as found:
        case.adapters().load("it", read(wide.folder))
    assert found.value.misshaped == {"model.layers.1.self_attn.q_proj": ((64, 96), (64, 64))}


def test_what_is_no_linear_layer(case_of: Callable, train: Callable, tmp_path: Path) -> None:
    """The router of experts has a weight, and is no layer that adapters can change."""
    qwen = case_of("qwen")
    router = train(qwen, target_modules=["q_proj"], target_parameters=["mlp.gate.weight"])
    with pytest.raises(WeightMismatch, match=r"mlp\.gate\.weight, which is no linear layer but part of Router"):
        qwen.adapters().load("it", router.read())


def test_magnitudes(case: Any, train: Callable) -> None:
    trained = train(case, target_modules=["q_proj"], use_dora=True)
    assert read(trained.folder).config.dora
    for change, said in (
        (lambda tensors: tensors.pop(f"{NAME}.lora_magnitude_vector"), "no magnitude, and use_dora is True"),
        (
            lambda tensors: tensors.update({f"{NAME}.lora_magnitude_vector": torch.ones(63)}),
            r"magnitude of shape \[63\] for 64 rows",
        ),
    ):
        with pytest.raises(CheckpointError, match=said):
            read(write(trained.folder, change))


def test_many_strangers(case: Any, tmp_path: Path) -> None:
    """Thousands of modules that the model does not have are one message of some lines."""
    tensors = {}
    for index in range(4000):
        for part, shape in (("A", (1, 2)), ("B", (2, 1))):
            tensors[f"model.layers.{index}.{'a' * 60}.q_proj.lora_{part}.weight"] = torch.ones(shape)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "rank_pattern": {"a*a*a*b": 1}, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightMismatch, match="and more") as found:
        case.adapters().load("it", read(tmp_path))
    assert len(found.value.what.splitlines()) == 22


def test_patterns_that_are_taken(adapter: Path) -> None:
    """What PEFT writes, and what people do: paths without number, and a few expressions."""
    paths = {f"model.layers.{index}.self_attn.q_proj": index + 1 for index in range(200)}
    given = {r"^model\.layers\.[0-2]\.mlp\.(gate|up)_proj$": 9, r".*\.layers\.\d+\..*up_proj": 3, "o_proj": 5, **paths}
    config = parse_config({"peft_type": "LORA", "rank_pattern": given}, "here")
    for path, rank in (
        ("model.layers.1.mlp.up_proj", 9),
        ("model.layers.7.mlp.up_proj", 3),
        ("model.layers.7.self_attn.q_proj", 8),
        ("x.model.layers.7.self_attn.q_proj", 8),
        ("model.layers.0.self_attn.o_proj", 5),
        ("model.layers.0.self_attn.no_proj", 8),
    ):
        assert config.rank_of(path) == rank
    with pytest.raises(ConfigError, match="not a simple one"):
        parse_config({"peft_type": "LORA", "rank_pattern": {f".*{index}": 4 for index in range(17)}}, "here")
