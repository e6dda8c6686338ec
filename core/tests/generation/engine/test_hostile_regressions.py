"""Faults that were found once: readers that waited for ever, one request's numbers in another, memory that stayed."""

import asyncio
import gc
import math
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import bestiary
from bestiary.errors import GenerationError, OutOfMemory
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.testing.greedy import greedy_tokens

Make = Callable[..., Engine]


def slow(seconds: float) -> Any:
    def wait(logits: Any, tokens: Any) -> Any:
        time.sleep(seconds)
        return logits

    return wait


# 1. Closing a stream whose reader waits leaves the reader waiting for ever


def test_closing_a_stream_wakes_whoever_waits_for_its_next_chunk(network: Any, engine_over: Make) -> None:
    engine = engine_over(network(), limits=Limits(tokens=48, sequences=1))
    running = engine.stream([1, 2], Sampling(max_tokens=100, processors=(slow(0.01),)))
    next(running)
    waiting = engine.stream([3, 4], Sampling(max_tokens=5))
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(waiting), daemon=True)
    reader.start()
    time.sleep(0.05)
    waiting.close()
    reader.join(timeout=10)
    assert not reader.is_alive() and found == []


def test_a_cancelled_async_stream_does_not_hold_its_event_loop() -> None:
    code = (
        "import asyncio, bestiary, time\n"
        "def slow(logits, tokens):\n"
        "    time.sleep(0.05)\n"
        "    return logits\n"
        "pipe = bestiary.load('demo', progress=False, max_requests=1)\n"
        "running = pipe.stream('a', max_tokens=300, ignore_eos=True, processors=(slow,))\n"
        "next(running)\n"
        "async def read():\n"
        "    async for chunk in pipe.astream('b', max_tokens=5):\n"
        "        pass\n"
        "async def main():\n"
        "    task = asyncio.create_task(read())\n"
        "    await asyncio.sleep(0.2)\n"
        "    task.cancel()\n"
        "    await asyncio.gather(task, return_exceptions=True)\n"
        "asyncio.run(main())\n"
        "running.close()\n"
        "print('over')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "over\n"


# 2. Giving up an async call that is no stream gives up nothing


def test_a_cancelled_async_call_stops_its_request() -> None:
    async def main(pipe: Any) -> None:
        for call, prompt in ((pipe.agenerate, "a"), (pipe.achat, "Hello!")):
            task = asyncio.create_task(call(prompt, max_tokens=100, ignore_eos=True, processors=(slow(0.05),)))
            while not pipe.statistics().running:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for _ in range(100):
                if not pipe.statistics().running:
                    break
                await asyncio.sleep(0.01)
            assert not pipe.statistics().running

    with bestiary.load("demo", progress=False) as pipe:
        asyncio.run(main(pipe))


# 3. NaN in one request's cache reaches others through padding


def test_numbers_that_are_none_stay_in_their_own_request(network: Any, engine_over: Make) -> None:
    """Rows of a decoding step are padded with slot 0; here it belongs to a prompt with NaN that is not complete yet."""
    model = network()
    with torch.no_grad():
        model.model.embed_tokens.weight[9] = math.nan

    def quiet(count: int) -> Sampling:
        return Sampling(max_tokens=count, logit_bias={9: -100.0})

    others = [[1, 2, 3], [4] * 20]
    alone = engine_over(model)
    expected = [collect(alone.stream(prompt, quiet(100))).tokens for prompt in others]
    engine = engine_over(model, limits=Limits(tokens=8, sequences=8))
    first = engine.stream([5], quiet(8))  # takes block 0, and leaves it to the next that comes
    streams = [engine.stream(prompt, quiet(100)) for prompt in others]
    collect(first)
    with pytest.raises(GenerationError):
        collect(engine.stream([9] * 60, Sampling()))
    assert [collect(stream).tokens for stream in streams] == expected


# 4. A step that does not fit the memory


@pytest.mark.parametrize("fail", [lambda: bytearray(1 << 62), lambda: torch.empty(1 << 50)], ids=["python", "torch"])
def test_a_step_that_runs_out_of_memory_fails_the_request_that_needs_it(
    network: Any, engine_over: Make, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object]
) -> None:
    """Torch's CPU allocator raises RuntimeError; and it is the long prompt that does not fit, not those who decode."""
    model = network()
    whole = model.hidden

    def hidden(tokens: Any, batch: Any) -> Any:
        if len(tokens) > 30:
            fail()
        return whole(tokens, batch)

    expected = [tuple(greedy_tokens(model, [token], 60)) for token in (1, 2, 3)]
    engine = engine_over(model, limits=Limits(tokens=64, sequences=8))
    monkeypatch.setattr(model, "hidden", hidden)
    streams = [engine.stream([token], Sampling(max_tokens=60, processors=(slow(0.002),))) for token in (1, 2, 3)]
    first = [next(stream).tokens for stream in streams]
    with pytest.raises(OutOfMemory):
        collect(engine.stream([7] * 50, Sampling()))
    rest = [collect(stream).tokens for stream in streams]
    assert [start + end for start, end in zip(first, rest, strict=True)] == expected


