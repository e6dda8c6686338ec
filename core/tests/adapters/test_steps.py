"""One forward pass with many adapters: each row gets what it gets alone, and all others the model as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bestiary.adapters.step import Current, Layers, LinearChange, Part, select
from bestiary.errors import GenerationError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.nn import Batch
from bestiary.testing.conformance import assert_close

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
THREE: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": [*ATTENTION, "lm_head"], "r": 8},
    "dora": {"target_modules": ["q_proj", "v_proj", "shared_expert.up_proj"], "use_dora": True, "use_rslora": True},
    "experts": {
        "target_modules": ["o_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        "r": 2,
    },
}


def test_mixed_equals_each_alone(case_of: Callable, train: Callable, leased: Callable) -> None:
    case = case_of("qwen")
    trained = {name: train(case, seed, 0.3, **options) for seed, (name, options) in enumerate(THREE.items())}
    adapters, (plain, dora, experts) = leased(case, {name: each.read() for name, each in trained.items()})
    generations = [plain, None, experts, dora, plain, None, dora]
    prompts = [case.prompt(length, length) for length in (5, 9, 17, 1, 12, 3, 8)]
    together = case.logits(prompts, adapters, generations)
    base = case.logits(prompts)
    for logits, prompt, generation, unchanged in zip(together, prompts, generations, base, strict=True):
        if generation is None:
            # Not bit for bit: an expert's rows, and so the blocks of its products, depend on what others route to it.
            assert_close(logits, unchanged)
        else:
            assert_close(logits, trained[generation.info.alias].logits(prompt))
            assert_close(logits, case.logits([prompt], adapters, [generation])[0])


@pytest.mark.parametrize("options", [THREE["plain"], {"target_modules": ATTENTION, "use_dora": True}])
def test_rows_without_an_adapter_are_the_model_s_bit_for_bit(
    options: dict[str, Any], case_of: Callable, train: Callable, leased: Callable
) -> None:
    case = case_of("llama")
    adapters, generations = leased(case, {"it": train(case, size=0.3, **options).read()})
    prompts = [case.prompt(length, length) for length in (5, 9, 17)]
    together = case.logits(prompts, adapters, [None, *generations, None])
    base = case.logits(prompts)
    assert torch.equal(together[0], base[0]) and torch.equal(together[2], base[2])
    assert not torch.equal(together[1], base[1])


def test_the_head_sees_only_the_rows_that_are_wanted(case_of: Callable, train: Callable, leased: Callable) -> None:
    case = case_of("llama")
    trained = {seed: train(case, seed, target_modules=["lm_head", "up_proj"]) for seed in (1, 2)}
    adapters, generations = leased(case, {f"a{seed}": each.read() for seed, each in trained.items()})
    prompts = [case.prompt(length, length) for length in (6, 4, 9)]
    counts = [len(prompt) for prompt in prompts]
    batch = make_batch([SequenceCache(len(case.model.specs)) for _ in prompts], counts, "cpu", all_outputs=True)
    outputs = [18, 3, 5, 8]
    some = Batch(batch.positions, batch.lengths, batch.layers, torch.tensor(outputs))
    spans = list(zip([generations[0], None, generations[1]], counts, strict=True))
    with torch.inference_mode(), adapters.step(spans, outputs):
        logits = case.model(torch.tensor([token for prompt in prompts for token in prompt]), some)
    assert_close(logits[1], trained[1].logits(prompts[0])[3])
    assert_close(logits[2], trained[1].logits(prompts[0])[5])
    assert_close(logits[0], trained[2].logits(prompts[2])[8])
    assert_close(logits[3], case.reference.logits(prompts[1])[2])


def test_other_threads_and_objects_see_the_model_alone(case_of: Callable, train: Callable, leased: Callable) -> None:
    case = case_of("llama")
    adapters, generations = leased(case, {"it": train(case, target_modules=ATTENTION).read()})
    prompt = case.prompt(7)
    before = case.logits([prompt])[0]
    changed = case.logits([prompt], adapters, generations)[0]
    assert not torch.equal(before, changed)
    elsewhere: list[torch.Tensor] = []
    with adapters.step([(generations[0], len(prompt))], None):
        thread = threading.Thread(target=lambda: elsewhere.extend(case.logits([prompt])))
        thread.start()
        thread.join()
        # A step within a step is one of its own, and the outer one goes on after it.
        assert torch.equal(case.logits([prompt], adapters, [None])[0], before)
        assert torch.equal(case.logits([prompt])[0], changed)
    assert torch.equal(elsewhere[0], before)
    assert torch.equal(case.logits([prompt])[0], before)


def test_a_step_of_other_rows_is_refused(case_of: Callable, train: Callable, leased: Callable) -> None:
    case = case_of("llama")
    adapters, generations = leased(case, {"it": train(case, target_modules=ATTENTION).read()})
    with adapters.step([(generations[0], 5)], None), pytest.raises(GenerationError, match="sees 6 rows of a step of 5"):
        case.logits([case.prompt(6)])


def test_a_fault_ends_the_step(case_of: Callable, train: Callable, leased: Callable) -> None:
    case = case_of("llama")
    adapters, generations = leased(case, {"it": train(case, target_modules=ATTENTION).read()})
    with pytest.raises(ZeroDivisionError), adapters.step([(generations[0], 5)], None):
        raise ZeroDivisionError
    assert torch.equal(case.logits([case.prompt(6)])[0], case.logits([case.prompt(6)])[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_types_are_those_of_peft(dtype: torch.dtype) -> None:
    """Bit for bit, with the adapter in the type of the model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    layer = nn.Linear(64, 48).to(dtype)
    x = torch.randn(5, 64).to(dtype)
    y = layer(x).detach()
    config = LoraConfig(r=4, lora_alpha=3, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(nn.Sequential(layer), config, autocast_adapter_dtype=False)  # type: ignore[arg-type]
    wrapped: Any = model.base_model.model[0]
    part = Part(wrapped.lora_A["default"].weight.detach(), wrapped.lora_B["default"].weight.detach(), 0.75)
    assert part.a.dtype == dtype
    part.change(x, y, slice(None))
    assert torch.equal(y, model(x))


def test_rows_without_an_adapter_cost_nothing() -> None:
    assert select([(None, 5), (None, 2)], None, torch.device("cpu")) is None
    part = Part(torch.ones(1, 3), torch.ones(2, 1), 1.0, start=1)
    selection = select([(None, 1), (Layers({"x": (part,)}, {}, 0), 2)], [2, 0], torch.device("cpu"))
    assert selection is not None and selection.owners.tolist() == [-1, 0, 0]
    assert [rows.rows.tolist() for rows in selection.head if rows.rows is not None] == [[0]]
    current = Current()
    current.selection = selection
    y = LinearChange(current, "x", is_head=False)(torch.ones(3, 3), torch.zeros(3, 4))
    assert y.tolist() == [[0, 0, 0, 0], [0, 3, 3, 0], [0, 3, 3, 0]]
