"""One engine, one model, one process: what is measured of them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import Client, EngineError, Kind, running
from machine import Others, memory
from prompts import Prompts

PARTS = ("load", "single", "requests")
FIRST = 32
"""Tokens of the prompt of which a fresh process makes its first token."""
TRIED, WARM = 64, 5
"""Tokens of the prompt and of the answer that show how much time an engine needs."""
FEWEST = 8
"""Tokens of an answer, however slow the engine."""
STEP = 5
"""By so many tokens prompts that are asked at once differ in length: mistral.rs fails on equal ones."""


@dataclass(frozen=True)
class Work:
    """What is asked of every engine."""

    threads: int = 2
    prompt: int = 512
    generate: int = 128
    requests: tuple[int, ...] = (1, 4, 8)
    together_prompt: int = 128
    """Tokens of the shortest prompt of requests at once."""
    together_generate: int = 64
    seconds: float = 25
    """About the most that prefill and decoding take for one measurement; slower engines get fewer tokens.  Requests at
    once are left out where they would take three times as long all the same.
    """
    parts: tuple[str, ...] = PARTS

    @property
    def context(self) -> int:
        """Tokens of the longest request."""
        several = self.together_prompt + STEP * (max(self.requests, default=1) - 1) + self.together_generate
        return max(self.prompt + self.generate + 1, several)

    @property
    def together(self) -> int:
        """Tokens of all requests at once, where they are most."""
        count = max(self.requests, default=1)
        several = (self.together_prompt + STEP * (count - 1) + self.together_generate) * count
        return max(self.prompt + self.generate + 1, several)


def measure(kind: Kind, python: str, path: Path, prompts: Prompts, work: Work) -> dict[str, Any]:
    """Seconds, tokens per second and bytes; "others" is how many cores other processes took meanwhile.

    `load` is from the start of the process until the model is there, `first` until it has made its first token.
    `prefill` is the prompt's tokens over the time to the first token of its answer, `decode` the tokens after it over
    their time.  "N at once" counts the tokens that are made while all N are being answered, over that time, and "N
    at once, all" every token over the whole time, prompts included.  `made` is how many tokens were read or written
    for each, `memory` what was held after each part, `check` the first token of an answer and its log-probability.
    """
    found: dict[str, Any] = {"made": {}, "memory": {}, "notes": []}
    with running(kind, python, work.threads) as client:
        others = Others([client.pid])
        try:
            client.load(path, work.threads, work.context, work.together)
            found["load"] = time.perf_counter() - client.started
            client.answer([prompts.take(FIRST)], 1)
            found["first"] = time.perf_counter() - client.started
            found["memory"]["load"] = memory(client.pid)
            found["check"] = _checked(client, prompts)
            if set(work.parts) & {"single", "requests"}:
                pace = _Pace(client, prompts, work)
            if "single" in work.parts:
                _single(client, prompts, work, pace, found)
                found["memory"]["single"] = memory(client.pid)
            if "requests" in work.parts:
                for count in work.requests:
                    _together(client, prompts, count, work, pace, found)
                found["memory"]["requests"] = memory(client.pid)
        except EngineError as error:
            found["error"] = str(error)
        found["others"] = others.cores()
    return found


def prepare(kind: Kind, python: str, path: Path, prompts: Prompts, work: Work) -> None:
    """Let an engine make, and read, the files that it keeps of a model besides the model's own."""
    with running(kind, python, work.threads) as client, contextlib.suppress(EngineError):  # `measure` will say it
        client.load(path, work.threads, work.context, work.together)
        client.answer([prompts.take(FIRST)], 1)


class _Pace:
    """How fast an engine seems to be, after answers that warm it up: what fits into the time of a measurement."""

    def __init__(self, client: Client, prompts: Prompts, work: Work) -> None:
        answer = client.answer([prompts.take(TRIED)], WARM)[0]
        self._seconds = work.seconds
        self._token = answer["times"][0] / TRIED
        self._decode = _rate([answer]) or (WARM / answer["times"][-1])
        if work.prompt * self._token < work.seconds / 2:
            client.answer([prompts.take(work.prompt)], 2)

    def prompt(self, most: int) -> int:
        """How many tokens the prompt of a single request may have."""
        return max(min(most, TRIED), min(most, int(self._seconds / self._token)))

    def tokens(self, requests: int, prompt: int, most: int) -> int:
        """How many tokens each of the answers may have; 0: not even the fewest."""
        each = requests / self._decode  # seconds of a step, were no work shared
        count = max(min(most, FEWEST), min(most, int(self._seconds / each)))
        whole = requests * prompt * self._token + count * each
        return 0 if requests > 1 and whole > 3 * self._seconds else count

    def learn(self, decode: float | None) -> None:
        """What several requests together were answered with says more about still more of them."""
        self._decode = decode or self._decode


def _checked(client: Client, prompts: Prompts) -> dict[str, Any]:
    found = client.check(prompts.take(FIRST))
    if not math.isfinite(found["logprob"]):
        raise EngineError(f"the first token has the log-probability {found['logprob']}")
    return found


def _single(client: Client, prompts: Prompts, work: Work, pace: _Pace, found: dict[str, Any]) -> None:
    length = pace.prompt(work.prompt)
    count = pace.tokens(1, length, work.generate)
    answer = client.answer([prompts.take(length)], count + 1)[0]
    found["prefill"] = answer["prompt"] / answer["times"][0]
    found["decode"] = _rate([answer])
    found["made"] |= {"prefill": length, "decode": count}


def _together(client: Client, prompts: Prompts, requests: int, work: Work, pace: _Pace, found: dict[str, Any]) -> None:
    name = f"{requests} at once"
    count = pace.tokens(requests, work.together_prompt, work.together_generate)
    if count == 0:
        found["notes"].append(f"{name} is left out, as it would take too long")
        return
    asked = [prompts.take(work.together_prompt + STEP * number) for number in range(requests)]
    try:
        answers = client.answer(asked, count)
    except EngineError as error:
        found["notes"].append(f"{name}: {error}")
        return
    rate = _rate(answers)
    pace.learn(rate)
    found[f"{name}, all"] = requests * count / max(answer["times"][-1] for answer in answers)
    found["made"][name] = count
    if rate is None:
        found["notes"].append(f"{name}: they were answered one after the other")
    else:
        found[name] = rate


def _rate(answers: Sequence[dict[str, Any]]) -> float | None:
    """Tokens per second between the last first token and the first last one; None where there is no such time.

    Where a piece of text is of several tokens, these count evenly.
    """
    begin: float = max(answer["times"][0] for answer in answers)
    end: float = min(answer["times"][-1] for answer in answers)
    if end <= begin:
        return None
    made = 0.0
    for answer in answers:
        times = answer["times"]
        made += answer["tokens"] * sum(begin < moment <= end for moment in times) / len(times)
    return made / (end - begin)
