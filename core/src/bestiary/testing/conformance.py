"""The facts that every architecture plugin must show, as a pytest class to inherit from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from bestiary.building import build_empty, make_plan
from bestiary.config import Config, normalise
from bestiary.errors import WeightMismatch
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.nn import CausalLM
from bestiary.records import Architecture, SourceOptions, resolve
from bestiary.registry import Registry, default_registry
from bestiary.testing.greedy import greedy_tokens
from bestiary.testing.headers import HeaderList
from bestiary.testing.reference import Reference, make_reference

TOLERANCE = 1e-5
"""Of the largest logit: float32 sums in another order differ by less."""


class ArchitectureTests:
    """Inherit, set `plugin` to the plugin's module, and pytest checks each of its architectures on its tiny configs."""

    plugin: ClassVar[ModuleType]
    tolerance: ClassVar[float] = TOLERANCE
    golden_chats: ClassVar[Mapping[str, Sequence[tuple[list[dict[str, Any]], str]]]] = {}
    """By architecture: messages, and what the fallback template makes of them with <s> and </s> for BOS and EOS."""

    # What is tested

    @classmethod
    def architectures(cls) -> list[Architecture]:
        return list(cls.plugin.bestiary_architectures())

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "tiny" in metafunc.fixturenames:
            cases = [
                pytest.param((record, config), id=f"{record.name}-{index}")
                for record in self.architectures()
                for index, config in enumerate(resolve(record.tiny) if record.tiny else ())
            ]
            metafunc.parametrize("tiny", cases, scope="class", indirect=True)
        if "architecture" in metafunc.fixturenames:
            records = self.architectures()
            metafunc.parametrize("architecture", records, ids=[record.name for record in records])

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyCase]:
        record, config = request.param
        folder = tmp_path_factory.mktemp(record.name)
        yield TinyCase(record, make_reference(config, folder))

    # The plugin

    def test_import_is_light(self) -> None:
        code = (
            f"import sys, {self.plugin.__name__}; sys.exit(sorted({{'torch', 'transformers'}} & set(sys.modules)) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"importing the plugin imports {done.stderr}"

    def test_the_registry_has_the_plugin(self, architecture: Architecture) -> None:
        owners = [owner for record, owner in default_registry().records(Architecture) if record == architecture]
        assert len(owners) == 1 and owners[0].error is None

    def test_references_resolve(self, architecture: Architecture) -> None:
        for reference in (architecture.model, architecture.processor, architecture.tiny):
            if reference is not None:
                assert resolve(reference) is not None

    def test_at_least_three_tiny_configs(self, architecture: Architecture) -> None:
        assert architecture.tiny and len(resolve(architecture.tiny)) >= 3

    def test_fallback_template(self, architecture: Architecture) -> None:
        from bestiary.generation.template import ChatTemplate

        if architecture.chat_template is None:
            assert architecture.name not in self.golden_chats
            return
        assert self.golden_chats.get(architecture.name), f"golden_chats has no text for {architecture.name}"
        template = ChatTemplate(
            architecture.chat_template.jinja,
            source=architecture.name,
            special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        )
        for messages, expected in self.golden_chats[architecture.name]:
            assert template.render(messages, add_generation_prompt=True) == expected

    # The model

    def test_logits_equal_the_reference(self, tiny: TinyCase) -> None:
        tokens = tiny.prompt(37)
        assert_close(tiny.logits([tokens])[0], tiny.reference.logits(tokens), self.tolerance)

    def test_greedy_tokens_equal_the_reference(self, tiny: TinyCase) -> None:
        tokens = tiny.prompt(11)
        assert greedy_tokens(tiny.model, tokens, 32) == tiny.reference.greedy(tokens, 32)

    def test_prefill_equals_decode(self, tiny: TinyCase) -> None:
        tokens = tiny.prompt(23)
        cache = SequenceCache(len(tiny.model.specs))
        steps = [tiny.step([cache], [part]) for part in (tokens[:3], tokens[3:4], tokens[4:12], tokens[12:])]
        assert_close(torch.cat(steps), tiny.logits([tokens])[0], self.tolerance)

    def test_batched_equals_alone(self, tiny: TinyCase) -> None:
        prompts = [tiny.prompt(length, seed) for seed, length in enumerate((1, 19, 7))]
        for together, prompt in zip(tiny.logits(prompts), prompts, strict=True):
            assert_close(together, tiny.logits([prompt])[0], self.tolerance)

    def test_plan_is_exact(self, tiny: TinyCase) -> None:
        """Without any one tensor, or with one too many, the plan fails and names it."""
        headers = HeaderList.from_folder(tiny.reference.folder)
        empty = build_empty(tiny.architecture, tiny.config)
        whole = make_plan(tiny.architecture, tiny.config, empty, headers)
        assert {*whole.recipes, *whole.ties} == {name for name, _ in empty.named_parameters()}
        for name in headers.names()[:: max(1, len(headers.names()) // 12)]:
            used = name not in whole.dropped
            if used:
                with pytest.raises(WeightMismatch):
                    make_plan(tiny.architecture, tiny.config, empty, headers.without(name))
        with pytest.raises(WeightMismatch) as found:
            make_plan(tiny.architecture, tiny.config, empty, headers.with_extra("model.layers.0.spare.weight", (3, 3)))
        assert "model.layers.0.spare.weight" in found.value.unexpected


class TinyCase:
    """One tiny checkpoint: the reference that made it, and the same weights loaded by Bestiary in float32."""

    def __init__(self, architecture: Architecture, reference: Reference, registry: Registry | None = None) -> None:
        registry = registry or default_registry()
        self.architecture, self.reference = architecture, reference
        identified = identify_model(str(reference.folder), SourceOptions(offline=True), registry)
        assert identified.architecture == architecture, "the checkpoint is identified as another architecture"
        model = load_weights(identified, registry, dtype="float32", device="cpu").model
        assert isinstance(model, CausalLM)
        self.model, self.config = model, identified.config

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        random = torch.Generator().manual_seed(seed)
        return torch.randint(3, self.config.text.vocab_size, (length,), generator=random).tolist()

    @torch.no_grad()
    def step(self, caches: list[SequenceCache], prompts: list[list[int]]) -> torch.Tensor:
        """The logits of all tokens of one step, [T, V]."""
        batch = make_batch(caches, [len(prompt) for prompt in prompts], "cpu", all_outputs=True)
        tokens = torch.tensor([token for prompt in prompts for token in prompt])
        return self.model(tokens, batch).float()  # type: ignore[no-any-return]

    def logits(self, prompts: list[list[int]]) -> list[torch.Tensor]:
        """The logits of several sequences, run as one batch."""
        caches = [SequenceCache(len(self.model.specs)) for _ in prompts]
        return list(torch.split(self.step(caches, prompts), [len(prompt) for prompt in prompts]))


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    """The largest difference is at most `tolerance` times the largest value of the reference."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    difference, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
    assert difference <= tolerance * size, f"differs by {difference:.2e}, {difference / size:.1e} of the largest value"


def assert_maps(architecture: Architecture, config: Path, names: Sequence[str]) -> Config:
    """A real checkpoint's tensor names map on the network of its real config.json, nothing missing or left over.

    Shapes are those of the network, for lists of names carry none.
    """
    normalised = normalise(json.loads(config.read_text()), str(config), architecture.defaults)
    model = build_empty(architecture, normalised)
    made = HeaderList.from_names(names).plan(architecture, normalised)
    wanted = {name for name, _ in model.named_parameters()}
    assert {*made.recipes, *made.ties} == wanted, sorted({*made.recipes, *made.ties} ^ wanted)[:8]
    return normalised
