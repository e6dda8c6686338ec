"""One surface for all models: what is called, how long the lease lasts, and pipelines of other tasks."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import bestiary
from bestiary.errors import OptionError, RequestError
from bestiary.zoo import Entry, Zoo
from bestiary.zoo.estimate import Estimate

QUESTION = "What is the capital of France?"


def leases(zoo: Zoo) -> dict[str, int]:
    return {model.name: model.leases for model in zoo.status()}


def test_every_method_answers_as_the_pipeline_does() -> None:
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": 12}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    with bestiary.load("demo", progress=False) as pipe, Zoo({"small": "demo"}) as zoo:
        assert zoo.chat(QUESTION, **options).text == pipe.chat(QUESTION, **options).text
        assert zoo.generate("Once", **options).tokens == pipe.generate("Once", **options).tokens
        assert zoo.tokenize(QUESTION) == pipe.tokenize(QUESTION)
        assert zoo.detokenize(pipe.tokenize(QUESTION)) == QUESTION
        assert zoo.call("render", QUESTION, model="small") == pipe.render(QUESTION)
        assert zoo.generate_structured(schema, QUESTION) == pipe.generate_structured(schema, QUESTION)
        assert [c.text for c in zoo.stream("Once", **options)] == [c.text for c in pipe.stream("Once", **options)]
        chunks = [chunk.text for chunk in zoo.stream_chat(QUESTION, **options)]
        assert chunks == [chunk.text for chunk in pipe.stream_chat(QUESTION, **options)]

        async def main() -> list[Any]:
            return [
                (await zoo.achat(QUESTION, **options)).text,
                (await zoo.agenerate("Once", **options)).tokens,
                [chunk.text async for chunk in zoo.astream("Once", **options)],
                [chunk.text async for chunk in zoo.astream_chat(QUESTION, **options)],
                await zoo.acall("tokenize", QUESTION),
            ]

        assert asyncio.run(main()) == [
            pipe.chat(QUESTION, **options).text,
            pipe.generate("Once", **options).tokens,
            [chunk.text for chunk in pipe.stream("Once", **options)],
            chunks,
            pipe.tokenize(QUESTION),
        ]
        assert leases(zoo) == {"small": 0}


def test_errors_are_those_of_the_pipeline_and_end_the_lease(two: Zoo) -> None:
    with pytest.raises(OptionError, match="temprature"):
        two.generate("a", model="bee", temprature=1)
    with pytest.raises(RequestError, match="no tokens"):
        two.stream("", model="bee")
    with pytest.raises(RequestError, match="generat"):
        two.call("generat", "a", model="bee")
    with pytest.raises(RequestError, match="_running"):
        two.call("_running", model="bee")
    with pytest.raises(RequestError, match='"dtype"'):
        two.call("dtype", model="bee")

    async def main() -> None:
        with pytest.raises(OptionError, match="temprature"):
            await two.agenerate("a", model="bee", temprature=1)
        with pytest.raises(RequestError, match="no tokens"):
            async for _ in two.astream("", model="bee"):
                pass
        with pytest.raises(RequestError, match="nothing"):
            await two.acall("nothing", model="bee")

    asyncio.run(main())
    assert leases(two) == {"ant": 0, "bee": 0, "cat": 0}


def ended(stream: Any) -> None:
    list(stream)


def closed(stream: Any) -> None:
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []


def failed(stream: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in stream:
            1 / 0  # noqa: B018


@pytest.mark.parametrize("end", [ended, closed, failed, lambda stream: None, next])
def test_a_stream_holds_its_lease_until_it_ends_is_closed_or_forgotten(two: Zoo, end: Callable[[Any], object]) -> None:
    stream = two.stream("a", model="bee", max_tokens=20, temperature=0.0)
    assert leases(two)["bee"] == 1
    end(stream)
    assert leases(two)["bee"] == (0 if end in (ended, closed) else 1)
    del stream
    gc.collect()
    assert leases(two)["bee"] == 0


def test_an_async_stream_that_is_left_gives_its_lease_back(two: Zoo) -> None:
    async def main() -> None:
        stream = two.astream("a", model="bee", max_tokens=200, temperature=0.0)
        async for _ in stream:
            assert leases(two)["bee"] == 1
            break
        await stream.aclose()  # type: ignore[attr-defined]
        assert leases(two)["bee"] == 0
        async with two.lease("bee") as pipe:
            assert leases(two)["bee"] == 1
            assert pipe.tokenize("a")
        assert leases(two)["bee"] == 0

    asyncio.run(main())


def test_leases_of_one_model_are_counted(two: Zoo) -> None:
    lease = two.lease("ant")
    with lease as pipe, lease as same, two.lease("ant") as other:
        assert pipe is same is other
        assert leases(two)["ant"] == 3
    assert leases(two)["ant"] == 0
    token = lease.take()
    token.release()
    token.release()
    assert leases(two)["ant"] == 0


# Another task


class Painter:
    """A pipeline of another kind: no engine, no `nbytes`, no twin for `paint`, and a stream of its own."""

    apaint = "an attribute that only looks like a twin"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.closed = False

    def paint(self, what: str) -> str:
        return f"a picture of {what}"

    def slowly(self) -> str:
        self.gate.wait()
        return "done"

    def strokes(self, count: int) -> Iterator[int]:
        yield from range(count)

    async def arepaint(self, what: str) -> str:
        return f"another picture of {what}"

    def repaint(self, what: str) -> str:
        raise AssertionError("its async twin is there")

    async def adots(self, count: int) -> AsyncIterator[int]:
        for place in range(count):
            yield place

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def studio(painter: Painter) -> Iterator[Zoo]:
    with Zoo({"painter": Entry("any", memory=100, colour="red")}, memory=150, load=lambda id, colour: painter) as zoo:
        yield zoo


def test_any_pipeline_is_served_by_its_methods_names(studio: Zoo, painter: Painter) -> None:
    assert studio.call("paint", "a newt") == "a picture of a newt"
    assert list(studio.call("strokes", 3)) == [0, 1, 2]

    async def main() -> list[Any]:
        return [
            await studio.acall("paint", "a newt"),
            await studio.acall("repaint", "a newt"),
            [stroke async for stroke in studio.astream_call("strokes", 3)],
            [dot async for dot in studio.astream_call("dots", 2)],
        ]

    assert asyncio.run(main()) == ["a picture of a newt", "another picture of a newt", [0, 1, 2], [0, 1]]
    with pytest.raises(RequestError, match="Painter has no method"):
        studio.chat("Hello!")
    assert (studio.status()[0].nbytes, studio.status()[0].leases, painter.closed) == (100, 0, False)
    studio.unload("painter")
    assert painter.closed


def test_a_cancelled_call_in_a_thread_keeps_its_lease_until_the_thread_is_done(studio: Zoo, painter: Painter) -> None:
    async def main() -> None:
        task = asyncio.create_task(studio.acall("slowly"))
        while not leases(studio)["painter"]:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert leases(studio)["painter"] == 1, "the thread still uses it"
        painter.gate.set()
        while leases(studio)["painter"]:
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_pipeline_that_fails_to_close_does_not_stop_the_zoo(studio: Zoo, painter: Painter, caplog: Any) -> None:
    def broken() -> None:
        raise ZeroDivisionError("mine")

    painter.close = broken  # type: ignore[method-assign]
    studio.load()
    studio.unload("painter")
    assert "failed to close" in caplog.text
    assert (studio.status()[0].state, studio.status()[0].nbytes) == ("unloaded", 0)


def test_a_pipeline_that_cannot_be_measured_is_closed_again() -> None:
    class Odd(Painter):
        @property
        def nbytes(self) -> int:
            raise ZeroDivisionError("mine")

    odd = Odd()
    with Zoo({"odd": "any"}, load=lambda id: odd, estimate=lambda id, options, budget: Estimate("cpu", 1)) as zoo:
        with pytest.raises(ZeroDivisionError):
            zoo.load()
        assert odd.closed and zoo.status()[0].state == "failed"
