"""The outside writer, and a registry with the format and with Llama."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file

import bestiary
from bestiary.registry import Registry, discover
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.tiny import decoder
from bestiary_quant.ggml.header import sniff
from bestiary_quant.ggml.selection import SUFFIXES

PACKAGE = "bestiary_quant.ggml"


@bestiary.hookimpl
def bestiary_loaders() -> Sequence[bestiary.Loader]:
    return [
        bestiary.Loader(
            "ggml",
            SUFFIXES,
            sniff,
            f"{PACKAGE}.selection:files",
            f"{PACKAGE}.checkpoint:open",
            identify=f"{PACKAGE}.identity:identify",
            choose=f"{PACKAGE}.selection:chosen",
            text=f"{PACKAGE}.carried:carried_text",
            options=("gqa",),
            shared=True,
            priority=-1,
        )
    ]


@pytest.fixture(scope="session")
def writing() -> ModuleType:
    """writing.py, which writes the files."""
    path = Path(__file__).with_name("writing.py")
    spec = importlib.util.spec_from_file_location("bestiary_test_ggml_writing", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """The core, Llama, and the format."""
    module = ModuleType("bestiary_test_ggml")
    module.bestiary_loaders = bestiary_loaders  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        points = [
            EntryPoint("core", "bestiary.builtin", "bestiary"),
            EntryPoint("llama", "bestiary_llama", "bestiary"),
            EntryPoint("ggml", module.__name__, "bestiary"),
        ]
        made = discover(points=points)
    assert not made.broken
    yield made


@dataclass(frozen=True)
class Made:
    """A tiny Llama with random weights, and a file of it."""

    path: Path
    written: Any
    reference: Reference
    """transformers' model of the numbers that the file holds."""


@pytest.fixture
def made(tmp_path: Path, writing: ModuleType) -> Callable[..., Made]:
    """Makes a file of a version and a type; other arguments change the configuration."""

    def make(version: tuple[str, int], code: int = 0, name: str = "model.bin", **changes: Any) -> Made:
        import torch

        config = decoder("LlamaForCausalLM", "llama", **changes)
        reference = make_reference(config, tmp_path.parent / f"{tmp_path.name} {name}")
        stored = load_file(reference.folder / "model.safetensors")
        weights = {key: tensor.numpy() for key, tensor in stored.items()}
        written = writing.llama(weights, config, version, code)
        state: Mapping[str, Any] = {key: torch.from_numpy(value.copy()) for key, value in written.values.items()}
        reference.model.load_state_dict(state)
        return Made(written.write(tmp_path / name), written, reference)

    return make
