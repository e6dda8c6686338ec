"""How requests are treated: deadlines, a full queue, salts, priorities, and what an engine tells of them."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.errors import OptionError, Overloaded, RequestTimeout
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.events import Begun, Ended, Event, Queued, Stepped
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.engine.terms import Terms
from bestiary.generation.sampling import Sampling
from bestiary.testing.settled import settled

PROMPT = [(5 * index) % 97 for index in range(40)]
Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def model(network: Callable[..., Any]) -> Any:
    return network()


def slow(seconds: float) -> Any:
    """A processor that makes every token of its request take a while."""

    def wait(logits: Any, tokens: Any) -> Any:
        time.sleep(seconds)
        return logits

    return wait


def test_a_deadline_ends_a_request_and_no_other(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    late = engine.stream(PROMPT, Sampling(max_tokens=100, processors=(slow(0.02),)), Terms(timeout=0.2))
    other = engine.stream(PROMPT, Sampling(max_tokens=40))
    with pytest.raises(RequestTimeout, match=r"0\.2 s are over, after \d+ tokens"):
        collect(late)
    assert len(collect(other).tokens) == 40
    assert settled(engine).blocks_used == 0


def test_a_deadline_also_ends_a_request_that_waits(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, limits=Limits(tokens=48, sequences=1))
    first = engine.stream(PROMPT, Sampling(max_tokens=60, processors=(slow(0.01),)))
    with pytest.raises(RequestTimeout, match="after 0 tokens"):
        collect(engine.stream(PROMPT, Sampling(max_tokens=2), Terms(timeout=0.05)))
    assert len(collect(first).tokens) == 60


def test_a_full_queue_refuses_and_recovers(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, limits=Limits(tokens=48, sequences=1), max_waiting=2)
    running = engine.stream(PROMPT, Sampling(max_tokens=30, processors=(slow(0.01),)))
    next(running)
    waiting = [engine.stream(PROMPT, Sampling(max_tokens=2)) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 requests wait already"):
        engine.stream(PROMPT, Sampling(max_tokens=2))
    running.close()
    assert [len(collect(stream).tokens) for stream in waiting] == [2, 2]
    assert len(collect(engine.stream(PROMPT, Sampling(max_tokens=2))).tokens) == 2


def test_other_salts_share_no_prefix(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)

    def reused(salt: str) -> int:
        before = engine.statistics().totals.reused_tokens
        collect(engine.stream(PROMPT, Sampling(max_tokens=1), Terms(cache_salt=salt)))
        return engine.statistics().totals.reused_tokens - before

    assert [reused("a"), reused("b"), reused(""), reused("a"), reused("")] == [0, 0, 0, 32, 32]


def test_lower_priorities_are_served_first(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, limits=Limits(tokens=48, sequences=1))
    order: list[int] = []
    ended: dict[int, int] = {}
    engine.subscribe(lambda event: order.append(event.request) if isinstance(event, Begun) else None)
    first = engine.submit(PROMPT, Sampling(max_tokens=20, processors=(slow(0.01),)))
    first.next()
    for priority in (3, 1, 2):
        ended[priority] = engine.submit(PROMPT, Sampling(max_tokens=2), Terms(priority=priority)).id
    last = engine.submit(PROMPT, Sampling(max_tokens=1), Terms(priority=9))
    last.next()
    assert order == [first.id, ended[1], ended[2], ended[3], last.id]


def test_events_tell_the_life_of_a_request(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    events: list[Event] = []
    leave = engine.subscribe(events.append)
    whole = threading.Event()
    engine.subscribe(lambda event: whole.set() if isinstance(event, Ended) and event.outcome == "cancelled" else None)
    collect(engine.stream(PROMPT, Sampling(max_tokens=5)))
    collect(engine.stream(PROMPT, Sampling(max_tokens=3, n=2, temperature=1.0)))
    stream = engine.stream(PROMPT, Sampling(max_tokens=100))
    next(stream)
    stream.close()
    assert whole.wait(20)
    leave()
    collect(engine.stream(PROMPT, Sampling(max_tokens=2)))
    queued = [event for event in events if isinstance(event, Queued)]
    assert [(event.prompt_tokens, event.choices) for event in queued] == [(40, 1), (40, 2), (40, 1)]
    begun = [event for event in events if isinstance(event, Begun)]
    assert [event.reused_tokens for event in begun] == [0, 32, 32] and begun[0].request == queued[0].request
    ended = [event for event in events if isinstance(event, Ended)]
    assert [event.outcome for event in ended] == ["length", "length", "length", "cancelled"]
    assert [event.completion_tokens for event in ended[:3]] == [5, 3, 3]
    for event in ended:
        assert event.queue_seconds is not None and event.first_token_seconds is not None
        assert 0 <= event.queue_seconds <= event.first_token_seconds <= event.seconds
    steps = [event for event in events if isinstance(event, Stepped)]
    assert steps[0].tokens == 40 and all(step.seconds > 0 and step.sequences > 0 for step in steps)


def test_a_listener_that_fails_disturbs_nobody(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    engine.subscribe(lambda event: 1 / 0)
    assert len(collect(engine.stream(PROMPT, Sampling(max_tokens=3))).tokens) == 3


def test_statistics_have_the_recent_times(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    assert engine.statistics().first_token.mean is None
    for _ in range(3):
        collect(engine.stream(PROMPT, Sampling(max_tokens=4)))
    found = engine.statistics()
    assert found.queue.mean is not None and found.first_token.mean is not None and found.inter_token.mean is not None
    assert found.queue.mean < found.first_token.mean
    assert found.first_token.median is not None and found.first_token.p95 is not None
    assert found.first_token.median <= found.first_token.p95


@pytest.mark.parametrize(
    "options",
    [
        {"priority": "high"},
        {"priority": True},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": "1"},
        {"cache_salt": b"x"},
        {"cache_salt": "x" * 2000},
        {"speculate": 1},
    ],
    ids=str,
)
def test_terms_out_of_their_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Terms(**options)
