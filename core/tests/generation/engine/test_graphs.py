"""Decoding steps in fixed buffers give what the free ones give; on a GPU they are then recorded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.graphs import DecodeGraphs
from bestiary.generation.sampling import Sampling

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
