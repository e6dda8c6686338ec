"""Both generations as language models, and the names of their weights."""

import json
from pathlib import Path

import pytest
import torch
import transformers

import bestiary_qwen_vl
from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.errors import ConfigError
from bestiary.testing.conformance import ArchitectureTests, assert_maps
from bestiary.testing.headers import HeaderList
from bestiary_qwen_vl import shape

CHAT = [
    (
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And "}, {"type": "video"}]},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Bye"},
        ],
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>And "
        "<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    )
]
RECORDS = {record.name: record for record in bestiary_qwen_vl.bestiary_architectures()}
PUBLISHED = ("qwen2-vl-7b-olmocr", "configs-sophgo/qwen2-vl-7b", "configs-sophgo/qwen2.5-vl-7b")


class TestQwenVL(ArchitectureTests):
    plugin = bestiary_qwen_vl
    golden_chats = dict.fromkeys(RECORDS, CHAT)


@pytest.mark.parametrize("folder", PUBLISHED)
def test_names_of_transformers_map_at_published_sizes(shared_data: Path, folder: str) -> None:
    """Both as transformers keeps them in memory and as checkpoints are published, with shapes."""
    raw = json.loads((shared_data / "checkpoints" / folder / "config.json").read_text())
    raw.pop("quantization_config", None)
    with torch.device("meta"):
        theirs = getattr(transformers, raw["architectures"][0])(transformers.AutoConfig.for_model(**raw))
    kept = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    published = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): size
        for name, size in kept.items()
    }
    record = RECORDS[raw["architectures"][0]]
    flat, nested = normalise(raw, folder, record.defaults), theirs.config.to_dict()
    for config in (flat, normalise(nested, f"{folder}, saved by transformers 5", record.defaults)):
        model = build_empty(record, config)
        for shapes in (kept, published):
            made = make_plan(record, config, model, HeaderList(shapes))
            assert {*made.recipes, *made.ties} == {name for name, _ in model.named_parameters()}


def test_names_of_a_published_index_map(shared_data: Path) -> None:
    folder = shared_data / "checkpoints" / "qwen2-vl-7b-olmocr"
    names = list(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"])
    config = assert_maps(RECORDS["Qwen2VLForConditionalGeneration"], folder / "config.json", names)
    assert config.text.rope()["mrope_section"] == [16, 24, 24]


VISION = {"embed_dim": 32, "hidden_size": 64, "num_heads": 2}
TEXT = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 9, "intermediate_size": 8}


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": -1},
        {"depth": 10**9},
        {"depth": True},
        {"num_heads": 0},
        {"num_heads": 16},
        {"embed_dim": "32"},
        {"hidden_size": 63},
        {"hidden_act": ["gelu"]},
        {"hidden_act": "unheard_of"},
        {"mlp_ratio": float("nan")},
        {"mlp_ratio": 1e300},
        {"in_channels": 4},
        {"patch_size": [14, 14]},
        {"patch_size": 0},
        {"spatial_merge_size": 0},
        {"temporal_patch_size": 1 << 40},
        {"rope_parameters": {"rope_type": "default"}},
        {"rope_parameters": [1]},
        {"rope_parameters": {"rope_theta": 0}},
    ],
)
def test_impossible_towers_are_refused(changes: dict[str, object]) -> None:
    record = RECORDS["Qwen2VLForConditionalGeneration"]
    config = normalise({**TEXT, "vision_config": {**VISION, **changes}}, "here", record.defaults)
    with pytest.raises(ConfigError):
        build_empty(record, config)


@pytest.mark.parametrize(
    "changes",
    [{"fullatt_block_indexes": 7}, {"fullatt_block_indexes": ["7"]}, {"window_size": 27}, {"tokens_per_second": 0.5}],
)
def test_impossible_windows_are_refused(changes: dict[str, object]) -> None:
    vision = {"hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, **changes}
    with pytest.raises(ConfigError):
        shape.qwen2_5_vl(normalise({**TEXT, "vision_config": vision}, "here"))


@pytest.mark.parametrize("sections", ["abc", 3, [8], [-1, 4, 5], [1, 2, 3], [1.0, 3, 4], [None] * 3])
def test_impossible_sections_are_refused(sections: object) -> None:
    record = RECORDS["Qwen2VLForConditionalGeneration"]
    raw = {**TEXT, "vision_config": VISION, "rope_scaling": {"type": "mrope", "mrope_section": sections}}
    with pytest.raises(ConfigError):
        build_empty(record, normalise(raw, "here", record.defaults))


def test_a_model_without_eyes_is_refused() -> None:
    record = RECORDS["Qwen2VLForConditionalGeneration"]
    with pytest.raises(ConfigError):
        build_empty(record, normalise(TEXT, "here", record.defaults))
