"""A cache that is too small for what is asked of it, and memory that runs out in the middle of a step."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.errors import OutOfMemory, Overloaded, RequestError
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.testing.greedy import greedy_tokens
from bestiary.testing.settled import settled

Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def model(network: Callable[..., Any]) -> Any:
    return network()


@pytest.mark.parametrize("blocks", [5, 7, 12])
@pytest.mark.parametrize("changes", [{}, {"sliding_window": 20}], ids=["full", "window"])
def test_many_requests_over_few_blocks_all_end_with_the_tokens_that_they_have_alone(
    network: Callable[..., Any], engine_over: Make, changes: dict[str, Any], blocks: int
) -> None:
    model = network(**changes)
    engine = engine_over(model, cache_tokens=16 * blocks, limits=Limits(tokens=24, sequences=16), max_waiting=100)
    dice = random.Random(blocks)
    asked = []
    for _ in range(50):
        prompt = [dice.randrange(97) for _ in range(dice.randint(1, 50))]
        asked.append((prompt, dice.randint(1, min(160, 16 * blocks) - len(prompt))))
    answers: dict[int, tuple[int, ...]] = {}

    def ask(index: int) -> None:
        prompt, count = asked[index]
        answers[index] = collect(engine.stream(prompt, Sampling(max_tokens=count))).tokens

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
        assert not thread.is_alive(), engine.statistics()
    for index, (prompt, count) in enumerate(asked):
        assert answers[index] == tuple(greedy_tokens(model, prompt, count)), index
    settled(engine)
    assert blocks > 7 or changes or engine.statistics().totals.preemptions > 0, "nothing was ever short"


@pytest.mark.parametrize("length", [80, 81, 100, 159])
def test_a_prompt_that_can_never_fit_is_refused_at_once(model: Any, engine_over: Make, length: int) -> None:
    """Before anything is queued, also while others hold the whole cache."""
    engine = engine_over(model, cache_tokens=80)
    running = engine.stream([1] * 60, Sampling(max_tokens=19))
    first = next(running)
    with pytest.raises(RequestError, match=rf"{length} tokens.*cache holds 80"):
        engine.submit([1] * length, Sampling(max_tokens=1))
    assert engine.statistics().waiting == 0
    assert first.tokens + collect(running).tokens == tuple(greedy_tokens(model, [1] * 60, 19))
    assert len(collect(engine.stream([1] * 79, Sampling())).tokens) == 1
    settled(engine)


def test_a_request_that_can_never_fit_beside_a_window_fails_and_no_other(
    network: Callable[..., Any], engine_over: Make
) -> None:
    """Layers with a window have a pool of their own, which may be the smaller one."""
    model = network(sliding_window=64)
    engine = engine_over(model, cache_tokens=48, limits=Limits(tokens=32, sequences=2))
    running = engine.stream([3] * 10, Sampling(max_tokens=20))
    outcomes = []
    for length in (47, 48, 100):
        try:
            outcomes.append(len(collect(engine.stream([1] * length, Sampling())).tokens))
        except RequestError as error:
            assert "cache" in str(error)
            outcomes.append(0)
    assert outcomes[1:] == [0, 0]
    assert collect(running).tokens == tuple(greedy_tokens(model, [3] * 10, 20))
    settled(engine)


def test_a_full_queue_refuses_quickly_and_loses_nobody(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, cache_tokens=96, limits=Limits(tokens=24, sequences=2), max_waiting=5)
    accepted, refused = [], 0
    for index in range(200):
        try:
            accepted.append((index % 97, engine.stream([index % 97] * 20, Sampling(max_tokens=10))))
        except Overloaded:
            refused += 1
    assert refused and len(accepted) >= 5
    for token, stream in accepted:
        assert collect(stream).tokens == tuple(greedy_tokens(model, [token] * 20, 10))
    settled(engine)


class Failing:
    """Makes a model's forward pass run out of memory where a step has a token."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch, token: int, fail: Callable[[], object]) -> None:
        whole, self.left = model.hidden, 1

        def hidden(tokens: Any, batch: Any) -> Any:
            if self.left and bool((tokens == token).any()):
                self.left -= 1
                fail()
            return whole(tokens, batch)

        monkeypatch.setattr(model, "hidden", hidden)


def test_a_step_that_runs_out_of_memory_fails_its_request_and_the_next_is_served(
    model: Any, engine_over: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_over(model)
    expected = tuple(greedy_tokens(model, [50] * 40, 5))
    failing = Failing(model, monkeypatch, 50, lambda: bytearray(1 << 62))
    with pytest.raises(OutOfMemory, match="did not fit"):
        collect(engine.stream([50] * 40, Sampling(max_tokens=5)))
    assert failing.left == 0
    settled(engine)
    assert collect(engine.stream([50] * 40, Sampling(max_tokens=5))).tokens == expected
    settled(engine)


def test_a_step_that_runs_out_of_memory_again_and_again_ends_all_who_need_it(
    model: Any, engine_over: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_over(model)
    failing = Failing(model, monkeypatch, 50, lambda: bytearray(1 << 62))
    failing.left = 1000
    streams = [engine.stream([50] * length, Sampling(max_tokens=5)) for length in (3, 30, 60)]
    for stream in streams:
        with pytest.raises(OutOfMemory):
            collect(stream)
    settled(engine)
    monkeypatch.undo()
    assert collect(engine.stream([1] * 9, Sampling(max_tokens=5))).tokens == tuple(greedy_tokens(model, [1] * 9, 5))
