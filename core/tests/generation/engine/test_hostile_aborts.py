"""Requests that are given up, at every point of their life: blocks go back at once, and nobody else notices."""

import gc
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.events import Begun, Ended, Event, Stepped
from bestiary.generation.engine.request import Request
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.testing.greedy import greedy_tokens
from bestiary.testing.settled import settled

LONG = [(5 * place) % 97 for place in range(120)]
OTHERS = [[1, 2, 3], [(7 * place) % 97 for place in range(30)]]
GREEDY = Sampling(max_tokens=30)
Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def model(network: Callable[..., Any]) -> Any:
    return network()


class Log:
    """The events of an engine, and actions for when one comes, in the engine's own thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.events = engine, list[Event]()
        self.when: Callable[[Event], None] = lambda event: None
        self._changed = threading.Condition()
        engine.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()
        self.when(event)

    def ended(self, request: Request) -> Ended:
        """How a request ended, waiting for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._end(request) is not None, timeout=60), "it never ended"
            found = self._end(request)
            assert found is not None
            return found

    def steps_until_end(self, request: Request, since: int) -> int:
        """Steps that ended after the event number `since` and before a request did."""
        end = self.ended(request)
        return sum(isinstance(event, Stepped) for event in self.events[since : self.events.index(end)])

    def _end(self, request: Request) -> Ended | None:
        ends = [event for event in self.events if isinstance(event, Ended) and event.request == request.id]
        return ends[0] if ends else None


def beside(engine: Engine, act: Callable[[], None], model: Any) -> None:
    """Do something while two others run, who must not notice; afterwards nothing is left."""
    streams = [engine.stream(prompt, GREEDY) for prompt in OTHERS]
    first = [next(stream).tokens for stream in streams]
    act()
    for prompt, start, stream in zip(OTHERS, first, streams, strict=True):
        assert start + collect(stream).tokens == tuple(greedy_tokens(model, prompt, 30))
    settled(engine)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_given_up_after_each_of_its_first_tokens(model: Any, engine_over: Make, count: int, times: int) -> None:
    engine = engine_over(model)
    log = Log(engine)

    def act() -> None:
        request = engine.submit(LONG, Sampling(max_tokens=40))
        for _ in range(count):
            request.next()
        for _ in range(times):
            request.cancel()
        since = len(log.events)
        assert log.ended(request).outcome == "cancelled"
        assert log.steps_until_end(request, since) <= 1, "it ends with the step that runs"
        assert count <= log.ended(request).completion_tokens < 40

    beside(engine, act, model)
    again = engine.submit(LONG, Sampling(max_tokens=3))
    assert tuple(token for _ in range(3) for token in again.next().tokens) == tuple(greedy_tokens(model, LONG, 3))
    assert log.ended(again).reused_tokens == (len(LONG) - 1) // 16 * 16, "its finished prefix is there"


def test_given_up_before_it_began(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, limits=Limits(tokens=48, sequences=2))
    log = Log(engine)

    def act() -> None:
        waiting = [engine.submit(LONG, Sampling(max_tokens=40)) for _ in range(3)]
        assert engine.statistics().blocks_used < 10, "the two that run need 7, and one of these alone 8"
        for request in (waiting[1], waiting[0], waiting[2]):
            request.cancel()
            request.cancel()
            since = len(log.events)
            ended = log.ended(request)
            assert (ended.outcome, ended.completion_tokens, ended.queue_seconds) == ("cancelled", 0, None)
            assert log.steps_until_end(request, since) <= 1

    beside(engine, act, model)


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_given_up_in_the_middle_of_its_prompt(model: Any, engine_over: Make, steps: int) -> None:
    """Cancelled in the engine's own thread when so many steps of its prompt have run, of eight or so."""
    engine = engine_over(model, limits=Limits(tokens=18, sequences=8))
    log = Log(engine)

    def act() -> None:
        known, ran = threading.Event(), [-1]  # before its first step

        def when(event: Event) -> None:
            assert known.wait(60)
            if isinstance(event, Begun) and event.request == request.id:
                ran[0] = 0
            elif isinstance(event, Stepped) and ran[0] >= 0:
                ran[0] += 1
            if ran[0] == steps:
                request.cancel()

        log.when = when
        request = engine.submit(LONG, Sampling(max_tokens=40))
        known.set()
        ended = log.ended(request)
        assert (ended.outcome, ended.completion_tokens) == ("cancelled", 0)

    beside(engine, act, model)
    again = engine.submit(LONG, Sampling(max_tokens=3))
    assert tuple(token for _ in range(3) for token in again.next().tokens) == tuple(greedy_tokens(model, LONG, 3))
    reused = log.ended(again).reused_tokens
    assert reused % 16 == 0 and (0 < reused < 112 if steps > 1 else reused <= 32), "what was finished is there"


