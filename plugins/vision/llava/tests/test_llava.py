"""LLaVA and LLaVA-NeXT against transformers: the text model, the weights, the published configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers

import bestiary_llava
from bestiary.building import build_empty, make_plan
from bestiary.config import Config, normalise
from bestiary.errors import ConfigError
from bestiary.generation.template import ChatTemplate
from bestiary.identity import identify
from bestiary.records import Architecture, Evidence, resolve
from bestiary.registry import default_registry
from bestiary.testing.conformance import ArchitectureTests
from bestiary.testing.headers import HeaderList

LLAVA, NEXT = "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration"
PICTURE, WORDS = {"type": "image"}, {"type": "text", "text": "Which is older?"}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
    {"role": "user", "content": [PICTURE, WORDS, PICTURE]},
]
VICUNA = "<s>Be brief. USER: Hi ASSISTANT: Hello.</s>USER: <image>\n<image>\nWhich is older? ASSISTANT:"
MISTRAL = "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] <image>\n<image>\nWhich is older? [/INST]"
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    "<|im_start|>user\n<image>\n<image>\nWhich is older?<|im_end|>\n<|im_start|>assistant\n"
)
CHATS = {
    (LLAVA, "llama"): VICUNA,
    (LLAVA, "mistral"): VICUNA,
    (LLAVA, "qwen2"): CHATML,
    (NEXT, "llama"): VICUNA,
    (NEXT, "mistral"): MISTRAL,
    (NEXT, "qwen2"): CHATML,
}

# What config.json of the published checkpoints says.
CLIP = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
SHARED = {
    "ignore_index": -100,
    "image_token_index": 32000,
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": CLIP,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
VICUNA_7B = {
    "_name_or_path": "lmsys/vicuna-7b-v1.5",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
MISTRAL_7B = {
    "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
    "architectures": ["MistralForCausalLM"],
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "vocab_size": 32064,
}
QWEN_500M = {
    "_name_or_path": "Qwen/Qwen1.5-0.5B-Chat",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "torch_dtype": "bfloat16",
    "vocab_size": 152000,
}
SO400M = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
    "vision_use_head": False,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "llava-1.5-7b-hf": {**SHARED, "architectures": [LLAVA], "model_type": "llava", "text_config": VICUNA_7B},
    "llava-v1.6-vicuna-7b-hf": {
        **SHARED,
        "architectures": [NEXT],
        "model_type": "llava_next",
        "image_grid_pinpoints": PINPOINTS,
        "text_config": VICUNA_7B,
        "use_image_newline_parameter": True,
    },
    "llava-v1.6-mistral-7b-hf": {
        **SHARED,
        "architectures": [NEXT],
        "model_type": "llava_next",
        "image_grid_pinpoints": PINPOINTS,
        "text_config": MISTRAL_7B,
        "use_image_newline_parameter": True,
    },
    "llava-interleave-qwen-0.5b-hf": {
        **SHARED,
        "architectures": [LLAVA],
        "model_type": "llava",
        "image_token_index": 151646,
        "text_config": QWEN_500M,
        "vision_config": SO400M,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    },
}


def found(config: Mapping[str, Any]) -> Architecture:
    return identify(Evidence(("config.json",), config), default_registry())[0]


def read(config: Mapping[str, Any]) -> tuple[Architecture, Config]:
    architecture = found(config)
    return architecture, normalise(config, "config.json", architecture.defaults)


class TestLlava(ArchitectureTests):
    plugin = bestiary_llava

    def test_fallback_template(self, architecture: Architecture) -> None:
        assert architecture.chat_template is not None
        special = {"bos_token": "<s>", "eos_token": "</s>"}
        template = ChatTemplate(architecture.chat_template.jinja, source=architecture.name, special_tokens=special)
        expected = CHATS[architecture.name, architecture.defaults["model_type"]]
        assert template.render(TURNS, add_generation_prompt=True) == expected


def reference(config: Mapping[str, Any]) -> Any:
    """transformers' model on the meta device."""
    values = {key: value for key, value in config.items() if key != "architectures"}
    with torch.device("meta"):
        return getattr(transformers, config["architectures"][0])(transformers.AutoConfig.for_model(**values))


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def published(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """A configuration, and transformers' shapes by the names that it has in memory."""
    config = PUBLISHED[request.param]
    return config, {name: tuple(tensor.shape) for name, tensor in reference(config).state_dict().items()}


def as_published(name: str) -> str:
    """A name in memory as files have it since before transformers 4.52."""
    name = name.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head")
    return name.removeprefix("model.").replace("vision_tower.", "vision_tower.vision_model.")


@pytest.mark.parametrize("layout", ["memory", "saved", "published"])
def test_published_names_map(published: tuple[dict[str, Any], dict[str, tuple[int, ...]]], layout: str) -> None:
    config, shapes = published
    if layout != "memory":
        shapes = {as_published(name): shape for name, shape in shapes.items()}
    if layout == "saved":
        shapes = {name.replace("vision_tower.vision_model.", "vision_tower."): shape for name, shape in shapes.items()}
    architecture, normalised = read(config)
    empty = build_empty(architecture, normalised)
    plan = make_plan(architecture, normalised, empty, HeaderList(shapes))
    assert {*plan.recipes, *plan.ties} == {name for name, _ in empty.named_parameters()}
    assert not plan.dropped


def test_what_published_files_have_besides_is_dropped() -> None:
    config = PUBLISHED["llava-1.5-7b-hf"]
    shapes = {as_published(name): tuple(tensor.shape) for name, tensor in reference(config).state_dict().items()}
    spare = {
        "vision_tower.vision_model.embeddings.position_ids": (1, 577),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": (64,),
    }
    architecture, normalised = read(config)
    plan = make_plan(architecture, normalised, build_empty(architecture, normalised), HeaderList({**shapes, **spare}))
    assert set(plan.dropped) == set(spare)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_what_text_config_leaves_out_is_as_in_transformers(name: str) -> None:
    config = PUBLISHED[name]
    theirs = transformers.AutoConfig.for_model(**{k: v for k, v in config.items() if k != "architectures"}).text_config
    ours = read(config)[1].text
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    keys += ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings")
    assert {key: ours[key] for key in keys} == {key: getattr(theirs, key) for key in keys}
    assert ours.rope()["rope_theta"] == theirs.rope_parameters["rope_theta"]
    assert {ours.window(layer) for layer in range(ours.num_hidden_layers)} == {None}


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("name", ["Llava", "LlavaNext"])
def test_all_defaults_are_those_of_transformers(name: str, kind: str) -> None:
    theirs = getattr(transformers, f"{name}Config")(text_config={"model_type": kind})
    config = {"architectures": [f"{name}ForConditionalGeneration"], "text_config": {"model_type": kind}}
    architecture, normalised = read(config)
    for key, value in architecture.defaults.items():
        # Of Qwen2 a window without `use_sliding_window` is none.
        assert (
            key == "qkv_bias"
            or (kind, key) == ("qwen2", "sliding_window")
            or theirs.text_config.to_dict()[key] == value
        )
    assert normalised.text.window(0) == theirs.text_config.to_dict().get("sliding_window")
    model = reference({**theirs.to_dict(), **config})
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    make_plan(architecture, normalised, build_empty(architecture, normalised), HeaderList(shapes))


def test_the_text_model_decides_the_record() -> None:
    for name, model_type in ((LLAVA, "llava"), (NEXT, "llava_next")):
        for text in ("llama", "mistral", "qwen2"):
            stated = {"text_config": {"model_type": text}}
            for config in ({"architectures": [name], **stated}, {"model_type": model_type, **stated}):
                record = found(config)
                assert (record.name, record.defaults["model_type"]) == (name, text)
        assert found({"architectures": [name]}).defaults["model_type"] == "llama"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vision_feature_layer", {"vision_feature_layer": 4}),
        ("vision_feature_layer", {"vision_feature_layer": []}),
        ("vision_feature_layer", {"vision_feature_layer": [-1, "2"]}),
        ("vision_feature_layer", {"vision_feature_layer": True}),
        ("vision_feature_select_strategy", {"vision_feature_select_strategy": "cls"}),
        ("projector", {"multimodal_projector_bias": "yes"}),
        ("activation", {"projector_hidden_act": "sine"}),
        ("image_size", {"vision_config": {"model_type": "clip_vision_model", "image_size": "big"}}),
        ("patch", {"vision_config": {"model_type": "clip_vision_model", "image_size": 7, "patch_size": 14}}),
        ("vision tower", {"vision_config": {"model_type": ["clip_vision_model"]}}),
        ("vision_config", {"vision_config": "clip"}),
        ("vision_feature_select_strategy", {"vision_feature_select_strategy": ["default"]}),
        ("text model", {"text_config": {"model_type": ["llama"]}}),
        ("pixtral", {"vision_config": {"model_type": "pixtral"}}),
        ("gemma", {"text_config": {"model_type": "gemma"}}),
    ],
)
def test_malformed_configurations_are_refused(name: str, change: dict[str, Any]) -> None:
    config = {**resolve("bestiary_llava.tiny:LLAVA_LLAMA")[0], **change}
    with pytest.raises(ConfigError, match=name):
        build_empty(*read(config))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows of a tile", {"vision_feature_select_strategy": "full"}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": [[28, 50]]}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": [28, 56]}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": "anyres_max_9"}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": [[28, 28 << 20]]}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": [[28 * 200, 28 * 200]]}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": [[28, 0]]}),
        ("image_grid_pinpoints", {"image_grid_pinpoints": [[28, True]]}),
    ],
)
def test_malformed_grids_are_refused(name: str, change: dict[str, Any]) -> None:
    config = {**resolve("bestiary_llava.tiny:LLAVA_NEXT_LLAMA")[0], **change}
    with pytest.raises(ConfigError, match=name):
        build_empty(*read(config))
