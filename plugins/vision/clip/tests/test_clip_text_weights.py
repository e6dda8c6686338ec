"""The names and shapes of text encoders: as published, as transformers saves them, and as files alone tell them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary_clip
from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.errors import WeightMismatch
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import Architecture, SourceOptions, resolve
from bestiary.registry import default_registry
from bestiary.testing.headers import HeaderList
from bestiary.testing.reference import make_reference
from bestiary_clip.describe import describe
from bestiary_clip.text import ClipText
from bestiary_clip.tiny import HALF, PROJECTED

RECORDS = {record.name: record for record in bestiary_clip.bestiary_architectures()}
LARGE: dict[str, Any] = {  # openai/clip-vit-large-patch14, the first text encoder of FLUX, SD 1, SDXL and SD 3
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 768,
    "vocab_size": 49408,
    "eos_token_id": 2,
}
GIANT: dict[str, Any] = {  # OpenCLIP's ViT-bigG/14, the second of SDXL and SD 3
    **LARGE,
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
WHOLE: dict[str, Any] = {
    **HALF[0],
    "text_config": {**HALF[0]["text_config"], "hidden_size": 128, "num_attention_heads": 2},
}
Shapes = Mapping[str, tuple[int, ...]]


def published(values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of transformers' model, under the names in which they are published."""
    import transformers

    name = values["architectures"][0]
    config = transformers.AutoConfig.for_model(**{k: v for k, v in values.items() if k != "architectures"})
    with torch.device("meta"):
        model = getattr(transformers, name)(config)
    prefix = "text_model." if name == "CLIPTextModel" else ""
    return {prefix + key: tuple(weight.shape) for key, weight in model.state_dict().items()}


def saved(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("text_model."): shape for name, shape in shapes.items()}


def check(record: Architecture, values: Mapping[str, Any], shapes: Shapes) -> tuple[str, ...]:
    """The tensors that the plan of such a checkpoint drops; every other one becomes a parameter."""
    config = normalise(values, "the test", record.defaults)
    plan = make_plan(record, config, build_empty(record, config), HeaderList(shapes))
    assert not plan.ties
    return plan.dropped


def test_the_configuration_of_flux_maps(shared_data: Path) -> None:
    path = shared_data / "checkpoints/flux.1-schnell-bnb8/text_encoder/config.json"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    values = json.loads(path.read_text())
    record, shapes = RECORDS["CLIPTextModel"], published(values)
    assert len(shapes) == 196
    assert check(record, values, shapes) == check(record, values, saved(shapes)) == ()
    # Every key that builds the network follows from the tensors; the end token of old configurations is another name.
    told = describe(shapes)
    assert told is not None
    assert {key: values[key] for key in told if key != "eos_token_id"} | {"eos_token_id": 49407} == told


@pytest.mark.parametrize("values", [LARGE, {**LARGE, "architectures": ["CLIPTextModelWithProjection"]}, GIANT, WHOLE])
def test_published_encoders_map_and_are_described(values: dict[str, Any]) -> None:
    record, shapes = RECORDS[values["architectures"][0]], published(values)
    dropped = check(record, values, shapes)
    assert all(name.startswith(("vision_model.", "visual_projection.", "logit_scale")) for name in dropped)
    told = describe(shapes)
    assert told is not None and told["architectures"] == [record.name]
    for other in RECORDS.values():
        assert resolve(other.describe or "")(shapes) == (told if other is record else None)
    assert check(record, told, shapes) == dropped
    text = values.get("text_config", values)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"):
        assert told.get("text_config", told)[key] == text[key]
    assert told.get("projection_dim", values["projection_dim"]) == values["projection_dim"]


@pytest.mark.parametrize("name", RECORDS)
@torch.no_grad()
def test_a_file_alone_is_loaded(name: str, tmp_path: Path) -> None:
    """As image models publish it: one file, and nothing that says what it is."""
    values = resolve(RECORDS[name].tiny or "")[0]
    wide = {"hidden_size": 128, "num_attention_heads": 2}
    values = {**values, "text_config": {**values["text_config"], **wide}} if name == "CLIPModel" else {**values, **wide}
    model = make_reference(values, tmp_path).model
    (tmp_path / "config.json").unlink()
    registry = default_registry()
    identified = identify_model(str(tmp_path), SourceOptions(offline=True), registry)
    assert identified.architecture.name == name
    made = load_weights(identified, registry, dtype="float32", device="cpu").model
    assert isinstance(made, ClipText)
    tokens = torch.tensor([[97, 5, 6, 98, 98]])
    text_model = model if name == "CLIPTextModel" else model.text_model
    expected = text_model(tokens).last_hidden_state
    assert float((made(tokens)[0] - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_old_files_list_positions_and_more_than_the_class_has() -> None:
    shapes = published(LARGE)
    beside = {"text_model.embeddings.position_ids": (1, 77), "logit_scale": (), "text_projection.weight": (768, 768)}
    assert set(check(RECORDS["CLIPTextModel"], LARGE, {**shapes, **beside})) == set(beside)
    bare = {**saved(shapes), "embeddings.position_ids": (1, 77)}
    assert check(RECORDS["CLIPTextModel"], LARGE, bare) == ("embeddings.position_ids",)
    told = describe({**shapes, **beside})
    assert told is not None and told["architectures"] == ["CLIPTextModelWithProjection"]
    assert (describe(bare) or {})["architectures"] == ["CLIPTextModel"]


def test_plans_are_exact() -> None:
    values = PROJECTED[0]
    record, shapes = RECORDS["CLIPTextModelWithProjection"], published(PROJECTED[0])
    for name in shapes:
        with pytest.raises(WeightMismatch) as found:
            check(record, values, HeaderList(shapes).without(name).shapes)
        assert name in found.value.missing
    with pytest.raises(WeightMismatch) as found:
        check(record, values, {**shapes, "text_model.head.weight": (3, 3)})
    assert found.value.unexpected == ("text_model.head.weight",)


def test_other_tensors_are_not_described() -> None:
    shapes = published({**LARGE, "hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2})
    assert describe(shapes) is not None
    for name, shape in shapes.items():
        assert describe(HeaderList(shapes).without(name).shapes) is None, name
        assert describe({**shapes, name: (*shape, 1)}) is None, name
        assert describe({**shapes, name: (shape[0] + 1, *shape[1:])}) is None or "embedding" in name, name
    assert describe({}) is None
    assert describe({**shapes, "logit_bias": (1,)}) is None  # SigLIP's
    assert describe({**shapes, "text_model.encoder.layers.9999.mlp.fc1.weight": (8, 8)}) is None
    assert describe({**shapes, "vision_model.post_layernorm.weight": (128,)}) is None
    assert describe({f"model.{name}": shape for name, shape in shapes.items()}) is None
    assert describe(dict.fromkeys(shapes, ())) is None
    assert describe(published(PROJECTED[0])) is None  # heads of 8
