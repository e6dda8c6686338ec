"""The configuration of a file, and what the user asserts of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bestiary
from bestiary.errors import CheckpointError, OptionError
from bestiary.identified import identify_model
from bestiary.records import SourceOptions
from bestiary.registry import Registry
from bestiary.sources.folder import Folder
from bestiary_quant.ggml.identity import identify

SHAPES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rope_theta",
    "tie_word_embeddings",
)


@pytest.mark.parametrize(
    ("version", "heads", "epsilon", "context"),
    [
        (("ggml", 0), 4, 1e-6, 2048),
        (("ggmf", 1), 4, 1e-6, 2048),
        (("ggjt", 1), 4, 1e-6, 2048),
        (("ggjt", 2), 4, 1e-6, 2048),
        (("ggjt", 3), 4, 5e-6, 2048),
        (("ggjt", 3), 2, 1e-5, 4096),
        (("ggjt", 3), 1, 1e-5, 4096),
    ],
)
def test_configuration(
    version: tuple[str, int],
    heads: int,
    epsilon: float,
    context: int,
    made: Callable[..., Any],
    repository: Callable[[], Folder],
) -> None:
    case = made(version, num_key_value_heads=heads)
    found = identify(repository(), "model.bin")
    assert found.gguf == "llama" and found.files == ("model.bin",) and found.origin.endswith(": model.bin")
    theirs = case.reference.model.config.to_dict()
    theirs["rope_theta"] = case.reference.model.config.rope_parameters["rope_theta"]
    assert {key: found.config[key] for key in SHAPES} == {key: theirs[key] for key in SHAPES}
    assert found.config["architectures"] == ["LlamaForCausalLM"] and found.config["model_type"] == "llama"
    assert (found.config["rms_norm_eps"], found.config["max_position_embeddings"]) == (epsilon, context)
    assert (found.config["bos_token_id"], found.config["eos_token_id"]) == (1, 2)


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"hidden_size": 128}, False),
        ({"model_type": "mistral"}, False),
        ({"num_hidden_layers": None}, False),
    ],
)
def test_what_the_file_does_not_say_stands_beside_it(
    change: dict[str, Any], taken: bool, made: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    said = {"rms_norm_eps": 1e-4, "rope_theta": 1e6, "max_position_embeddings": 16384, "vocab_size": 7}
    case = made(("ggjt", 3), **said | {"vocab_size": 131})
    theirs = json.loads((case.reference.folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**theirs, **said, **change}))
    found = identify_model(str(case.path), SourceOptions(), registry).config
    assert found.vocab_size == 131 and (found.rms_norm_eps == 1e-4) is taken
    assert (found.rope()["rope_theta"] == 1e6) is taken and (found.max_position_embeddings == 16384) is taken


def test_a_stub_beside_the_file(made: Callable[..., Any], repository: Callable[[], Folder], tmp_path: Path) -> None:
    made(("ggjt", 3))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert identify(repository(), "model.bin").config["rms_norm_eps"] == 1e-5


@pytest.mark.parametrize(("gqa", "says"), [(4, "gqa is 4; .* say 2"), (1, "gqa is 1"), (0, "at least 1")])
def test_what_the_user_asserts_must_hold(
    gqa: int, says: str, made: Callable[..., Any], repository: Callable[[], Folder], registry: Registry
) -> None:
    path = made(("ggjt", 3), num_key_value_heads=2).path
    assert identify(repository(), "model.bin", gqa=2) == identify(repository(), "model.bin")
    for asked in (
        lambda: identify(repository(), "model.bin", gqa=gqa),
        lambda: bestiary.load(str(path), gqa=gqa, registry=registry),
    ):
        with pytest.raises(OptionError, match=says):
            asked()


@pytest.mark.parametrize("gqa", [True, 2.0, "2"])
def test_what_the_user_asserts_must_be_a_number(
    gqa: Any, made: Callable[..., Any], repository: Callable[[], Folder]
) -> None:
    made(("ggjt", 3), num_key_value_heads=2)
    with pytest.raises(OptionError, match="whole number"):
        identify(repository(), "model.bin", gqa=gqa)


def test_a_part_of_a_model(
    made: Callable[..., Any], repository: Callable[[], Folder], writing: ModuleType, tmp_path: Path
) -> None:
    """The embedding, and all matrices that are split by columns, have half of their columns in each of two parts."""
    written = made(("ggmf", 1)).written
    for tensor in written.tensors:
        if tensor.name == "tok_embeddings.weight":
            tensor.shape, tensor.data = (131, 32), tensor.data[: 131 * 32 * 4]
    written.write(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="one of 2 parts"):
        identify(repository(), "model.bin")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (0, 130, "tokens|embedding has the shape"),
        (1, 96, r"embedding has the shape \[131, 64\], where \[131, 96\]"),
        (3, 3, "3 heads turn 16"),
        (3, 8, "8 heads turn 16 of their numbers in a width of 64"),
        (5, 8, "4 heads turn 8"),
    ],
)
def test_sizes_that_are_not_those_of_the_tensors(
    place: int, value: int, says: str, made: Callable[..., Any], repository: Callable[[], Folder], tmp_path: Path
) -> None:
    written = made(("ggjt", 3)).written
    written.sizes = (*written.sizes[:place], value, *written.sizes[place + 1 :])
    written.tokens, written.scores = written.tokens[: written.sizes[0]], written.scores[: written.sizes[0]]
    written.write(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match=says):
        identify(repository(), "model.bin")


@pytest.mark.parametrize("rows", [24, 48, 8])
def test_keys_that_are_no_heads(
    rows: int, made: Callable[..., Any], repository: Callable[[], Folder], tmp_path: Path
) -> None:
    written = made(("ggjt", 3)).written
    for tensor in written.tensors:
        if tensor.name == "layers.0.attention.wk.weight":
            tensor.shape, tensor.data = (rows, 64), bytes(rows * 64 * 4)
    written.write(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match=re.escape(f"keys of the shape [{rows}, 64]")):
        identify(repository(), "model.bin")


def test_layers_that_differ_from_the_first(
    made: Callable[..., Any], repository: Callable[[], Folder], registry: Registry, tmp_path: Path
) -> None:
    written = made(("ggjt", 3)).written
    for tensor in written.tensors:
        if tensor.name == "layers.1.feed_forward.w1.weight":
            tensor.shape = (64, 96)
    path = written.write(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.gate_proj"):
        bestiary.load(str(path), registry=registry, dtype="float32", device="cpu")
