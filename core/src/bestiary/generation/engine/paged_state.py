"""The states of recurrent layers, a block for each sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from bestiary.generation.engine.paged_memory import LayerBlocks
from bestiary.generation.engine.sequence import Work
from bestiary.nn.batch import RecurrentSpec


@dataclass(frozen=True)
class StateStep:
    """What the recurrent layers share in one step."""

    counts: tuple[int, ...]
    blocks: torch.Tensor
    """[N]: where each sequence's state lies."""
    begins: torch.Tensor | None
    """[N'] of those that begin, and have none yet."""

    @classmethod
    def of(cls, work: Many[Work], index: int, device: torch.device) -> StateStep:
        begins = [place for place, entry in enumerate(work) if entry.start == 0]
        return cls(
            tuple(entry.count for entry in work),
            torch.tensor([entry.sequence.tables[index][0] for entry in work], device=device),
            torch.tensor(begins, device=device) if begins else None,
        )


class PagedState:
    """One recurrent layer's state in one step (a `bestiary.nn.RecurrentState`)."""

    def __init__(self, blocks: LayerBlocks, step: StateStep) -> None:
        self.blocks, self.step = blocks, step

    @property
    def counts(self) -> Many[int]:
        return self.step.counts

    def load(self, spec: RecurrentSpec) -> tuple[torch.Tensor, ...]:
        states = tuple(memory.index_select(0, self.step.blocks) for memory in self.blocks.memories)
        if self.step.begins is not None:
            for state in states:
                state.index_fill_(0, self.step.begins, 0)
        return states

    def store(self, states: Many[torch.Tensor]) -> None:
        for memory, state in zip(self.blocks.memories, states, strict=True):
            memory.index_copy_(0, self.step.blocks, state.to(memory.dtype))
