"""Decoding steps in fixed buffers give what the free ones give; on a GPU they are then recorded."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.graphs import DecodeGraphs
from bestiary.generation.engine.sequence import Sequence, Work
from bestiary.generation.rooms import BLOCK, make_rooms
from bestiary.generation.sampling import Sampling
from bestiary.nn.batch import AttentionSpec, Batch
from bestiary.nn.operations import PLAIN

Make = Callable[..., Engine]
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "windows": {"sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"]},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_fixed_buffers_change_no_token(network: Callable[..., Any], engine_over: Make, name: str) -> None:
    model = network(**CONFIGURATIONS[name])
    plain, fixed = engine_over(model), engine_over(model)
    recorded: list[int] = []

    def record(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        recorded.append(1)
        return step

    fixed._runner._graphs = DecodeGraphs(model, fixed.cache, record)
    requests = [
        ([(seed * place) % 97 for place in range(1, 4 + 9 * seed)], Sampling(max_tokens=5 + 7 * seed))
        for seed in range(7)
    ]
    expected = [collect(plain.stream(*request)).tokens for request in requests]
    streams = [fixed.stream(*request) for request in requests]
    assert [collect(stream).tokens for stream in streams] == expected
    assert 1 <= len(recorded) <= 4, "one for each power of two of sequences"


def test_a_step_that_cannot_be_recorded_runs_as_it_is(network: Callable[..., Any], engine_over: Make) -> None:
    model = network()
    plain, fixed = engine_over(model), engine_over(model)

    def refuse(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = DecodeGraphs(model, fixed.cache, refuse)
    fixed._runner._graphs = graphs
    request = [1, 2, 3], Sampling(max_tokens=12)
    assert collect(fixed.stream(*request)).tokens == collect(plain.stream(*request)).tokens
    assert graphs.most == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_steps_on_a_gpu_change_no_token(network: Callable[..., Any]) -> None:
    from bestiary.testing.numbers import Numbers

    model = network().cuda()
    answers = []
    for graphs in (True, False):
        engine = Engine(
            model,
            Numbers(),
            device=torch.device("cuda"),
            dtype=torch.float32,
            end_tokens=frozenset(),
            context_length=160,
            cache_tokens=2048,
        )
        if not graphs:
            engine._runner._graphs = None
        streams = [engine.stream([seed, 5, 6], Sampling(max_tokens=30)) for seed in range(5)]
        answers.append([collect(stream).tokens for stream in streams])
        engine.close()
    assert answers[0] == answers[1]


class Telling:
    """A model that says what a step was given, and remembers its tokens."""

    specs = (AttentionSpec(1, 1, 4, 1.0),)

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        kept = tokens.float()[:, None, None].expand(-1, 1, 4)
        seen = batch.layers[0].attend(torch.zeros_like(kept), kept, kept, self.specs[0])
        return torch.stack((tokens, batch.positions, batch.lengths, seen[:, 0, 0]), 1)


def test_a_step_with_fewer_sequences_leaves_those_of_the_last_one_alone() -> None:
    """Each row has its token, position and length, and the mean of what its own sequence remembers."""
    room = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"), operations=PLAIN)
    cache, rooms = make_rooms(room, Telling.specs, [40] * 4)
    graphs = DecodeGraphs(Telling(), cache, lambda step: step)
    values = cache.layers[0].memories[1]
    values.fill_(torch.nan)  # of nobody, and of others
    sequences = [Sequence([], 0) for _ in rooms]
    for number, (sequence, blocks) in enumerate(zip(sequences, rooms, strict=True)):
        sequence.tables, sequence.tokens = [list(blocks)], [10 * number + place for place in range(9)]
        values[blocks.start * BLOCK] = sequence.tokens[0]
    last = slice(rooms[3].start * BLOCK, rooms[3].stop * BLOCK)
    for place, count in ((1, 4), (2, 3), (3, 3)):
        if count == 3:
            values[last] = 7.0  # it has ended, and others have its blocks
        made = graphs.run([Work(sequence, place, 1) for sequence in sequences[:count]])
        for row, sequence in zip(made.tolist(), sequences, strict=False):
            remembered = sequence.tokens[: place + 1]
            assert row[:3] == [sequence.tokens[place], place, place + 1]
            assert row[3] == pytest.approx(sum(remembered) / len(remembered))
    assert bool((values[last] == 7.0).all())
