"""Idefics3 and SmolVLM as text models, and the names of their weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from idefics_checkpoints import IDEFICS3_8B, SMOLVLM2_500M, SMOLVLM_256M

import bestiary_idefics
from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.errors import ConfigError, WeightMismatch
from bestiary.records import Architecture
from bestiary.testing.conformance import ArchitectureTests
from bestiary.testing.headers import HeaderList
from bestiary_idefics.model import Connector
from bestiary_idefics.tiny import IDEFICS3

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A bike."}]},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "image"}]},
]
SAID = (
    "System: Be brief.<end_of_utterance>\nUser:<image>What?<end_of_utterance>\n"
    "Assistant: A bike.<end_of_utterance>\nUser: And <image><image><end_of_utterance>\nAssistant:"
)
FILM = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What?"}]}]


class TestIdefics(ArchitectureTests):
    plugin = bestiary_idefics
    golden_chats = {
        "Idefics3ForConditionalGeneration": [(TURNS, f"<s>{SAID}")],
        "SmolVLMForConditionalGeneration": [
            (TURNS, f"<|im_start|>{SAID}"),
            (FILM, "<|im_start|>User: <video>What?<end_of_utterance>\nAssistant:"),
        ],
    }


def _record(name: str) -> Architecture:
    return next(record for record in bestiary_idefics.bestiary_architectures() if record.name == name)


@pytest.mark.parametrize("raw", [SMOLVLM_256M, SMOLVLM2_500M, IDEFICS3_8B], ids=["256M", "500M", "8B"])
def test_published_checkpoints_map(raw: dict[str, Any]) -> None:
    """Names and shapes of transformers' own class, of which every one is used and none is missing."""
    import transformers

    raw = copy.deepcopy(raw)
    record = _record(raw["architectures"][0])
    config = normalise(raw, "config.json", record.defaults)
    made = transformers.AutoConfig.for_model(**{key: value for key, value in raw.items() if key != "architectures"})
    with torch.device("meta"):
        theirs = getattr(transformers, record.name)(made).state_dict()
    empty = build_empty(record, config)
    headers = HeaderList.from_names(list(theirs))
    for name, tensor in theirs.items():
        headers = headers.without(name).with_extra(name, tuple(tensor.shape))
    plan = make_plan(record, config, empty, headers)
    assert {*plan.recipes, *plan.ties} == {name for name, _ in empty.named_parameters()}
    with pytest.raises(WeightMismatch):
        make_plan(record, config, empty, headers.without("model.connector.modality_projection.proj.weight"))


def test_what_a_saved_configuration_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    """A text_config is saved without what equals LlamaConfig's defaults, and a vision_config likewise."""
    import transformers

    record = _record("Idefics3ForConditionalGeneration")
    bare = {"model_type": "idefics3", "text_config": {"model_type": "llama"}, "vision_config": {}}
    theirs = transformers.AutoConfig.for_model(**bare).text_config
    ours = normalise(bare, "config.json", record.defaults).text
    names = [name for name in record.defaults if name != "rope_theta"]
    assert {name: ours[name] for name in names} == {name: getattr(theirs, name) for name in names}
    assert ours.num_key_value_heads == theirs.num_key_value_heads and ours.head_dim == theirs.head_dim
    assert ours.rope()["rope_theta"] == theirs.rope_parameters["rope_theta"]
    empty = build_empty(record, normalise(bare, "config.json", record.defaults))
    assert empty.media.tower.post_layernorm.weight.shape == (1152,)
    assert empty.media.projector.modality_projection["proj"].weight.shape == (4096, 4 * 1152)


@pytest.mark.parametrize(("side", "scale"), [(4, 1), (4, 2), (6, 3), (8, 4)])
def test_pixel_shuffle_is_that_of_transformers(side: int, scale: int) -> None:
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    ours = Connector(5, 7, scale)
    weight = torch.randn(7, 5 * scale**2)
    ours.modality_projection["proj"].weight.data.copy_(weight)
    x = torch.randn(2, side**2, 5)
    shuffled = Idefics3Connector.pixel_shuffle(None, x, scale)
    torch.testing.assert_close(ours(x), shuffled @ weight.T)


@pytest.mark.parametrize("scale", [0, -1, 2.0, True, "2", 1 << 40])
def test_impossible_scale_factors_are_refused(scale: Any) -> None:
    with pytest.raises(ConfigError, match="scale_factor"):
        _built({**IDEFICS3[0], "scale_factor": scale})


def test_another_text_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="llama"):
        _built({**IDEFICS3[0], "text_config": {**IDEFICS3[0]["text_config"], "model_type": "mistral"}})


@pytest.mark.parametrize("vision", [None, [], {"patch_size": 0}, {"image_size": "16"}, {"num_attention_heads": 7}])
def test_impossible_towers_are_refused(vision: Any) -> None:
    part = {**IDEFICS3[0]["vision_config"], **vision} if isinstance(vision, dict) else vision
    with pytest.raises(ConfigError):
        _built({**IDEFICS3[0], "vision_config": part})


def _built(raw: dict[str, Any]) -> torch.nn.Module:
    record = _record("Idefics3ForConditionalGeneration")
    return build_empty(record, normalise(json.loads(json.dumps(raw)), "config.json", record.defaults))