def test_given_up_after_its_end(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    log = Log(engine)

    def act() -> None:
        request = engine.submit(LONG, Sampling(max_tokens=2))
        assert [request.next().finish_reason for _ in range(2)] == [None, "length"]
        for _ in range(3):
            request.cancel()
        assert log.ended(request).outcome == "length"
        stream = engine.stream(LONG, Sampling(max_tokens=2))
        assert collect(stream).tokens == tuple(greedy_tokens(model, LONG, 2))
        stream.close()
        stream.close()
        assert list(stream) == []

    beside(engine, act, model)
    assert sum(isinstance(event, Ended) for event in log.events) == 4


def test_all_at_once(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, limits=Limits(tokens=48, sequences=4))
    streams = [engine.stream(LONG[index:], Sampling(max_tokens=40)) for index in range(20)]
    next(streams[0])
    for stream in streams:
        stream.close()
    settled(engine)
    assert collect(engine.stream(LONG, Sampling(max_tokens=3))).tokens == tuple(greedy_tokens(model, LONG, 3))


def test_given_up_with_all_of_its_answers(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    log = Log(engine)

    def act() -> None:
        request = engine.submit(LONG, Sampling(max_tokens=40, n=4, temperature=1.0, seed=1))
        for _ in range(6):
            request.next()
        request.cancel()
        since = len(log.events)
        assert log.steps_until_end(request, since) <= 1

    beside(engine, act, model)


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_random_aborts_leave_nothing(model: Any, engine_over: Make) -> None:
    engine = engine_over(model, cache_tokens=272, limits=Limits(tokens=40, sequences=6))
    dice = random.Random(4)
    threads = threading.active_count()
    roots = [[dice.randrange(97) for _ in range(100)] for _ in range(3)]

    open_streams: list[Any] = []

    def one() -> None:
        root = dice.choice(roots)
        prompt = [*root[: dice.randrange(100)], *(dice.randrange(97) for _ in range(dice.randint(1, 20)))]
        open_streams.append(engine.stream(prompt, Sampling(max_tokens=40, n=dice.choice([1, 1, 1, 2]))))
        if len(open_streams) > dice.randrange(1, 8):
            stream = open_streams.pop(dice.randrange(len(open_streams)))
            for _ in range(dice.choice([0, 0, 0, 1, 2, 4])):
                next(stream)
            if dice.random() < 0.5:
                stream.close()  # or it is forgotten

    def aborts(count: int) -> None:
        for _ in range(count):
            one()
        open_streams.clear()
        settled(engine)

    aborts(300)
    before = resident() if os.path.exists("/proc/self/statm") else 0  # noqa: PTH110
    aborts(1000)
    after = resident() if before else 0
    assert after - before < 4 << 20, "memory grows with every abort"
    assert threading.active_count() <= threads + 1
    totals = engine.statistics().totals
    assert totals.requests >= 1300 and totals.preemptions > 0 and totals.reused_tokens > 0
    for root in roots:
        assert collect(engine.stream(root, Sampling(max_tokens=8))).tokens == tuple(greedy_tokens(model, root, 8))


def test_an_interrupt_of_whoever_waits_for_a_whole_answer_gives_it_up(model: Any, engine_over: Make) -> None:
    """What Ctrl-C does to `generate`: the caller waits in its main thread, where signals arrive."""
    engine = engine_over(model)
    log = Log(engine)

    def slow(logits: Any, tokens: Any) -> Any:
        time.sleep(0.005)
        return logits

    def press(event: Event) -> None:
        if isinstance(event, Begun):
            log.when = lambda event: None
            signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None and threading.current_thread() is threading.main_thread()
    log.when = press
    with pytest.raises(KeyboardInterrupt):
        collect(engine.stream(LONG, Sampling(max_tokens=40, processors=(slow,))))
    gc.collect()
    settled(engine)
    (ended,) = [event for event in log.events if isinstance(event, Ended)]
    assert ended.outcome == "cancelled" and ended.completion_tokens < 40
