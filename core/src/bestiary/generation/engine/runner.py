"""A plan becomes one forward pass: prompts and decoding mixed in one flat batch."""

from __future__ import annotations

from collections.abc import Sequence as Many
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bestiary.generation.engine.encoding import EncodedMedia
from bestiary.generation.engine.graphs import decode_graphs
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.sequence import Plan, Work
from bestiary.nn import Batch, LanguageModel

if TYPE_CHECKING:
    from bestiary.adapters.residency import Adapters
    from bestiary.media.prompt import MediaPrompt


@dataclass(frozen=True)
class Result:
    """What a step made: the logits [N, V] in float32 of every position that was wanted, in the order of the plan."""

    plan: Plan
    logits: torch.Tensor
    hidden: torch.Tensor
    """[T, D]: the states before the head of all the step's tokens."""


class ModelRunner:
    """A model over a paged cache; `adapters` are those that sequences may ask for."""

    def __init__(
        self, model: LanguageModel, cache: PagedCache, adapters: Adapters | None = None, *, replay: bool = True
    ) -> None:
        """`replay` lets steps in which every sequence decodes be recorded, where the device has a way to."""
        self.model, self.cache, self.adapters, self.replay = model, cache, adapters, replay
        self.media = EncodedMedia(getattr(model, "media", None), cache.device)
        self.forget()

    def forget(self) -> None:
        """The model's weights lie elsewhere now: what was recorded of them is void."""
        self.media.forget()
        self._graphs = decode_graphs(self.model, self.cache) if self.replay else None

    @torch.inference_mode()
    def run(self, plan: Plan) -> Result:
        """Run a step."""
        self.cache.copy(plan.copies)
        adapted = self.adapters is not None and any(work.sequence.adapter is not None for work in plan.work)
        if self._graphs is not None and not adapted and self._graphs.fits(plan.work):
            hidden = self._graphs.run(plan.work)
            return Result(plan, self._numbers(self.model.head(hidden)), hidden)
        tokens, batch = flat(plan.work, self.cache, self.media)
        with self._adapted(plan.work, batch) if adapted else nullcontext():
            hidden = self.model.hidden(tokens, batch)
            logits = self.model.head(hidden if batch.outputs is None else hidden[batch.outputs])
        return Result(plan, self._numbers(logits), hidden)

    def _numbers(self, logits: torch.Tensor) -> torch.Tensor:
        with self.cache.operations.between():
            return logits.float()

    def _adapted(self, work: Many[Work], batch: Batch) -> AbstractContextManager[None]:
        assert self.adapters is not None and batch.outputs is not None
        return self.adapters.step([(entry.sequence.adapter, entry.count) for entry in work], batch.outputs.tolist())


def flat(works: Many[Work], cache: PagedCache, media: EncodedMedia | None = None) -> tuple[torch.Tensor, Batch]:
    """The tokens [T] of a step, and their batch; logits are wanted where each sequence says.

    `media` has the rows of pictures in place of those of their tokens; a model that drafts does without, and takes
    tokens in their order.
    """
    tokens: list[int] = []
    seen: list[tuple[MediaPrompt, int, int, int]] = []
    positions: list[int] = []
    lengths: list[int] = []
    outputs: list[int] = []
    for work in works:
        wanted = work.outputs
        if media is not None and work.sequence.media is not None:
            seen.append((work.sequence.media, work.start, work.end, len(tokens)))
        outputs += range(len(tokens) + wanted.start - work.start, len(tokens) + work.count)
        tokens += work.sequence.tokens[work.start : work.end]
        positions += range(work.start, work.end)
        lengths += [work.end] * work.count
    device = cache.device
    batch = Batch(
        torch.tensor(positions, device=device) if not seen else _places(works).to(device),
        torch.tensor(lengths, device=device),
        cache.states(works),
        torch.tensor(outputs, dtype=torch.long, device=device),
        media.features(seen) if media is not None else None,
    )
    return torch.tensor(tokens, device=device), batch


def _places(works: Many[Work]) -> torch.Tensor:
    """The positions of a step [T], or [3, T] where media stand otherwise than in their order."""
    made = [work.sequence.positions(work.start, work.end) for work in works]
    if all(part.ndim == 1 for part in made):
        return torch.from_numpy(np.concatenate(made))
    return torch.from_numpy(np.concatenate([np.broadcast_to(part, (3, part.shape[-1])) for part in made], 1))
