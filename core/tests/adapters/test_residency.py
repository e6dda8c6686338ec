"""Adapters that come and go while requests run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bestiary.adapters.residency import Adapters
from bestiary.adapters.status import AdapterLimits
from bestiary.errors import GenerationError, OptionError, RequestError, WeightMismatch

TARGETS = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def case(case_of: Callable) -> Any:
    return case_of("llama")


@pytest.fixture
def pair(case: Any, train: Callable) -> list[Any]:
    return [train(case, seed, target_modules=TARGETS, r=seed).read() for seed in (1, 2)]


@pytest.fixture
def adapters(case: Any) -> Iterator[Adapters]:
    made = case.adapters()
    yield made
    for info in made.status().adapters:
        made.unload(info.alias)
    assert changed_layers(case) == []


def changed_layers(case: Any) -> list[str]:
    return [name for name, module in case.model.named_modules() if getattr(module, "adapter", None) is not None]


def test_replaced_while_leases_are_out(case: Any, adapters: Adapters, pair: list[Any]) -> None:
    prompt = case.prompt(8)
    first = adapters.load("it", pair[0])
    old = adapters.lease("it")
    before = case.logits([prompt], adapters, [old.generation])[0]
    second = adapters.replace("it", pair[1], revision="abc", expected=first.generation)
    new = adapters.lease("it")
    assert (first.exact, second.exact, second.revision) == ("it@1", "it@2", "abc")
    # The two generations serve in one step, each its own request.
    both = case.logits([prompt, prompt], adapters, [old.generation, new.generation])
    assert torch.allclose(both[0], before, atol=1e-6) and not torch.allclose(both[1], before, atol=1e-3)
    status = adapters.status()
    assert [(each.generation, each.retired, each.leases) for each in status.generations] == [
        (1, True, 1),
        (2, False, 1),
    ]
    assert status.adapters == (second,) and status.retired == 1 and status.bytes == first.bytes + second.bytes
    old.release()
    old.release()
    assert [each.generation for each in adapters.status().generations] == [2]
    with pytest.raises(GenerationError, match="it@1 was unloaded"), adapters.step([(old.generation, 8)], None):
        pass
    new.release()


def test_unloaded_while_leases_are_out(case: Any, adapters: Adapters, pair: list[Any]) -> None:
    adapters.load("it", pair[0])
    lease = adapters.lease("it@1")
    prompt = case.prompt(8)
    before = case.logits([prompt], adapters, [lease.generation])[0]
    adapters.unload("it", expected=1)
    with pytest.raises(RequestError, match="no adapter 'it'"):
        adapters.lease("it")
    assert adapters.status().adapters == () and changed_layers(case)
    assert torch.equal(case.logits([prompt], adapters, [lease.generation])[0], before)
    with lease:
        pass
    assert adapters.status().generations == () and changed_layers(case) == []


def test_only_layers_that_an_adapter_changes_are_touched(case: Any, adapters: Adapters, train: Callable) -> None:
    one = train(case, target_modules=["q_proj"], layers_to_transform=[0]).read()
    two = train(case, target_modules=["q_proj"], layers_to_transform=[0, 2]).read()
    adapters.load("one", one)
    adapters.load("two", two)
    layers = [f"model.layers.{index}.self_attn.q_proj" for index in (0, 2)]
    assert changed_layers(case) == layers
    adapters.unload("two")
    assert changed_layers(case) == layers[:1]
    adapters.unload("one")
    assert changed_layers(case) == []


def test_two_objects_do_not_share_a_model(case: Any, adapters: Adapters, pair: list[Any]) -> None:
    adapters.load("it", pair[0])
    other = case.adapters()
    with pytest.raises(OptionError, match="adapted already"):
        other.load("it", pair[1])
    assert other.status().generations == ()


def test_names(adapters: Adapters, pair: list[Any]) -> None:
    for alias in ("", "a/b", "..", "a@1", "x" * 65, "a\n", "ä", None, 3):
        with pytest.raises(OptionError, match="cannot be the alias"):
            adapters.load(alias, pair[0])  # type: ignore[arg-type]
    adapters.load("french", pair[0])
    with pytest.raises(OptionError, match="already") as taken:
        adapters.load("french", pair[0])
    assert "replace" in str(taken.value)
    for name in ("frensh", "french@2", "french@", "french@01", "@1", "", "x" * 100_000):
        with pytest.raises(RequestError, match="no adapter"):
            adapters.lease(name)
    with pytest.raises(RequestError, match="Did you mean 'french'"):
        adapters.lease("frensh")
    for act in (adapters.unload, lambda alias: adapters.replace(alias, pair[0])):
        with pytest.raises(OptionError, match="no adapter 'frensh'"):
            act("frensh")
    for act in (adapters.unload, lambda alias, expected: adapters.replace(alias, pair[0], expected=expected)):
        with pytest.raises(OptionError, match="generation 1, not 7"):
            act("french", expected=7)


def test_limits(case: Any, pair: list[Any]) -> None:
    size = 4 * pair[0].numbers
    limited = Adapters(case.base, AdapterLimits(count=2, rank=1, bytes=2 * size))
    with pytest.raises(OptionError, match="rank 2; the limit is 1"):
        limited.load("it", pair[1])
    limited.load("a", pair[0])
    limited.load("b", pair[0])
    with pytest.raises(OptionError, match="2 adapters are loaded"):
        limited.load("c", pair[0])
    # What a replaced adapter took is free, unless a request still uses it.
    limited.replace("a", pair[0])
    lease = limited.lease("a")
    with pytest.raises(OptionError, match=f"would take {3 * size} bytes; the limit is {2 * size}"):
        limited.replace("a", pair[0])
    assert limited.status().bytes == 2 * size == sum(info.bytes for info in limited.status().adapters)
    limited.unload("b")
    limited.replace("a", pair[0])
    lease.release()
    limited.unload("a")
    assert limited.status().bytes == 0 and changed_layers(case) == []


def test_bytes_are_those_of_the_matrices(case_of: Callable, train: Callable) -> None:
    """What several layers share counts once: gate and up of an expert have one A."""
    case = case_of("qwen")
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = train(case, target_modules=["q_proj"], target_parameters=experts).read()
    adapters = case.adapters()
    assert adapters.load("it", adapter).bytes == 4 * adapter.numbers == adapter.nbytes
    adapters.unload("it")


def test_a_load_that_fails_leaves_nothing(case: Any, adapters: Adapters, case_of: Callable, train: Callable) -> None:
    stranger = train(case_of("qwen"), target_modules=[*TARGETS, "shared_expert.up_proj"]).read()
    with pytest.raises(WeightMismatch, match=r"shared_expert\.up_proj"):
        adapters.load("it", stranger)
    assert adapters.status().generations == () and changed_layers(case) == []


def test_another_base_is_warned_of(
    adapters: Adapters, case: Any, train: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    trained = train(case, target_modules=TARGETS)
    path = trained.folder / "adapter_config.json"
    text = path.read_text()
    assert '"base_model_name_or_path": null' in text
    for name, warned in (("org/llama", False), ("org/alpaca", True)):
        path.write_text(text.replace('"base_model_name_or_path": null', f'"base_model_name_or_path": "{name}"'))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            adapters.load(f"it{len(name)}", trained.read())
        assert ("was trained on org/alpaca" in caplog.text) is warned


def test_many_threads(case: Any, adapters: Adapters, pair: list[Any]) -> None:
    """Requests, loads, replacements and unloads at once: whoever has a lease gets that generation's answer."""
    prompt = case.prompt(6)
    expected = {}
    for rank, adapter in enumerate(pair, 1):
        adapters.load(f"look{rank}", adapter)
        with adapters.lease(f"look{rank}") as lease:
            expected[rank] = case.logits([prompt], adapters, [lease.generation])[0]
    adapters.load("it", pair[0])
    faults: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        try:
            for _ in range(12):
                with adapters.lease("it") as lease:
                    logits = case.logits([prompt], adapters, [lease.generation])[0]
                    assert torch.allclose(logits, expected[lease.generation.info.rank], atol=1e-5)
        except BaseException as fault:
            faults.append(fault)

    def change() -> None:
        try:
            turn = 0
            while not stop.is_set():
                adapters.replace("it", pair[turn % 2])
                adapters.load("other", pair[0])
                adapters.unload("other")
                turn += 1
        except BaseException as fault:
            faults.append(fault)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    changing = threading.Thread(target=change)
    for thread in (*asking, changing):
        thread.start()
    for thread in asking:
        thread.join()
    stop.set()
    changing.join()
    assert faults == []
    assert len(adapters.status().generations) == 3 and all(not each.leases for each in adapters.status().generations)
