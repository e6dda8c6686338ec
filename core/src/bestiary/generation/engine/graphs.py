"""Decoding steps of fixed shapes, so that a recorded one can be replayed: CUDA graphs, or lists of native calls.

A step in which every sequence decodes is padded to the next bucket of sequences and of positions.  Its inputs are
written into buffers that stay, and what the model does with them is recorded once for each bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import nn

from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.paged_attention import AttentionStep, slots_seen
from bestiary.generation.engine.paged_state import StateStep
from bestiary.generation.engine.sequence import Work
from bestiary.nn import Batch, CausalLM, Experts, LanguageModel, Linear

log = logging.getLogger("bestiary.engine")

Recorder = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]
"""Takes what computes a step from its buffers, and returns what does it again."""


def cuda_graph(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Record a step as a CUDA graph; as torch asks, after it ran on another stream so that libraries are set up."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return made

    return replay


class Steps(Protocol):
    """Of a model what is recorded."""

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """tokens [T], or [T, Q] of codebooks -> the states [T, D] before the head."""


class _Input:
    """A tensor of a step, and where its numbers are written before they are sent: on a CPU that is the same memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self._own = tensor, tensor.device.type == "cpu"
        self.host: np.ndarray = tensor.numpy() if self._own else tensor.cpu().numpy()

    def send(self) -> None:
        if not self._own:
            self.tensor.copy_(torch.from_numpy(self.host))


@dataclass(frozen=True)
class _Seen:
    """What a layer sees in a step, as `AttentionStep` has it."""

    slots: _Input
    seen: _Input
    lengths: _Input
    mask: _Input


@dataclass(frozen=True)
class _Buffers:
    """The inputs of a step of N sequences that see up to S positions each."""

    numbers: _Input
    """The positions, the lengths and the tokens, one after the other, which are parts of it."""
    tokens: torch.Tensor
    batch: Batch
    steps: tuple[_Seen | StateStep, ...]


