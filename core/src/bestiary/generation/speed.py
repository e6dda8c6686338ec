"""How fast an engine answers, by its own clock."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.errors import OptionError
from bestiary.generation.completion import Completion, collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.sampling import Sampling


def measure(
    engine: Engine, prompt: int, generate: int, requests: int, repeat: int = 1, depth: int = 0
) -> dict[str, Any]:
    """The best of `repeat` runs of `requests` prompts of `prompt` random tokens, each answered with `generate` tokens.

    Each prompt follows `depth` tokens of its own that are in the cache already (as in llama-bench).  It is computed
    first, with an answer of one token, and then answered, so that neither is timed beside the other.  Prompts differ,
    so that no more is found in the cache; `reused_tokens` says how many were.  Speeds are of all requests together.
    OptionError for what does not fit the model's context.
    """
    if not (prompt > 0 and generate > 1 and requests > 0 and repeat > 0 and depth >= 0):
        raise OptionError("A measurement needs a prompt, at least two tokens to generate, a request and a run.")
    check_room(engine, prompt, generate, depth)
    runs = [_run(engine, prompt, generate, requests, depth) for _ in range(repeat)]
    fastest = min(runs, key=lambda run: run.first)
    return {
        "depth": depth,
        "prompt": prompt,
        "generate": generate,
        "requests": requests,
        "reused_tokens": fastest.reused,
        "seconds_to_first_token": fastest.first,
        "prompt_tokens_per_second": ((depth + prompt) * requests - fastest.reused) / fastest.first,
        "decode_tokens_per_second": max(run.decode for run in runs),
    }


def check_room(engine: Engine, prompt: int, generate: int, depth: int = 0) -> None:
    """OptionError where the model's context is too short for a measurement."""
    if depth + prompt + generate > engine.context_length:
        raise OptionError(
            f"{depth} + {prompt} + {generate} tokens do not fit the model's context of {engine.context_length}.",
            fix="choose a smaller depth or prompt, or generate fewer tokens",
        )


@dataclass(frozen=True)
class _Run:
    first: float
    """Seconds until the last request has its first token."""
    reused: int
    decode: float
    """Tokens a second of all requests, from the first token of any to the last one of all."""


def _run(engine: Engine, prompt: int, generate: int, requests: int, depth: int) -> _Run:
    vocabulary = engine.model.vocab_size

    def some(count: int) -> list[list[int]]:
        return [[random.randrange(vocabulary) for _ in range(count)] for _ in range(requests)]

    contexts = some(depth)
    if depth:
        _answers(engine, contexts, 1)
    prompts = [context + tokens for context, tokens in zip(contexts, some(prompt), strict=True)]
    before = engine.statistics().totals.reused_tokens
    asked, answers = _answers(engine, prompts, 1)
    begun = max(when + answer.usage.seconds_to_first_token for when, answer in zip(asked, answers, strict=True))
    reused = engine.statistics().totals.reused_tokens - before

    times, answers = _answers(engine, prompts, generate)
    first = min(when + answer.usage.seconds_to_first_token for when, answer in zip(times, answers, strict=True))
    last = max(when + answer.usage.seconds for when, answer in zip(times, answers, strict=True))
    made = sum(answer.usage.completion_tokens - 1 for answer in answers)
    return _Run(begun - asked[0], reused, made / (last - first))


def _answers(engine: Engine, prompts: Sequence[Sequence[int]], tokens: int) -> tuple[list[float], list[Completion]]:
    """Ask all at once; when each was asked, and the answers, when the engine has counted them."""
    sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    counted = engine.statistics().totals.requests
    times, streams = [], []
    for prompt in prompts:
        times.append(time.perf_counter())
        streams.append(engine.stream(prompt, sampling))
    answers = [collect(stream) for stream in streams]
    while engine.statistics().totals.requests < counted + len(prompts):  # a moment after its reader has an answer
        time.sleep(0.001)
    return times, answers
