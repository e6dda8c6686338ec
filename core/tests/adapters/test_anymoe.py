"""AnyMoE models equal the formula around transformers' own blocks, whole, in parts, and beside others in the engine."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bestiary.adapters.anymoe import AnyMoeModel
from bestiary.adapters.anymoe_attach import attach_anymoe
from bestiary.adapters.anymoe_config import AnyMoeConfig, FineTuned, LoraExperts
from bestiary.errors import CheckpointError, GenerationError, OptionError, WeightMismatch
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.nn import Linear
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder
from bestiary.testing.conformance import assert_close
from bestiary.testing.numbers import Numbers
from bestiary.testing.reference import Reference, make_reference

CONFIG = AnyMoeConfig(64, "rows.json", "model.layers", "mlp", ("one",), FineTuned())


class Formula(nn.Module):
    """The block of a layer of transformers by the formula: the most probable expert in the mean up to each token."""

    def __init__(self, gate: nn.Module, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight, self.bias, self.experts = gate.weight, gate.bias, nn.ModuleList(experts)
        self.choice = torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        odds = torch.softmax(x[0] @ self.weight.T + self.bias, -1)
        means = torch.stack([odds[: end + 1].mean(0) for end in range(len(odds))])
        self.choice = means.argmax(-1)
        made = torch.stack([expert(x)[0] for expert in self.experts])
        return made[self.choice, torch.arange(len(odds))][None]


@dataclass(frozen=True)
class Mixed:
    """A model of transformers with the formula in its layers, and that of Bestiary with the same gates."""

    reference: Any
    model: AnyMoeModel

    @torch.no_grad()
    def expected(self, tokens: list[int]) -> torch.Tensor:
        return self.reference(input_ids=torch.tensor([tokens])).logits[0]

    def choices(self) -> list[torch.Tensor]:
        """Of the last prompt that the reference read, by layer."""
        return [layer.mlp.choice for layer in self.reference.model.layers if isinstance(layer.mlp, Formula)]

    def logits(self, prompts: Sequence[list[int]]) -> list[torch.Tensor]:
        counts = [len(prompt) for prompt in prompts]
        caches = [SequenceCache(len(self.model.specs)) for _ in prompts]
        batch = make_batch(caches, counts, "cpu", all_outputs=True)
        with torch.inference_mode():
            tokens = torch.tensor([token for prompt in prompts for token in prompt])
            return list(torch.split(self.model(tokens, batch), counts))


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory, case_of: Callable) -> Callable[[str], list[Reference]]:
    """Two more checkpoints of a model, in folders of their own."""
    made: dict[str, list[Reference]] = {}

    def make(name: str) -> list[Reference]:
        if name not in made:
            config = {**case_of(name).reference.model.config.to_dict()}
            made[name] = [make_reference(config, tmp_path_factory.mktemp(name), seed) for seed in (1, 2)]
        return made[name]

    return make


@pytest.fixture
def mix(case_of: Callable, others: Callable) -> Callable[..., Mixed]:
    def make(name: str, config: AnyMoeConfig) -> Mixed:
        case = case_of(name)
        base = replace(case.base, model=copy.deepcopy(case.model))
        repositories = [Folder(each.folder, "x") for each in others(name)]
        model = attach_anymoe(base, replace(config, model_ids=("a", "b")), repositories, default_registry())
        reference, source = copy.deepcopy(case.reference.model), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer, gate in model.gates.items():
                for parameter in gate.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=source) / 5)
                blocks = [each.model.model.layers[layer].mlp for each in (case.reference, *others(name))]
                reference.model.layers[layer].mlp = Formula(gate, copy.deepcopy(blocks))
        return Mixed(reference, model)

    return make


def force(model: AnyMoeModel, expert: int) -> None:
    """Gates that choose one expert whatever they see."""
    with torch.no_grad():
        for gate in model.gates.values():
            gate.weight.zero_()
            gate.bias.zero_()[expert] = 5.0


@pytest.mark.parametrize("layers", [(), (1,), (2, 0)], ids=["all", "one", "two"])
@pytest.mark.parametrize("name", ["llama", "gemma", "qwen"])
def test_logits_are_those_of_the_formula(name: str, layers: tuple[int, ...], mix: Callable, case_of: Callable) -> None:
    mixed, case = mix(name, replace(CONFIG, layers=layers)), case_of(name)
    used: set[int] = set()
    prompts = [case.prompt(length, seed=length) for length in (1, 9, 30)]
    found = mixed.logits(prompts)
    for prompt, ours in zip(prompts, found, strict=True):
        assert_close(ours, mixed.expected(prompt))
        used |= set(torch.cat(mixed.choices()).tolist())
    assert len(used) > 1, "one expert did everything"


def test_parts_common_beginnings_and_others_change_nothing(mix: Callable, case_of: Callable) -> None:
    mixed, case = mix("llama", CONFIG), case_of("llama")
    dice, shared = random.Random(0), case.prompt(40)
    prompts = [[*shared[: dice.choice([20, 40])], *case.prompt(dice.randint(1, 20), seed)] for seed in range(6)]
    engine = Engine(
        mixed.model,
        Numbers(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        end_tokens=frozenset(),
        context_length=128,
        cache_tokens=2048,
        limits=Limits(tokens=32, sequences=8),
    )
    try:
        collect(engine.stream(prompts[0], Sampling(max_tokens=1, temperature=0.0)))
        streams = [engine.stream(prompt, Sampling(max_tokens=8, temperature=0.0)) for prompt in prompts]
        answers = [collect(stream).tokens for stream in streams]
        assert engine.statistics().totals.reused_tokens > 0
    finally:
        engine.close()
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = mixed.expected([*prompt, *answer])[len(prompt) - 1 : -1]
        assert list(answer) == expected.argmax(-1).tolist()


def test_without_training_the_model_is_what_it_was(case_of: Callable, others: Callable) -> None:
    case = case_of("llama")
    base = replace(case.base, model=copy.deepcopy(case.model))
    model = attach_anymoe(base, CONFIG, [Folder(others("llama")[0].folder, "x")], default_registry())
    tokens = case.prompt(25)
    assert torch.equal(Mixed(None, model).logits([tokens])[0], case.logits([tokens])[0])
    batch = make_batch([SequenceCache(3)], [25], "cpu")
    with pytest.raises(GenerationError, match="run inside it only"):
        base.model(torch.tensor(tokens), batch)


@pytest.mark.parametrize("expert", [0, 1, 2])
def test_fine_tuned_experts_are_blocks_of_their_checkpoints(
    expert: int, mix: Callable, case_of: Callable, others: Callable
) -> None:
    mixed, case = mix("llama", CONFIG), case_of("llama")
    force(mixed.model, expert)
    whole = copy.deepcopy(case.reference.model)
    source = [case.reference, *others("llama")][expert].model
    for ours, theirs in zip(whole.model.layers, source.model.layers, strict=True):
        ours.mlp = theirs.mlp
    tokens = case.prompt(25)
    with torch.no_grad():
        expected = whole(input_ids=torch.tensor([tokens])).logits[0]
    assert_close(mixed.logits([tokens])[0], expected)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_lora_experts_are_models_with_the_adapter(dora: bool, case_of: Callable, train: Callable) -> None:
    case, targets = case_of("llama"), ("gate_proj", "down_proj")
    trained = [
        train(case, seed=seed, size=0.3, r=4, lora_alpha=6, target_modules=list(targets), use_dora=dora)
        for seed in (0, 1)
    ]
    base = replace(case.base, model=copy.deepcopy(case.model))
    config = replace(CONFIG, model_ids=("a", "b"), expert_type=LoraExperts(4, 6.0, targets))
    model = attach_anymoe(base, config, [Folder(each.folder, "x") for each in trained], default_registry())
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(
        parameter.numel() for module in (case.model, *model.gates.values()) for parameter in module.parameters()
    ), "experts do not share the weights of the model"
    tokens, mixed = case.prompt(25), Mixed(None, model)
    for expert, expected in enumerate((case.reference.logits(tokens), *(each.logits(tokens) for each in trained))):
        force(model, expert)
        assert_close(mixed.logits([tokens])[0], expected)


def test_experts_are_packed_as_the_model_is(mix: Callable, case_of: Callable, others: Callable) -> None:
    @dataclass(frozen=True)
    class Packed:
        tensor: torch.Tensor
        nbytes: int = 0

        @property
        def shape(self) -> tuple[int, int]:
            return self.tensor.shape[0], self.tensor.shape[1]

        def multiply(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.tensor.T

        def dequantize(self) -> torch.Tensor:
            return self.tensor

    case, tokens = case_of("llama"), case_of("llama").prompt(25)
    base = replace(case.base, model=copy.deepcopy(case.model))
    for module in base.model.modules():
        if isinstance(module, Linear):
            module.hold(Packed(module.weight.detach()))
    repositories = [Folder(each.folder, "x") for each in others("llama")]
    config = replace(CONFIG, model_ids=("a", "b"))
    model = attach_anymoe(base, config, repositories, default_registry(), pack=lambda name, tensor: Packed(tensor))
    plain = mix("llama", CONFIG)
    for expert in range(3):
        force(model, expert)
        force(plain.model, expert)
        assert_close(Mixed(None, model).logits([tokens])[0], plain.logits([tokens])[0])
        assert all(
            module.packed is not None and module.weight is None
            for block in model.blocks.values()
            for module in block.experts[expert].modules()
            if isinstance(module, Linear)
        )


def test_an_expert_of_another_shape_is_refused(case_of: Callable, tmp_path: Path) -> None:
    case = case_of("llama")
    config = {**case.reference.model.config.to_dict(), "intermediate_size": 48}
    make_reference(config, tmp_path)
    fresh = replace(case.base, model=copy.deepcopy(case.model))
    with pytest.raises(WeightMismatch, match=r"\[64, 48\]; the model's has \[64, 96\], and 8 more differ"):
        attach_anymoe(fresh, CONFIG, [Folder(tmp_path, "x")], default_registry())
    assert not any("experts" in name for name, _ in fresh.model.named_modules())


def test_what_is_no_expert_is_refused(case_of: Callable, train: Callable, others: Callable, tmp_path: Path) -> None:
    case, registry = case_of("llama"), default_registry()
    fresh = replace(case.base, model=copy.deepcopy(case.model))
    good = Folder(others("llama")[0].folder, "x")
    attention = Folder(train(case, target_modules=["q_proj"]).folder, "x")
    kind = LoraExperts(4, 6.0, ("gate_proj",))
    with pytest.raises(WeightMismatch, match=r"does not change model\.layers\.\{0-2\}\.mlp\.gate_proj"):
        attach_anymoe(fresh, replace(CONFIG, expert_type=kind), [attention], registry)
    blocks = Folder(train(case, target_modules=["gate_proj"]).folder, "x")
    for wrong in (replace(kind, rank=8), replace(kind, alpha=7.0)):
        with pytest.raises(OptionError, match="was trained with 4 and 6"):
            attach_anymoe(fresh, replace(CONFIG, expert_type=wrong), [blocks], registry)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no weights here"):
        attach_anymoe(fresh, CONFIG, [Folder(tmp_path / "empty", "x")], registry)
    with pytest.raises(OptionError, match="2 repositories"):
        attach_anymoe(fresh, CONFIG, [good, good], registry)
    with pytest.raises(OptionError, match=r"layers has 3; the model has the layers 0 to 2"):
        attach_anymoe(fresh, replace(CONFIG, layers=(0, 3)), [good], registry)
    with pytest.raises(OptionError, match="hidden_size is 32; the model's is 64"):
        attach_anymoe(fresh, replace(CONFIG, hidden_size=32), [good], registry)
    with pytest.raises(OptionError, match=r"would be model\.layers\.0\.ffn\.\*"):
        attach_anymoe(fresh, replace(CONFIG, mlp="ffn"), [good], registry)
    attach_anymoe(fresh, replace(CONFIG, layers=(0,)), [good], registry)
    with pytest.raises(OptionError, match="Layer 0 has experts of AnyMoE already"):
        attach_anymoe(fresh, CONFIG, [good], registry)
