"""From the logits of a step to the tokens of every answer in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from bestiary.errors import BestiaryError, GenerationError
from bestiary.generation.choosing import Row, choose_rows, logprobs_of
from bestiary.generation.completion import TokenLogprob
from bestiary.generation.engine.choice import Choice
from bestiary.generation.engine.runner import Result
from bestiary.generation.engine.sequence import Work

Outcome = tuple[Choice, bool | BestiaryError]
"""An answer of the step, and whether it is complete, or what ends it."""


@dataclass(frozen=True)
class _Turn:
    """The rows of one answer in a step: the first of them in the logits, and what each is chosen by."""

    choice: Choice
    first: int
    rows: list[Row]


def decide(
    result: Result, choices: Mapping[int, Choice], born: Callable[[Choice, int], Many[Choice]]
) -> Iterator[Outcome]:
    """Choose the tokens of a step and append them; `choices` are the answers by the id of their sequence.

    `born` (an answer, what is computed of it) gives the answers that begin as its twins, from the same logits.
    """
    turns: list[_Turn] = []
    first = 0
    for work in result.plan.work:
        choice, count = choices.get(id(work.sequence)), len(work.outputs)
        if choice is not None and count:
            try:
                prompt = _prompt_rows(work)
                if prompt:
                    _score_prompt(choice, work, result.logits[first : first + prompt])
                if prompt < count:
                    twins = born(choice, work.end) if choice.request.unborn else ()
                    for member in (choice, *twins):
                        turns.append(_Turn(member, first + prompt, member.rows()))
            except BestiaryError as error:
                yield choice, error
        first += count
    yield from _choose(result.logits, turns)


def _choose(logits: torch.Tensor, turns: Many[_Turn]) -> Iterator[Outcome]:
    rows = [row for turn in turns for row in turn.rows]
    if not rows:
        return
    places = [turn.first + place for turn in turns for place in range(len(turn.rows))]
    chosen = choose_rows(logits if places == list(range(len(logits))) else logits[places], rows)
    logprobs = _logprobs(logits, turns, places, chosen)
    start = 0
    for turn in turns:
        part = slice(start, start + len(turn.rows))
        start = part.stop
        try:
            yield turn.choice, turn.choice.take(chosen[part], logprobs[part])
        except BestiaryError as error:
            yield turn.choice, error


def _logprobs(
    logits: torch.Tensor, turns: Many[_Turn], places: Many[int], chosen: Many[int | BestiaryError]
) -> list[TokenLogprob | None]:
    """For the rows whose request asks; of the model's own logits."""
    requests = [turn.choice.request for turn in turns for _ in turn.rows]
    made: list[TokenLogprob | None] = [None] * len(places)
    asked = [
        (index, token)
        for index, (request, token) in enumerate(zip(requests, chosen, strict=True))
        if request.with_logprobs and isinstance(token, int)
    ]
    if asked:
        tops = [requests[index].sampling.logprobs or 0 for index, _ in asked]
        values = logprobs_of(logits[[places[index] for index, _ in asked]], [token for _, token in asked], tops)
        for (index, token), value in zip(asked, values, strict=True):
            made[index] = requests[index].logprob(token, value)
    return made


def _prompt_rows(work: Work) -> int:
    """How many of the step's outputs are of positions before the last known token: they score the prompt."""
    sequence = work.sequence
    return len(range(work.outputs.start, min(work.end, len(sequence.tokens) - sequence.drafts - 1)))


def _score_prompt(choice: Choice, work: Work, logits: torch.Tensor) -> None:
    request, sequence = choice.request, work.sequence
    start = work.outputs.start
    tokens = sequence.tokens[start + 1 : start + 1 + len(logits)]
    if not bool(torch.isfinite(logits).all()):
        raise GenerationError(
            "The model's logits are not finite.", where=f"between the positions {start} and {work.end}"
        )
    values = logprobs_of(logits, tokens, [request.sampling.prompt_logprobs or 0] * len(tokens))
    request.prompt_logprobs += [request.logprob(token, value) for token, value in zip(tokens, values, strict=True)]
    sequence.wanted = work.outputs.stop if work.end < len(sequence.tokens) else sequence.wanted
