"""How fast an engine answers, by its own clock."""

from __future__ import annotations

import random
import time
from typing import Any

from bestiary.errors import OptionError
from bestiary.generation.engine.engine import Engine
from bestiary.generation.sampling import Sampling


def measure(engine: Engine, prompt: int, generate: int, requests: int, repeat: int = 1) -> dict[str, Any]:
    """The best of `repeat` runs of `requests` prompts of `prompt` random tokens, each answered with `generate` tokens.

    Prompts differ, so that none is found in the cache.  Decoding is timed from when every request has its first token.
    """
    if not (prompt > 0 and generate > 1 and requests > 0 and repeat > 0):
        raise OptionError("A measurement needs a prompt, at least two tokens to generate, a request and a run.")
    runs = [_run(engine, prompt, generate, requests) for _ in range(repeat)]
    first = min(run[0] for run in runs)
    return {
        "prompt": prompt,
        "generate": generate,
        "requests": requests,
        "seconds_to_first_token": first,
        "prompt_tokens_per_second": prompt * requests / first,
        "decode_tokens_per_second": max(run[1] for run in runs),
    }


def _run(engine: Engine, prompt: int, generate: int, requests: int) -> tuple[float, float]:
    """Seconds until the last request has its first token, and tokens a second of all together from then on."""
    vocabulary = engine.model.vocab_size
    prompts = [[random.randrange(vocabulary) for _ in range(prompt)] for _ in range(requests)]
    sampling = Sampling(max_tokens=generate, temperature=0.0, ignore_eos=True)
    started = time.perf_counter()
    streams = [engine.stream(tokens, sampling) for tokens in prompts]
    for stream in streams:
        next(stream)
    first, steps = time.perf_counter() - started, engine.statistics().totals.steps
    for stream in streams:
        for _ in stream:
            pass
    seconds = time.perf_counter() - started - first
    return first, (engine.statistics().totals.steps - steps) * requests / seconds
