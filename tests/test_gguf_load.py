"""GGUF files in the networks of the plugins: plain ones give transformers' logits, packed ones their numbers' own."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Type

from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.nn import Linear
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.greedy import greedy_tokens
from bestiary.testing.reference import make_reference
from bestiary_quant.packed import PackedMatrix, PackedStack

ROOT = Path(__file__).parent.parent


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bestiary_test_" + path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


CONVERTING = module(ROOT / "quant/tests/converting.py")
TINY = module(ROOT / "quant/tests/gguf/test_config.py").TINY
PROMPT = list(range(3, 60))


def load(path: Path) -> Any:
    registry = default_registry()
    return load_weights(identify_model(str(path), SourceOptions(), registry), registry).model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        made = model(torch.tensor(PROMPT), make_batch([SequenceCache(len(model.specs))], [len(PROMPT)], "cpu"))
    return made[-1]  # type: ignore[no-any-return]


def unpack(model: Any) -> Any:
    """Plain numbers in place of every packed weight."""
    for part in model.modules():
        if isinstance(getattr(part, "packed", None), PackedMatrix):
            part.weight, part.packed = torch.nn.Parameter(part.packed.dequantize(), False), None
        for name in ("gate_proj", "up_proj", "down_proj"):
            if isinstance(stack := getattr(part, name, None), PackedStack):
                delattr(part, name)
                setattr(part, name, torch.nn.Parameter(stack.dequantize(), False))
    return model


@pytest.mark.parametrize("name", TINY)
def test_plain_files_give_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    reference = make_reference(TINY[name], tmp_path / "hf")
    (tmp_path / "gguf").mkdir()
    model = load(CONVERTING.convert(reference, tmp_path / "gguf" / "model.gguf"))
    torch.testing.assert_close(logits(model), reference.logits(PROMPT)[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0])
@pytest.mark.parametrize("name", TINY)
def test_packed_weights_stay_packed_and_multiply_as_their_numbers(name: str, kind: Type, tmp_path: Path) -> None:
    reference = make_reference(TINY[name], tmp_path / "hf")
    (tmp_path / "gguf").mkdir()
    path = CONVERTING.convert(reference, tmp_path / "gguf" / "model.gguf", kind)
    model = load(path)
    linear = [part for part in model.modules() if isinstance(part, Linear) and part.packed is not None]
    assert len(linear) >= 13 and model.model.embed_tokens.packed is not None
    assert torch.equal(logits(model), logits(unpack(load(path))))


@pytest.mark.parametrize("name", ["f32", "f16"])
def test_a_real_model_says_what_its_own_program_says(name: str, shared_data: Path) -> None:
    stories = shared_data / "weights" / "stories260K"
    model = load(stories / "gguf" / f"stories260K-{name}.gguf")
    for case in json.loads((stories / "expected_greedy.json").read_text()):
        wanted = case["greedy_tokens"]
        if name == "f32":
            assert greedy_tokens(model, case["prompt_tokens"], len(wanted)) == wanted
        else:
            assert greedy_tokens(model, case["prompt_tokens"], 8) == wanted[:8]
