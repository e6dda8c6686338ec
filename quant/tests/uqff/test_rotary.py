"""Folders that mistral.rs made of GGUF files, whose rows of queries and keys are in the order of llama.cpp."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bestiary.errors import CheckpointError, ConfigError
from bestiary_quant.making.pack import pack
from bestiary_quant.uqff import checkpoint
from bestiary_quant.uqff.writer import write

Opened = Callable[..., checkpoint.UqffCheckpoint]
KEY = "_mistralrs_qk_rope_layout"
CONFIG = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}
LAYER = "model.layers.0.self_attn"


def permuted(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def folder(place: Path, scheme: str, **config: Any) -> dict[str, torch.Tensor]:
    """A folder as from a GGUF file, with what the numbers are in the order of Hugging Face."""
    plain = {f"{LAYER}.{name}_proj.weight": torch.randn(rows, 64) for name, rows in (("q", 32), ("k", 16), ("v", 16))}
    plain |= {f"{LAYER}.{name}_proj.bias": torch.randn(rows) for name, rows in (("q", 32), ("k", 16), ("v", 16))}
    heads = {"q": 4, "k": 2}
    stored = {
        name: permuted(tensor, heads[name.split(".")[-2][0]]) if ".v_proj" not in name else tensor
        for name, tensor in plain.items()
    }
    weights = ((name, pack(tensor, scheme) if tensor.ndim == 2 else tensor) for name, tensor in stored.items())
    write(place, weights, name="x", config=CONFIG)
    (place / "config.json").write_text(json.dumps({**CONFIG, KEY: "adjacent", **config}))
    numbers = {name: pack(tensor, scheme) if tensor.ndim == 2 else None for name, tensor in plain.items()}
    return {name: tensor if (held := numbers[name]) is None else held.dequantize() for name, tensor in plain.items()}


def test_recorded_answers_of_a_folder_made_of_a_gguf_file(references: dict[str, Any]) -> None:
    found = references["from_gguf"]
    assert found["layout"] == "adjacent" and found["same_tokens"] and found["difference"] < 2e-5


@pytest.mark.parametrize("scheme", ["q8_0", "afq8", "mxfp4", "fp8"])
def test_rows_are_put_in_order(scheme: str, tmp_path: Path, opened: Opened) -> None:
    expected = folder(tmp_path / "out", scheme)
    made = opened(tmp_path / "out")
    for name, tensor in expected.items():
        assert torch.equal(made.read(name), tensor), name
        if tensor.ndim == 2:
            packed: Any = made.packed(name)
            assert torch.equal(packed.dequantize(), tensor)


def test_halves_are_left_alone(tmp_path: Path, opened: Opened) -> None:
    expected = folder(tmp_path / "out", "q8_0", **{KEY: "half_split"})
    made = opened(tmp_path / "out")
    assert torch.equal(made.read(f"{LAYER}.q_proj.bias"), permuted(expected[f"{LAYER}.q_proj.bias"], 4))


def test_a_folder_made_of_one_is_in_order(tmp_path: Path, opened: Opened) -> None:
    expected = folder(tmp_path / "out", "q8_0")
    made, config = opened(tmp_path / "out"), json.loads((tmp_path / "out" / "config.json").read_text())
    weights = ((name, made.packed(name) or made.read(name)) for name in made.names())
    write(tmp_path / "again", weights, name="x", config=config)
    again = opened(tmp_path / "again")
    assert KEY not in json.loads((tmp_path / "again" / "config.json").read_text())
    assert all(torch.equal(again.read(name), tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "config",
    [
        {KEY: "sideways"},
        {KEY: None},
        {KEY: ["adjacent"]},
        {"model_type": "glm4"},
        {"model_type": ["llama"]},
        {"num_attention_heads": 0},
        {"num_attention_heads": "4"},
        {"num_key_value_heads": True},
        {"num_key_value_heads": 1 << 70},
        {"num_attention_heads": 1e400},
    ],
)
def test_what_the_configuration_must_not_say(config: dict[str, Any], tmp_path: Path, opened: Opened) -> None:
    folder(tmp_path / "out", "q8_0", **config)
    with pytest.raises(ConfigError):
        opened(tmp_path / "out")


def test_heads_that_do_not_fit(tmp_path: Path, opened: Opened) -> None:
    folder(tmp_path / "out", "q8_0", num_attention_heads=5)
    with pytest.raises(CheckpointError, match="no pairs in 5 heads"):
        opened(tmp_path / "out").read(f"{LAYER}.q_proj.weight")
