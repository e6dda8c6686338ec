"""Beam search over one window: the best of several answers that are written side by side.

The rules are those of transformers: of 2 B continuations the B best that do not end go on, an end among the B best is
an answer, and it is over once no beam can become better than the worst of B answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary.errors import GenerationError
from bestiary_whisper.decoding import Answer, Begun, Desk
from bestiary_whisper.rules import Rules


@dataclass(frozen=True)
class _Beam:
    written: tuple[int, ...]
    score: float
    place: int
    """Which of the answers of the desk it is."""


def search(begun: Begun, rules: Rules, most: int, size: int, length_penalty: float = 1.0) -> Answer:
    """The answer with the best score, divided by its length to the power of `length_penalty`; it may be cut at `most`.

    Raises GenerationError where the model's logits are not finite.
    """
    end, vocabulary = rules.tokens.end, begun.logits.shape[0]
    begun.desk.open(1)
    beams = [_Beam((), 0.0, 0)]
    logits = begun.logits[None]
    found: list[tuple[float, Answer]] = []
    for length in range(1, most + 1):
        with begun.desk.model.operations.between():
            if not bool(logits.isfinite().all()):
                raise GenerationError("The model's logits are not finite.", fix="use another type of numbers")
            gains = rules.apply(logits.log_softmax(1), [beam.written for beam in beams])
            totals = gains + torch.tensor([beam.score for beam in beams], device=gains.device)[:, None]
            values, places = totals.flatten().topk(min(2 * size, totals.numel()))
        going: list[tuple[float, int, int]] = []
        for rank, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            if value == -torch.inf:
                break
            parent, token = divmod(place, vocabulary)
            if token != end and length < most:
                going.append((value, parent, token))
            elif rank < size:
                written = beams[parent].written if token == end else (*beams[parent].written, token)
                found.append((value / length**length_penalty, Answer(written, value, token == end)))
        found = sorted(found, key=lambda each: -each[0])[:size]
        going = going[:size]
        if not going:
            break
        if len(found) == size and going[0][0] / length**length_penalty <= found[-1][0]:
            break
        beams = _continued(begun.desk, beams, going, size)
        logits = begun.desk.step([beam.place for beam in beams], [beam.written[-1] for beam in beams])
    if not found:
        raise GenerationError("No token is left to choose from.", fix="check the suppressed tokens of the model")
    return found[0][1]


def _continued(desk: Desk, beams: list[_Beam], going: list[tuple[float, int, int]], size: int) -> list[_Beam]:
    """The next beams; the first heir of each stays in its place, others are copies where nobody is any more."""
    kept = {beams[parent].place for _, parent, _ in going}
    free = [place for place in range(size) if place not in kept]
    made, taken = [], set()
    for score, parent, token in going:
        old = beams[parent]
        place = old.place
        if parent in taken:
            place = free.pop()
            desk.copy(old.place, place)
        taken.add(parent)
        made.append(_Beam((*old.written, token), score, place))
    return made