# 5. A processor whose tensor has a gradient fails everybody in the step


def test_a_processor_that_answers_with_a_gradient_disturbs_nobody(network: Any, engine_over: Make) -> None:
    model = network()
    engine = engine_over(model)
    other = engine.stream([1, 2], Sampling(max_tokens=30))
    learns = torch.zeros(97, requires_grad=True)
    mine = engine.stream([1, 2], Sampling(max_tokens=5, processors=(lambda logits, tokens: logits + learns,)))
    assert collect(other).tokens == tuple(greedy_tokens(model, [1, 2], 30))
    assert collect(mine).tokens == tuple(greedy_tokens(model, [1, 2], 5))


# 6. The tokenizer reads megabytes for a context of a thousand tokens


def test_a_text_that_cannot_fit_the_context_is_not_tokenized_to_its_end() -> None:
    code = (
        "import resource, bestiary\n"
        "from bestiary.errors import RequestError\n"
        "pipe = bestiary.load('demo', progress=False)\n"
        "pipe.chat('Hello!')\n"
        "with open('/proc/self/statm') as file:\n"
        "    pages = int(file.read().split()[0])\n"
        "limit = pages * resource.getpagesize() + (1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for ask in (pipe.generate, pipe.chat):\n"
        "    try:\n"
        "        ask('a' * (15 << 20))\n"
        "    except RequestError:\n"
        "        print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "refused\nrefused\n", done.stderr[-2000:]


# 7. What a pipeline without a chat template keeps


def test_a_pipeline_without_a_template_does_not_keep_the_frames_of_its_loader(shared_data: Any) -> None:
    """The TemplateError that is kept for the first chat carries its traceback, and thereby every caller's locals."""

    class Local:
        pass

    def load() -> tuple[Any, weakref.ref[Local]]:
        mine = Local()
        return bestiary.load(str(shared_data / "weights/stories260K/hf"), progress=False), weakref.ref(mine)

    pipe, mine = load()
    gc.collect()
    assert mine() is None
    for _ in range(3):
        with pytest.raises(bestiary.BestiaryError) as found:
            pipe.chat("Hello!")
    depth, trace = 0, found.value.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 12, "each chat adds to the same error's traceback"
    pipe.close()


# 8. A closed pipeline is not freed while somebody holds a stream of it


def test_a_stream_that_is_held_does_not_keep_the_weights_of_a_closed_pipeline() -> None:
    pipe = bestiary.load("demo", progress=False)
    network = weakref.ref(pipe.model)
    stream = pipe.stream("a", max_tokens=100)
    next(stream)
    pipe.close()
    gc.collect()
    assert network() is None
    with pytest.raises(bestiary.BestiaryError, match="closed"):
        list(stream)