class DecodeGraphs:
    """Recorded decoding steps of a model over a cache, by bucket."""

    def __init__(
        self,
        model: Steps,
        cache: PagedCache,
        record: Recorder = cuda_graph,
        most: int = 64,
        *,
        padded: bool = True,
    ) -> None:
        """Steps of more than `most` sequences are not recorded.

        `padded` steps have a power of two of sequences, for recordings that are dear; else each number has its own.
        """
        self.model, self.cache, self.most, self._record, self._padded = model, cache, most, record, padded
        self._recorded: dict[tuple[int, int], tuple[_Buffers, Callable[[], torch.Tensor]]] = {}
        modules: Iterable[nn.Module] = getattr(model, "modules", tuple)()
        self._watchable = [module for module in modules if isinstance(module, Linear | Experts)]

    def fits(self, work: Many[Work]) -> bool:
        """Whether every sequence decodes, one token each, there are not too many, and nobody watches the layers."""
        if len(work) > self.most or not all(entry.count == 1 and entry.start > 0 for entry in work):
            return False
        if any(entry.sequence.media is not None and entry.start < entry.sequence.prompt_length for entry in work):
            return False  # what stands there may be no token
        # A recording does again what was computed, and does not call those who want to see it.
        return not any(module.watched for module in self._watchable)

    def run(self, work: Many[Work]) -> torch.Tensor:
        """The states [N, D] before the head, in a buffer that the next step overwrites."""
        rows = _next_power(len(work)) if self._padded else len(work)
        bucket = (rows, max(256, _next_power(max(entry.end for entry in work))))
        if bucket not in self._recorded:
            buffers = self._empty(*bucket, np.shape(work[0].sequence.tokens[work[0].start]))
            self._fill(buffers, work)
            self._recorded[bucket] = buffers, self._recording(buffers)
        buffers, replay = self._recorded[bucket]
        self._fill(buffers, work)
        return replay()[: len(work)]

    def _recording(self, buffers: _Buffers) -> Callable[[], torch.Tensor]:
        def step() -> torch.Tensor:
            return self.model.hidden(buffers.tokens, buffers.batch)

        try:
            return self._record(step)
        except RuntimeError as error:
            # A layer that asks the device for numbers, as a loop over experts does, cannot be recorded.
            log.info("decoding steps are not recorded: %s", error)
            self.most = 0
            return step

    def _empty(self, rows: int, length: int, token: tuple[int, ...]) -> _Buffers:
        device = self.cache.device
        steps: list[AttentionStep | StateStep] = []
        inputs: list[_Seen | StateStep] = []
        for table, window in self.cache.views:
            group = self.cache.groups[table]
            if group.recurrent:
                state = StateStep((1,) * rows, torch.full((rows,), group.blocks, device=device), None)
                steps.append(state)
                inputs.append(state)
                continue
            seen = length if window is None else min(length, window)
            scratch = group.blocks * self.cache.block_size
            mask = torch.zeros(rows, 1, 1, seen, dtype=torch.bool, device=device)
            mask[..., 0] = True  # a row that sees nothing would be no number
            slots, places = (torch.full(shape, scratch, device=device) for shape in ((rows,), (rows, seen)))
            lengths = torch.ones(rows, dtype=torch.long, device=device)
            steps.append(AttentionStep(slots, (), None, places, mask, lengths))
            inputs.append(_Seen(*map(_Input, (slots, places, lengths, mask))))
        numbers = torch.zeros(rows * (2 + prod(token)), dtype=torch.long, device=device)
        batch = Batch(numbers[:rows], numbers[rows : 2 * rows], self.cache.layer_states(steps))
        return _Buffers(_Input(numbers), numbers[2 * rows :].view(rows, *token), batch, tuple(inputs))

    def _fill(self, buffers: _Buffers, work: Many[Work]) -> None:
        count, size, rows = len(work), self.cache.block_size, len(buffers.tokens)
        codes = [code for entry in work for code in _codes(entry.sequence.tokens[entry.start])]
        numbers = buffers.numbers.host
        numbers[:count] = [entry.start + entry.sequence.shift for entry in work]
        numbers[rows : rows + count] = [entry.end for entry in work]
        numbers[2 * rows : 2 * rows + len(codes)] = codes
        buffers.numbers.send()
        for step, (table, window) in zip(buffers.steps, self.cache.views, strict=True):
            group = self.cache.groups[table]
            if isinstance(step, StateStep):
                step.blocks.fill_(group.blocks)
                step.blocks[:count] = torch.tensor([entry.sequence.tables[table][0] for entry in work])
                continue
            slots, seen, lengths = step.slots.host, step.seen.host, step.lengths.host
            for row, entry in enumerate(work):
                found = slots_seen(entry, table, window, size)
                seen[row, : len(found)], slots[row], lengths[row] = found, found[-1], len(found)
                seen[row, len(found) :] = found[0]  # nobody else's, which may be NaN
            if count < rows:
                slots[count:] = seen[count:] = group.blocks * size
                lengths[count:] = 1
            np.less(np.arange(seen.shape[1]), lengths[:, None, None, None], out=step.mask.host)
            for part in (step.slots, step.seen, step.lengths, step.mask):
                part.send()


def decode_graphs(model: LanguageModel, cache: PagedCache) -> DecodeGraphs | None:
    """What records the decoding steps of a model on the cache's device; None where nothing can."""
    if cache.device.type == "cuda":
        return DecodeGraphs(model, cache)
    record = cache.operations.record
    # A model that is more than layers may do things in Python that a recording would not do again.
    if record is None or not isinstance(model, CausalLM):
        return None
    return DecodeGraphs(model, cache, record, padded=False)


def _codes(token: int | Many[int]) -> Many[int]:
    """A token is a number, or one of each of several codebooks."""
    return (token,) if isinstance(token, int) else token


def _next_power(number: int) -> int:
    return 1 << (number - 1).bit_length()
