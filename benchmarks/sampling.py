"""What choosing tokens costs in a step, beside transformers' processors on the same logits.

    python benchmarks/sampling.py [--vocabulary 151936] [--rows 1 8 64] [--context 2048] [--json]

Probabilities fall by Zipf's law.  Each row stands for a request that goes on, so that what its penalties know of its
context is not made again.  transformers runs its processors on all rows, then softmax and multinomial; of our penalties
it has the repetition penalty alone, so that the last line compares five with one.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bestiary.generation.choosing import Row, choose_rows
from bestiary.generation.history import History
from bestiary.generation.randomness import key
from bestiary.generation.sampling import Sampling

PENALTIES = {
    "frequency_penalty": 0.4,
    "presence_penalty": 0.2,
    "repetition_penalty": 1.1,
    "dry_multiplier": 0.8,
    "logit_bias": {100: 1.0},
}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "top_k 40, top_p 0.95": {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
    "top_p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "temperature": {"temperature": 1.0},
    "all penalties, top_k, top_p": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, **PENALTIES},
}


def logits_by_zipf(rows: int, vocabulary: int) -> torch.Tensor:
    """Logits [rows, vocabulary] of probabilities that fall as rank ** -1.4, the ranks in random order."""
    source = torch.Generator().manual_seed(0)
    ranks = torch.stack([torch.randperm(vocabulary, generator=source) + 1 for _ in range(rows)])
    return ranks.float().log() * -1.4


def ours(logits: torch.Tensor, options: dict[str, Any], contexts: list[list[int]]) -> Callable[[], object]:
    """A step, each time one token further on."""
    sampling, histories = Sampling(**options), [History() for _ in contexts]
    places = iter(range(1 << 30))
    tokens = [list(context) for context in contexts]

    def step() -> None:
        place = next(places)
        for row in tokens:
            row.append(place % 100)
        rows = [
            Row(sampling, row, 1, key(seed, place), frozenset(), frozenset(), history=history)
            for seed, (row, history) in enumerate(zip(tokens, histories, strict=True))
        ]
        choose_rows(logits, rows)

    return step


def theirs(logits: torch.Tensor, options: dict[str, Any], contexts: list[list[int]]) -> Callable[[], object]:
    tokens: Any = torch.tensor(contexts)
    chain = LogitsProcessorList()
    if "repetition_penalty" in options:
        chain.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    if "temperature" in options:
        chain.append(TemperatureLogitsWarper(options["temperature"]))
    if "top_k" in options:
        chain.append(TopKLogitsWarper(options["top_k"]))
    if "top_p" in options:
        chain.append(TopPLogitsWarper(options["top_p"]))

    def step() -> None:
        scores = chain(tokens, logits)
        if "temperature" in options:
            scores.softmax(-1).multinomial(1).tolist()
        else:
            scores.argmax(-1).tolist()

    return step


def microseconds(step: Callable[[], object]) -> float:
    """The best of several runs, over half a second at least."""
    step()
    best, until = float("inf"), time.perf_counter() + 0.5
    for run in range(1000):
        started = time.perf_counter()
        step()
        now = time.perf_counter()
        best = min(best, now - started)
        if run >= 4 and now > until:
            break
    return best * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for rows in options.rows:
        logits = logits_by_zipf(rows, options.vocabulary)
        contexts = torch.randint(0, 1000, (rows, options.context)).tolist()
        for name, case in CASES.items():
            times = [microseconds(make(logits, case, contexts)) for make in (ours, theirs)]
            found.append({"case": name, "rows": rows, "bestiary": times[0], "transformers": times[1]})
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'microseconds of a step':30} {'rows':>5} {'bestiary':>10} {'transformers':>13} {'ratio':>7}")
    for row in found:
        ratio = row["transformers"] / row["bestiary"]
        print(f"{row['case']:30} {row['rows']:5} {row['bestiary']:10.0f} {row['transformers']:13.0f} {ratio:7.1f}")


if __name__ == "__main__":
    main()
