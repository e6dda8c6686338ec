"""Many threads and tasks over three models and room for two: every answer is right, and nothing is ever over."""

import asyncio
import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

from bestiary.errors import OutOfMemory, RequestError
from bestiary.zoo import Zoo

PROMPTS = ("Once upon a time", "a", "The small grey cat sat on the mat, and")
Alone = Callable[[str, str, int], tuple[int, ...]]


def visit(zoo: Zoo, dice: random.Random, alone: Alone) -> None:
    """One use of the zoo, of a random kind."""
    name, prompt, count = dice.choice(("ant", "bee", "cat")), dice.choice(PROMPTS), dice.randint(1, 12)
    options: dict[str, Any] = {"model": name, "max_tokens": count, "temperature": 0.0, "wait": 100.0}
    expected = alone(name, prompt, count)
    kind = dice.randrange(6)
    if kind == 0:
        assert zoo.generate(prompt, **options).tokens == expected
    elif kind == 1:
        found = [token for chunk in zoo.stream(prompt, **options) for token in chunk.tokens]
        assert tuple(found) == expected
    elif kind == 2:
        stream = zoo.stream(prompt, **options)
        assert next(stream).tokens == expected[:1]
        if dice.random() < 0.5:
            stream.close()
    elif kind == 3:
        with zoo.lease(name, wait=100.0) as pipe:
            assert zoo.tokenize(prompt, model=name) == pipe.tokenize(prompt)
            assert pipe.generate(prompt, max_tokens=count, temperature=0.0).tokens == expected
    elif kind == 4:
        try:
            zoo.unload(name, now=False, wait=0.0)
        except RequestError as error:
            assert "in use" in str(error)
    else:
        try:
            assert zoo.generate(prompt, **{**options, "wait": 0.0}).tokens == expected
        except OutOfMemory as error:
            assert name in str(error)


async def visit_async(zoo: Zoo, dice: random.Random, alone: Alone) -> None:
    for _ in range(6):
        name, prompt, count = dice.choice(("ant", "bee", "cat")), dice.choice(PROMPTS), dice.randint(1, 12)
        options: dict[str, Any] = {"model": name, "max_tokens": count, "temperature": 0.0, "wait": 100.0}
        expected = alone(name, prompt, count)
        if dice.random() < 0.5:
            assert (await zoo.agenerate(prompt, **options)).tokens == expected
        else:
            found = [token async for chunk in zoo.astream(prompt, **options) for token in chunk.tokens]
            assert tuple(found) == expected


def test_every_answer_is_that_of_the_model_alone_and_the_budget_holds(
    two: Zoo, loader: Any, alone: Alone, nbytes: int
) -> None:
    expected = {
        (name, prompt, count): alone(name, prompt, count)
        for name in two.names
        for prompt in PROMPTS
        for count in range(1, 13)
    }
    failures: list[str] = []  # texts: a traceback would keep the streams of its frames, and with them their leases
    over = threading.Event()

    def known(name: str, prompt: str, count: int) -> tuple[int, ...]:
        return expected[name, prompt, count]

    def guest(seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(10):
                visit(two, dice, known)
        except BaseException:
            failures.append(traceback.format_exc())

    def tasks() -> None:
        async def main() -> None:
            await asyncio.gather(*(visit_async(two, random.Random(100 + seed), known) for seed in range(6)))

        try:
            asyncio.run(main())
        except BaseException:
            failures.append(traceback.format_exc())

    def watch() -> None:
        while not over.wait(0.002):
            found = two.status()
            assert sum(model.nbytes for model in found if model.state != "closing") <= 2.5 * nbytes
            loader.peak = max(loader.peak, loader.resident())

    threads = [threading.Thread(target=guest, args=(seed,), daemon=True) for seed in range(10)]
    threads += [threading.Thread(target=tasks, daemon=True)]
    watcher = threading.Thread(target=watch, daemon=True)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
    stuck = [thread for thread in threads if thread.is_alive()]
    over.set()
    watcher.join()
    assert not stuck, two.status()
    assert not failures, "\n".join(failures)
    assert nbytes < loader.peak <= 2.5 * nbytes
    assert all(model.leases == 0 for model in two.status())
    assert len(loader.loads) > 3, "nothing was ever closed: this tested nothing"
