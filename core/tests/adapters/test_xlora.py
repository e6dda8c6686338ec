"""X-LoRA equals PEFT's XLoraModel around transformers, whole, in parts, and beside others in the engine."""

from __future__ import annotations

import copy
import json
import random
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bestiary.adapters.laying import Base
from bestiary.adapters.peft import LoraWeights, PeftAdapter
from bestiary.adapters.peft_config import PeftConfig
from bestiary.adapters.xlora import XLoraModel
from bestiary.adapters.xlora_attach import attach_xlora
from bestiary.adapters.xlora_config import XLoraConfig
from bestiary.adapters.xlora_files import Affine, XLora, read_xlora
from bestiary.errors import OptionError, WeightMismatch
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.runner import ModelRunner
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.engine.sequence import Plan, Work
from bestiary.generation.engine.sequence import Sequence as Tokens
from bestiary.generation.sampling import Sampling
from bestiary.sources.folder import Folder
from bestiary.testing.conformance import assert_close
from bestiary.testing.numbers import Numbers

TARGETS = (["q_proj", "v_proj"], ["q_proj", "k_proj", "gate_proj"], ["o_proj", "down_proj", "q_proj"])
OPTIONS: dict[str, dict[str, Any]] = {
    "shared": {},
    "layerwise": {"layerwise_scalings": True},
    "deep": {"xlora_depth": 3, "xlora_size": 24, "layerwise_scalings": True},
    "two deep": {"xlora_depth": 2, "xlora_size": 24, "softmax_temperature": 0.3},
    "no softmax": {"enable_softmax": False, "layerwise_scalings": True},
    "best two": {"top_k_lora": 2, "layerwise_scalings": True},
    "softmax of the best": {"top_k_lora": 2, "enable_softmax": False, "enable_softmax_topk": True},
    "both softmaxes": {"enable_softmax_topk": True, "global_scaling_weight": 1.7},
    "first pass with adapters": {"scaling_pass_value": 0.4, "global_scaling_weight": 0.6},
    "first pass with the best": {"scaling_pass_value": 0.5, "top_k_lora": 2, "layerwise_scalings": True},
    "first pass, softmax of the best": {"scaling_pass_value": 0.5, "top_k_lora": 1, "enable_softmax_topk": True},
}


@dataclass(frozen=True)
class Mixed:
    """An X-LoRA model as PEFT has it, in the files of PEFT and of mistral.rs, and attached to the model of Bestiary."""

    peft: Any
    folder: Path
    base: Base
    xlora: XLora
    model: XLoraModel

    @torch.no_grad()
    def expected(self, tokens: list[int]) -> torch.Tensor:
        return self.peft(input_ids=torch.tensor([tokens])).logits[0].float()

    @torch.inference_mode()
    def logits(self, prompts: Sequence[list[int]]) -> list[torch.Tensor]:
        return run(self.model, prompts, [SequenceCache(len(self.model.specs)) for _ in prompts])


def run(model: Any, prompts: Sequence[list[int]], caches: Sequence[SequenceCache]) -> list[torch.Tensor]:
    counts = [len(prompt) for prompt in prompts]
    batch = make_batch(caches, counts, "cpu", all_outputs=True)
    tokens = torch.tensor([token for prompt in prompts for token in prompt])
    with torch.inference_mode():
        return list(torch.split(model(tokens, batch).float(), counts))


