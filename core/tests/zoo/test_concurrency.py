"""Several callers at once: one load for all, errors for all, nobody waits for what is not theirs."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import bestiary
from bestiary.errors import BestiaryError, OutOfMemory, RequestError
from bestiary.zoo import Entry, Zoo

State = Callable[[Zoo], dict[str, str]]


def together(*calls: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(timeout=100)
        assert not thread.is_alive(), "a thread hangs"


def asking(zoo: Zoo, count: int) -> None:
    """Wait until so many callers are on their way to a lease."""
    while len(zoo._keeper._ledger.asks) < count:
        time.sleep(0.001)


def joining(zoo: Zoo, count: int) -> None:
    """Wait until so many callers have joined the load that is under way: who comes later begins another one."""
    # An attempt that is over, such as to tell the size, may still be what a caller is about to look at.
    while sum(ask.attempt is ask.slot.attempt for ask in list(zoo._keeper._ledger.asks)) < count:
        time.sleep(0.001)


class Gate:
    """Stops a load in its middle."""

    def __init__(self, name: str) -> None:
        self.name, self.begun, self.opened = name, threading.Event(), threading.Event()

    def __call__(self, name: str) -> None:
        if name == self.name:
            self.begun.set()
            assert self.opened.wait(100)


def test_many_who_ask_at_once_get_one_pipeline(two: Zoo, loader: Any) -> None:
    loader.before = gate = Gate("ant")
    found: list[Any] = []

    def ask() -> None:
        with two.lease("ant") as pipe:
            found.append(pipe)

    threads = together(*[ask] * 8)
    assert gate.begun.wait(100)
    joining(two, 8)
    gate.opened.set()
    joined(threads)
    assert len(found) == 8 and len(set(map(id, found))) == 1
    assert loader.loads == ["ant"]


def test_a_load_stops_nobody_else(two: Zoo, loader: Any, alone: Any, state: State) -> None:
    two.load("bee")
    loader.before = gate = Gate("ant")
    threads = together(lambda: two.load("ant"))
    assert gate.begun.wait(100)
    assert state(two)["ant"] == "loading"
    assert two.generate("a", model="bee", max_tokens=5, temperature=0.0).tokens == alone("bee", "a", 5)
    two.unload("bee")
    assert two.generate("a", model="cat", max_tokens=5, temperature=0.0).tokens == alone("cat", "a", 5)
    assert state(two) == {"ant": "loading", "bee": "unloaded", "cat": "ready"}
    gate.opened.set()
    joined(threads)
    assert state(two)["ant"] == "ready"


def test_an_error_of_the_load_is_everybodys_and_is_not_kept(two: Zoo, loader: Any, state: State) -> None:
    class Broken(BestiaryError):
        pass

    begun, go_on = threading.Event(), threading.Event()
    failing = True

    def before(name: str) -> None:
        begun.set()
        assert go_on.wait(100)
        if failing:
            raise Broken("no luck")

    loader.before = before
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            two.load("ant")
        except BaseException as error:
            errors.append(error)

    threads = together(*[ask] * 6)
    assert begun.wait(100)
    joining(two, 6)
    go_on.set()
    joined(threads)
    assert [type(error) for error in errors] == [Broken] * 6
    assert loader.loads == ["ant"]
    model = two.status()[0]
    assert (model.state, model.error, model.nbytes, model.loads) == ("failed", "no luck", 0, 0)
    failing = False
    two.load("ant")
    model = two.status()[0]
    assert (model.state, model.error, model.loads) == ("ready", None, 1)


def test_an_error_of_the_estimate_is_told_too(two: Zoo, tiny: dict[str, str]) -> None:
    two.add("none", f"{tiny['ant']}/absent")
    for _ in range(2):
        with pytest.raises(BestiaryError, match="absent"):
            two.load("none")
    assert two.status()[-1].state == "failed" and "absent" in (two.status()[-1].error or "")


def test_a_load_that_failed_halfway_keeps_nothing(tiny: dict[str, str]) -> None:
    left: list[weakref.ref[Any]] = []

    def load(id: str, **options: Any) -> Any:
        pipe = bestiary.load(id, progress=False, **options)
        left.append(weakref.ref(pipe.model))
        raise ZeroDivisionError("after the weights were read")

    with Zoo({"ant": tiny["ant"]}, load=load) as zoo, pytest.raises(ZeroDivisionError) as found:
        zoo.load()
    gc.collect()
    assert left[0]() is None, f"{found.value!r} holds the network"
    assert zoo.status()[0].error == "ZeroDivisionError('after the weights were read')"


def test_an_interrupt_in_a_load_is_the_loaders_own(two: Zoo, loader: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(100)
            raise KeyboardInterrupt

    loader.before = before
    interrupted: list[BaseException] = []

    def loads() -> None:
        try:
            two.load("ant")
        except BaseException as error:
            interrupted.append(error)

    first = together(loads)
    assert begun.wait(100)
    others = together(*[lambda: two.load("ant")] * 3)
    joining(two, 4)
    go_on.set()
    joined(first + others)
    assert [type(error) for error in interrupted] == [KeyboardInterrupt]
    assert loader.loads == ["ant", "ant"] and two.status()[0].state == "ready"


def test_a_load_that_asks_for_its_own_model_is_refused(tiny: dict[str, str]) -> None:
    def progress(event: Any) -> None:
        states.append(zoo.status()[0].state)
        for use in (zoo.load, lambda: zoo.unload("ant"), lambda: zoo.remove("ant")):
            with pytest.raises(RequestError, match=r"by what (is loading|uses it)"):
                use()

    states: list[str] = []
    with Zoo({"ant": Entry(tiny["ant"], progress=progress)}) as zoo:
        zoo.load()
        assert states and set(states) == {"loading"}
        zoo.unload("ant")

        async def main() -> None:
            async with zoo.lease("ant"):
                pass

        asyncio.run(main())
        assert zoo.status()[0].loads == 2


def test_a_zoo_that_is_closed_from_a_load_closes_when_the_load_ends(tiny: dict[str, str], loader: Any) -> None:
    zoo = Zoo({"ant": tiny["ant"]}, load=loader)
    loader.before = lambda name: zoo.close()
    with pytest.raises(RequestError, match="closed"):
        zoo.load()
    zoo.close()
    gc.collect()
    assert loader.resident() == 0


def test_closing_waits_for_loads_and_fails_who_waits(two: Zoo, loader: Any, state: State) -> None:
    loader.before = gate = Gate("ant")
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            two.load("ant")
        except RequestError as error:
            errors.append(error)

    askers = together(ask, ask)
    assert gate.begun.wait(100)
    joining(two, 2)
    closer = together(two.close)
    with pytest.raises(RequestError, match="closed"):
        while True:
            two.lease("bee").take().release()
    gate.opened.set()
    joined(askers + closer)
    assert len(errors) == 2 and loader.resident() == 0
    assert set(state(two).values()) == {"unloaded"}


def test_who_waits_for_room_goes_before_those_who_come_later(two: Zoo, loader: Any, state: State) -> None:
    """Two models are in use by turns without a pause; the third would never get its room if newcomers went on."""
    streams = [two.stream("a", model=name, max_tokens=200) for name in ("ant", "bee")]
    order: list[str] = []
    waiting = together(lambda: (two.load("cat"), order.append("cat")))
    asking(two, 1)
    while not two._keeper._ledger.asks[0].wanted:
        time.sleep(0.001)
    late = together(lambda: (two.load("ant"), order.append("ant")))
    asking(two, 2)
    assert two.lease("bee", wait=0).take().pipe, "no more has to go than is needed"
    streams[0].close()
    joined(waiting + late)
    assert order == ["cat", "ant"]
    assert loader.loads == ["ant", "bee", "cat", "ant"]


def test_who_has_a_lease_already_is_let_pass(two: Zoo, alone: Any) -> None:
    """A thread that uses a model within its own lease would otherwise wait for one who waits for it."""
    with two.lease("ant"), two.lease("bee"):
        waiting = together(lambda: two.load("cat"))
        asking(two, 1)
        while not two._keeper._ledger.asks[0].wanted:
            time.sleep(0.001)
        assert two.generate("a", model="ant", max_tokens=3, temperature=0.0).tokens == alone("ant", "a", 3)
    joined(waiting)


def test_a_newcomer_does_not_wait_for_ever(two: Zoo) -> None:
    with two.lease("ant"), two.lease("bee"):
        waiting = together(lambda: two.load("cat"))
        asking(two, 1)
        while not two._keeper._ledger.asks[0].wanted:
            time.sleep(0.001)
        newcomer = together(lambda: two.lease("ant", wait=0.01).take().release())
        joined(newcomer)
    joined(waiting)


def test_a_cancelled_wait_leaves_nothing_behind(two: Zoo, loader: Any, state: State) -> None:
    async def main() -> None:
        async with two.lease("ant"), two.lease("bee"):
            waiting = [asyncio.create_task(two.agenerate("a", model="cat", max_tokens=2)) for _ in range(3)]
            while len(two._keeper._ledger.asks) < 3:
                await asyncio.sleep(0.001)
            for task in waiting:
                task.cancel()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(error) for error in found] == [asyncio.CancelledError] * 3
            assert two._keeper._ledger.asks == []
        gate = loader.before = Gate("cat")
        task = asyncio.create_task(two.agenerate("a", model="cat", max_tokens=2))
        await asyncio.to_thread(gate.begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        assert (await two.agenerate("a", model="cat", max_tokens=2)).tokens

    asyncio.run(main())
    assert loader.loads.count("cat") == 1
    assert all(model.leases == 0 for model in two.status())


def test_more_tasks_than_threads_wait_without_blocking_those_who_run(two: Zoo, alone: Any) -> None:
    """Each task that waits for room holds no thread, or the streams that must end first could not go on."""

    async def main() -> list[Any]:
        streams = [two.astream("a", model=name, max_tokens=30, temperature=0.0) for name in ("ant", "bee")]
        first = [await anext(stream) for stream in streams]
        waiting = [
            asyncio.create_task(two.agenerate("a", model="cat", max_tokens=3, temperature=0.0)) for _ in range(60)
        ]
        while len(two._keeper._ledger.asks) < 60:
            await asyncio.sleep(0.001)
        rest = [[token async for chunk in stream for token in chunk.tokens] for stream in streams]
        assert all(chunk.tokens for chunk in first) and [len(tokens) for tokens in rest] == [29, 29]
        return [answer.tokens for answer in await asyncio.gather(*waiting)]

    assert asyncio.run(main()) == [alone("cat", "a", 3)] * 60


def test_what_cannot_be_had_in_time_says_who_has_it(two: Zoo) -> None:
    async def main() -> None:
        async with two.lease("ant"), two.lease("bee"):
            with pytest.raises(OutOfMemory, match=r"0\.05 seconds"):
                await two.agenerate("a", model="cat", wait=0.05)

    asyncio.run(main())
