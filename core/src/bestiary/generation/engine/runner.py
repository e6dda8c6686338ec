"""A plan becomes one forward pass: prompts and decoding mixed in one flat batch."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.sequence import Plan, Sequence
from bestiary.nn import Batch, CausalLM


class ModelRunner:
    """A model over a paged cache."""

    def __init__(self, model: CausalLM, cache: PagedCache) -> None:
        self.model, self.cache = model, cache

    @torch.inference_mode()
    def run(self, plan: Plan) -> tuple[Many[Sequence], torch.Tensor]:
        """Run a step; the sequences whose next token is wanted, and their logits [N, V] in float32 on the CPU."""
        self.cache.copy(plan.copies)
        device = self.cache.device
        tokens: list[int] = []
        positions: list[int] = []
        lengths: list[int] = []
        outputs: list[int] = []
        wanted: list[Sequence] = []
        for work in plan.work:
            end = work.start + work.count
            tokens += work.sequence.tokens[work.start : end]
            positions += range(work.start, end)
            lengths += [end] * work.count
            if work.samples:
                outputs.append(len(tokens) - 1)
                wanted.append(work.sequence)
        batch = Batch(
            torch.tensor(positions, device=device),
            torch.tensor(lengths, device=device),
            self.cache.states(plan.work),
            torch.tensor(outputs, dtype=torch.long, device=device),
        )
        logits = self.model(torch.tensor(tokens, device=device), batch)
        return wanted, logits.float().cpu()
