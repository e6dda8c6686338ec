"""The tensor names of real checkpoints map on the networks of their real configurations."""

import json
from pathlib import Path

import pytest

from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.identity import identify
from bestiary.records import Architecture, Evidence
from bestiary.registry import default_registry
from bestiary.testing.conformance import assert_maps
from bestiary.testing.headers import HeaderList

INDEXED = {
    "llama-3-8b-lexi": 291,
    "llama-3.2-3b": 254,
    "smollm-135m": 272,
    "mistral-7b-instruct": 291,
    "mistral-devstral-small-2507": 363,
    "qwen2-cogito-14b": 579,
    "qwen2.5-3b": 434,
    "qwen3-mlx": 310,
    "gemma-2b-it": 164,
}
CONFIGURED = (
    "llama-2-7b-chat",
    "llama-3.2-3b-sophgo",
    "mistral-7b-instruct-v0.2",
    "yi-6b-chat",
    "qwen1.5-7b",
    "qwen2-7b",
    "qwen2.5-7b",
    "qwen3-4b",
)


def named_by(config: Path) -> Architecture:
    """The architecture that the installed plugins see in a config.json."""
    evidence = Evidence(("config.json",), json.loads(config.read_text()), origin=str(config))
    return identify(evidence, default_registry())[0]


def names_in(index: Path) -> list[str]:
    return list(json.loads(index.read_text())["weight_map"])


@pytest.mark.parametrize("name", INDEXED)
def test_real_names_map(shared_data: Path, name: str) -> None:
    folder = shared_data / "checkpoints" / name
    names = names_in(folder / "model.safetensors.index.json")
    assert len(names) == INDEXED[name]
    assert_maps(named_by(folder / "config.json"), folder / "config.json", names)


def test_the_text_part_of_gemma_3_maps(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "checkpoints/gemma3-27b-it-medgemma"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads((folder / "config.json").read_text())["text_config"]))
    names = names_in(folder / "model.safetensors.index.json")
    text = [name.removeprefix("language_model.") for name in names if name.startswith("language_model.")]
    made = assert_maps(named_by(config), config, text)
    assert len(text) == 808 and made.layer_types.count("full_attention") == 10


def test_old_llama_checkpoints_carry_rotary_frequencies(shared_data: Path) -> None:
    """Checkpoints of 2023 hold inv_freq, which is computed and not loaded."""
    folder = shared_data / "checkpoints/llama-3-8b-lexi"
    names = [f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(32)]
    names += names_in(folder / "model.safetensors.index.json")
    assert_maps(named_by(folder / "config.json"), folder / "config.json", names)


@pytest.mark.parametrize("name", CONFIGURED)
def test_names_and_shapes_of_transformers_at_real_configurations(shared_data: Path, name: str) -> None:
    """transformers' own network on the meta device, at the sizes of a real configuration, as the checkpoint."""
    import torch
    import transformers

    path = shared_data / "checkpoints/configs-sophgo" / name / "config.json"
    raw = json.loads(path.read_text())
    architecture = named_by(path)
    with torch.device("meta"):
        reference = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**raw))
    tied = {"lm_head.weight"} if reference.config.tie_word_embeddings else set()
    shapes = {key: tuple(value.shape) for key, value in reference.state_dict().items() if key not in tied}
    config = normalise(raw, str(path), architecture.defaults)
    make_plan(architecture, config, build_empty(architecture, config), HeaderList(shapes))