@pytest.fixture
def mix(case_of: Callable, train: Callable, tmp_path: Path) -> Callable[..., Mixed]:
    from peft import XLoraConfig, get_peft_model

    def make(
        name: str = "llama", targets: Sequence[list[str]] = TARGETS, order: dict | None = None, **options: Any
    ) -> Mixed:
        case = case_of(name)
        trained = [
            train(case, seed=seed, size=0.2, target_modules=each, r=3 + seed, lora_alpha=5 * seed + 2)
            for seed, each in enumerate(targets)
        ]
        with warnings.catch_warnings():
            # PEFT tells of options that it advises against.
            warnings.simplefilter("ignore")
            plain = copy.deepcopy(case.reference.model)
            plain.config.use_cache = False
            folders = {str(number): str(each.folder) for number, each in enumerate(trained)}
            config = XLoraConfig(
                task_type="CAUSAL_LM", hidden_size=plain.config.hidden_size, adapters=folders, **options
            )
            torch.manual_seed(7)
            model = get_peft_model(plain, config, autocast_adapter_dtype=False).eval()
            for name_, parameter in model.named_parameters():
                if "classifier" in name_:
                    parameter.data.normal_().mul_(0.2)
            model.save_pretrained(tmp_path / "x")
        # PEFT 0.21 leaves out what has the number of an adapter, see `test_a_classifier_that_peft_cut_short`.
        tensors = {key: value for key, value in model.state_dict().items() if "internal_xlora_classifier" in key}
        save_file(tensors, tmp_path / "x/adapter_model.safetensors")
        for number, each in enumerate(trained):
            shutil.copytree(each.folder, tmp_path / f"x/{number}", dirs_exist_ok=True)
        base = replace(case.base, model=copy.deepcopy(case.model))
        xlora = read_xlora(Folder(tmp_path / "x", "x"), order)
        return Mixed(model, tmp_path / "x", base, xlora, attach_xlora(base, xlora))

    return make


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_logits_are_those_of_peft(options: dict[str, Any], mix: Callable, case_of: Callable) -> None:
    mixed, tokens = mix(**options), case_of("llama").prompt(23)
    expected = mixed.expected(tokens)
    [ours] = mixed.logits([tokens])
    assert float((ours - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    plain = case_of("llama").reference.logits(tokens)
    assert float((expected - plain).abs().max()) > 0.05 * float(plain.abs().max()), "the adapters change too little"


@pytest.mark.parametrize("name", ["tied", "gemma"])
def test_other_models(name: str, mix: Callable, case_of: Callable) -> None:
    mixed, tokens = mix(name, layerwise_scalings=True), case_of(name).prompt(23)
    assert_close(mixed.logits([tokens])[0], mixed.expected(tokens))


def test_the_form_of_mistral_rs(mix: Callable, case_of: Callable, tmp_path: Path) -> None:
    mixed, tokens = mix(xlora_depth=3, xlora_size=24, layerwise_scalings=True), case_of("llama").prompt(23)
    folder, classifier = tmp_path / "other", mixed.peft.base_model.internal_xlora_classifier
    names = {"layers.0": "inner.0", "layers.3": "inner.1", "layers.6": "last"}
    tensors = {}
    for key, value in classifier.state_dict().items():
        head, _, leaf = key.rpartition(".")
        tensors[f"{names[head]}.{leaf}"] = value
    paths = [
        name for name in mixed.peft.state_dict() if ".lora_A.0." in name or ".lora_A.1." in name or ".lora_A.2." in name
    ]
    modules = list(
        dict.fromkeys(name.partition(".lora_A")[0].removeprefix("base_model.lora_model.model.") for name in paths)
    )
    # The ordering decides, not the model: numbers backwards, and the classifier's outputs with them.
    layers = {path: len(modules) - 1 - number for number, path in enumerate(modules)}
    for leaf in ("weight", "bias"):
        value = tensors[f"last.{leaf}"]
        tensors[f"last.{leaf}"] = (
            value.view(len(modules), 3, *value.shape[1:]).flip(0).reshape(value.shape).contiguous()
        )
    for number in range(3):
        shutil.copytree(mixed.folder / str(number), folder / f"adapters/adapter_{number + 1}")
    save_file(tensors, folder / "xlora_classifier.safetensors")
    config = {
        "hidden_size": 64,
        "base_model_id": "tiny",
        "adapters": {"adapter_1": "a", "adapter_2": "b", "adapter_3": "c"},
        "xlora_depth": 3,
        "xlora_size": 24,
        "enable_relu_and_dropout": True,
        "layerwise_scalings": True,
    }
    (folder / "xlora_config.json").write_text(json.dumps(config))
    order = {"base_model_id": "tiny", "order": ["adapter_1", "adapter_2", "adapter_3"], "layers": layers}
    base = replace(mixed.base, model=copy.deepcopy(case_of("llama").model))
    model = attach_xlora(base, read_xlora(Folder(folder, "x"), order))
    [ours] = run(model, [tokens], [SequenceCache(len(model.specs))])
    assert_close(ours, mixed.expected(tokens))


def test_experts_with_constant_scalings_are_a_merged_model(case_of: Callable) -> None:
    """A classifier of biases alone mixes adapters in fixed parts, which is the sum of their weights."""
    case, random = case_of("qwen"), torch.Generator().manual_seed(0)
    experts = {
        f"model.layers.1.mlp.experts.{number}.{name}": number for number in (0, 3) for name in ("up_proj", "down_proj")
    }
    shapes = {path: case.base.shapes[f"{path}.weight"] for path in experts}
    adapters = tuple(
        PeftAdapter(
            PeftConfig(2, 4.0),
            {
                path: LoraWeights(
                    torch.randn(2, width, generator=random),
                    torch.randn(height, 2, generator=random),
                    0.05 * adapter + 0.1,
                )
                for path, (height, width) in shapes.items()
            },
        )
        for adapter in range(2)
    )
    parts = torch.randn(len(experts), 2, generator=random)
    classifier = (Affine(torch.zeros(parts.numel(), 64), parts.flatten()),)
    config = XLoraConfig(64, layerwise=True, softmax=False, weight=1.5)
    base = replace(case.base, model=copy.deepcopy(case.model))
    layers = {path: number for number, path in enumerate(experts)}
    with pytest.raises(WeightMismatch, match="cannot be told apart"):
        attach_xlora(base, XLora(config, classifier, adapters))
    model = attach_xlora(base, XLora(config, classifier, adapters, layers))
    merged = copy.deepcopy(case.reference.model)
    stack = merged.model.layers[1].mlp.experts
    with torch.no_grad():
        for path, number in layers.items():
            change = sum(
                1.5 * parts[number, adapter] * each.weights[path].scaling * each.weights[path].b @ each.weights[path].a
                for adapter, each in enumerate(adapters)
            )
            place = stack.down_proj if path.endswith("down_proj") else stack.gate_up_proj[:, 24:]
            place[experts[path]] += change
        tokens = case.prompt(40)
        expected = merged(input_ids=torch.tensor([tokens])).logits[0]
    assert float((expected - case.reference.logits(tokens)).abs().max()) > 0.01 * float(expected.abs().max())
    for order in ([tokens], [tokens[:13], tokens]):
        found = run(model, order, [SequenceCache(len(model.specs)) for _ in order])
        assert_close(found[-1], expected)


def test_the_base_model_is_untouched_outside_the_passes(mix: Callable, case_of: Callable) -> None:
    case, mixed = case_of("llama"), mix()
    tokens = case.prompt(11)
    [alone] = run(mixed.base.model, [tokens], [SequenceCache(3)])
    assert torch.equal(alone, case.logits([tokens])[0])


def test_threads_do_not_see_each_other(mix: Callable, case_of: Callable) -> None:
    mixed, case = mix(), case_of("llama")
    prompts = [case.prompt(5 + 7 * number, seed=number) for number in range(4)]
    expected = [mixed.logits([prompt])[0] for prompt in prompts]
    found: list[list[torch.Tensor]] = [[] for _ in prompts]

    def work(number: int) -> None:
        for _ in range(10):
            found[number].append(mixed.logits([prompts[number]])[0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expect in enumerate(expected):
        assert len(found[number]) == 10
        assert all(torch.equal(logits, expect) for logits in found[number])


# The engine


def steps(model: Any, parts: Sequence[Sequence[tuple[Tokens, int]]]) -> dict[int, list[torch.Tensor]]:
    """The logits of every position of some sequences, computed in these parts over the cache of the engine."""
    cache = PagedCache(
        model.specs, 1024, 16, sequences=8, step_tokens=64, dtype=torch.float32, device=torch.device("cpu")
    )
    runner = ModelRunner(model, cache)
    found: dict[int, list[torch.Tensor]] = {}
    free = iter(range(1024 // 16))
    for part in parts:
        works = []
        for sequence, count in part:
            while len(sequence.tables[0]) * 16 < sequence.computed + count:
                sequence.tables[0].append(next(free))
            works.append(Work(sequence, sequence.computed, count))
            sequence.computed += count
        logits = runner.run(Plan(tuple(works))).logits
        for work, rows in zip(works, torch.split(logits, [work.count for work in works]), strict=True):
            found.setdefault(id(work.sequence), []).append(rows)
    return found


def sequence(tokens: list[int]) -> Tokens:
    # Position 0 is wanted, and so all.
    return Tokens(list(tokens), len(tokens), wanted=0, tables=[[]])


@pytest.mark.parametrize(
    "options", [{}, {"layerwise_scalings": True, "scaling_pass_value": 0.4}], ids=["shared", "own"]
)
def test_in_parts_and_beside_others(options: dict[str, Any], mix: Callable, case_of: Callable) -> None:
    mixed, case = mix(**options), case_of("llama")
    prompts = [case.prompt(length, seed=length) for length in (37, 20, 29)]
    one, two, three = (sequence(prompt) for prompt in prompts)
    found = steps(
        mixed.model,
        [
            [(one, 11), (two, 1)],
            [(two, 7), (one, 1), (three, 5)],
            [(one, 25), (three, 1), (two, 1)],
            *[[(three, 1), (two, 1)] for _ in range(11)],
            [(three, 12)],
        ],
    )
    for each, prompt in zip((one, two, three), prompts, strict=True):
        assert each.computed == len(prompt)
        assert_close(torch.cat(found[id(each)]), mixed.expected(prompt))


@pytest.fixture
def engine_of() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(model: XLoraModel, **limits: int) -> Engine:
        engine = Engine(
            model,
            Numbers(),
            device=torch.device("cpu"),
            dtype=torch.float32,
            end_tokens=frozenset(),
            context_length=128,
            cache_tokens=2048,
            limits=Limits(**{"tokens": 32, "sequences": 8, **limits}),
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def test_answers_of_the_engine_are_greedy_ones_of_peft(mix: Callable, case_of: Callable, engine_of: Callable) -> None:
    """With parts of prompts, common beginnings taken from the cache, and requests beside each other."""
    mixed, case = mix(layerwise_scalings=True), case_of("llama")
    engine, dice = engine_of(mixed.model), random.Random(0)
    shared = case.prompt(40)
    prompts = [[*shared[: dice.choice([0, 20, 40])], *case.prompt(dice.randint(1, 20), seed)] for seed in range(6)]
    first = collect(engine.stream(prompts[0], Sampling(max_tokens=6, temperature=0.0))).tokens
    streams = [engine.stream(prompt, Sampling(max_tokens=6, temperature=0.0)) for prompt in prompts]
    answers = [collect(stream).tokens for stream in streams]
    assert answers[0] == first
    assert engine.statistics().totals.reused_tokens > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = mixed.expected([*prompt, *answer])[len(prompt) - 1 : -1]
        assert list(answer) == expected.argmax(-1).tolist()


# What does not fit


def test_what_does_not_fit_is_refused(mix: Callable, case_of: Callable) -> None:
    mixed, case = mix(layerwise_scalings=True), case_of("llama")
    fresh = replace(case.base, model=copy.deepcopy(case.model))
    with pytest.raises(OptionError, match="depend on where the prompt ended"):
        attach_xlora(fresh, mixed.xlora, non_granular_index=4)
    with pytest.raises(OptionError, match="adapted already"):
        attach_xlora(mixed.base, mixed.xlora)
    with pytest.raises(WeightMismatch, match="change 12 layers; the classifier has scalings for 18"):
        attach_xlora(fresh, replace(mixed.xlora, adapters=mixed.xlora.adapters[:2] + mixed.xlora.adapters[:1]))
    with pytest.raises(WeightMismatch, match="the number None"):
        attach_xlora(fresh, replace(mixed.xlora, layers={"model.layers.0.self_attn.q_proj": 0}))
    narrow = replace(mixed.xlora, config=replace(mixed.xlora.config, hidden_size=32))
    with pytest.raises(WeightMismatch, match="states of 32 numbers; the model's have 64"):
        attach_xlora(fresh, narrow)
    assert not any(getattr(module, "adapter", None) for module in fresh.model.modules())


def test_a_head_is_not_mixed(mix: Callable, case_of: Callable, train: Callable) -> None:
    mixed, case = mix(), case_of("llama")
    with_head = train(case, target_modules=["q_proj", "lm_head"]).read()
    fresh = replace(case.base, model=copy.deepcopy(case.model))
    with pytest.raises(WeightMismatch, match="changes lm_head"):
        attach_xlora(fresh, replace(mixed.xlora, adapters=(*mixed.xlora.adapters[:2], with_head)))
