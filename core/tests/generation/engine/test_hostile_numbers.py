"""Numbers that are none, masks that leave nothing, temperatures at their ends, and processors that misbehave."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bestiary.errors import GenerationError
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.testing.greedy import greedy_tokens

Make = Callable[..., Engine]
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def model(network: Callable[..., Any]) -> Any:
    return network()


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-9, 9e-6])
def test_hardly_any_temperature_is_the_greedy_answer(model: Any, engine_over: Make, temperature: float) -> None:
    answer = collect(engine_over(model).stream(PROMPT, Sampling(max_tokens=30, temperature=temperature, seed=1)))
    assert answer.tokens == tuple(greedy_tokens(model, PROMPT, 30))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 100.0])
def test_a_temperature_gives_the_distribution_of_its_formula(model: Any, engine_over: Make, temperature: float) -> None:
    """softmax(logits / temperature) over the eight most probable tokens, by chi-square at 99.99 %."""
    engine = engine_over(model, limits=Limits(tokens=512, sequences=64))
    logits = engine.score(PROMPT)[-1].double().numpy()
    best = np.argsort(-logits)[:8]
    expected = np.exp((logits[best] - logits[best[0]]) / temperature)
    expected *= 3000 / expected.sum()
    sampling = [Sampling(max_tokens=1, temperature=temperature, top_k=8, seed=seed) for seed in range(3000)]
    counts: Counter[int] = Counter()
    for start in range(0, 3000, 300):
        streams = [engine.stream(PROMPT, each) for each in sampling[start : start + 300]]
        counts.update(collect(stream).tokens[0] for stream in streams)
    assert set(counts) <= set(best.tolist())
    drawn = np.array([counts[int(token)] for token in best])
    kept = expected > 5  # what the approximation by chi-square holds for
    assert kept.sum() >= 3
    assert float(((drawn - expected) ** 2 / expected)[kept].sum()) < 29.9  # 7 degrees of freedom


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_model_that_makes_no_numbers_fails_that_request_alone(
    network: Callable[..., Any], engine_over: Make, value: float, steps: int
) -> None:
    """The token 9 has no numbers; whoever has it in the prompt, or is made to say it later, fails."""
    model = network()
    with torch.no_grad():
        model.model.embed_tokens.weight[9] = value

    def says_nine(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
        return logits.index_fill(0, torch.tensor([9]), 1e4) if len(tokens) == len(PROMPT) + steps - 1 else logits

    quiet = {"max_tokens": 30, "logit_bias": {9: -100.0}}
    engine = engine_over(model)
    expected = collect(engine.stream(PROMPT, Sampling(**quiet))).tokens
    assert len(expected) == 30
    other = engine.stream(PROMPT, Sampling(**quiet))
    late = engine.stream(PROMPT, Sampling(max_tokens=30, processors=(says_nine,)))
    early = engine.stream([9, 9, 9], Sampling(max_tokens=30))
    with pytest.raises(GenerationError, match="not finite") as found:
        collect(late)
    assert found.value.where == f"position {len(PROMPT) + steps - 1}"
    with pytest.raises(GenerationError, match="not finite") as found:
        collect(early)
    assert found.value.where == "position 2"
    assert collect(other).tokens == expected
    assert collect(engine.stream(PROMPT, Sampling(**quiet))).tokens == expected, "nor is it in anybody's prefix"


def test_no_token_left_is_an_error_and_not_token_zero(model: Any, engine_over: Make) -> None:
    """By processors, by every token being an end that comes too early."""
    engine = engine_over(model, end_tokens=frozenset(range(97)))
    with pytest.raises(GenerationError, match="No token is left"):
        collect(engine.stream(PROMPT, Sampling(max_tokens=5, min_tokens=2)))
    with pytest.raises(GenerationError, match="No token is left"):
        collect(engine.stream(PROMPT, Sampling(processors=(lambda logits, tokens: logits.fill_(-math.inf),))))
    assert len(collect(engine.stream(PROMPT, Sampling(max_tokens=5, ignore_eos=True))).tokens) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": dict.fromkeys(range(97), -100.0)},
        {"logit_bias": dict.fromkeys(range(97, 900), 100.0)},
        {"temperature": 1.0, "seed": 1, "top_k": 1},
        {"temperature": 1.0, "seed": 1, "top_p": 0.0},
        {"temperature": 1.0, "seed": 1, "min_p": 1.0},
    ],
    ids=str,
)
def test_settings_that_leave_one_token_or_move_all_alike_give_the_greedy_answer(
    model: Any, engine_over: Make, options: dict[str, Any]
) -> None:
    answer = collect(engine_over(model).stream(PROMPT, Sampling(max_tokens=20, **options)))
    assert answer.tokens == tuple(greedy_tokens(model, PROMPT, 20))


PROCESSORS: dict[str, Callable[[torch.Tensor, Any], Any]] = {
    "nothing": lambda logits, tokens: None,
    "a list": lambda logits, tokens: [0.0] * 97,
    "numpy": lambda logits, tokens: logits.numpy(),
    "fewer": lambda logits, tokens: logits[:5],
    "more": lambda logits, tokens: torch.cat((logits, logits)),
    "none at all": lambda logits, tokens: logits[:0],
    "rows": lambda logits, tokens: logits[None],
    "a sum": lambda logits, tokens: logits.sum(),
    "one nan": lambda logits, tokens: logits.index_fill(0, torch.tensor([5]), math.nan),
    "one inf": lambda logits, tokens: logits.index_fill(0, torch.tensor([5]), math.inf),
    "all inf": lambda logits, tokens: logits.fill_(math.inf),
    "no data": lambda logits, tokens: logits.to("meta"),
    "sparse": lambda logits, tokens: logits.to_sparse(),
    "an end of iteration": lambda logits, tokens: next(iter(())),
    "an assertion": lambda logits, tokens: (_ for _ in ()).throw(AssertionError),
    "deep recursion": lambda logits, tokens: _deep(),
}


def _deep() -> Any:
    return _deep()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_that_misbehaves_fails_its_own_request_alone(
    model: Any, engine_over: Make, name: str, temperature: float
) -> None:
    engine = engine_over(model)
    other = engine.stream(PROMPT, Sampling(max_tokens=30))
    with pytest.raises(GenerationError):
        collect(engine.stream(PROMPT, Sampling(temperature=temperature, processors=(PROCESSORS[name],))))
    assert collect(other).tokens == tuple(greedy_tokens(model, PROMPT, 30))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_processor_may_answer_in_another_type(model: Any, engine_over: Make, kind: torch.dtype) -> None:
    engine = engine_over(model)
    answer = collect(
        engine.stream(PROMPT, Sampling(max_tokens=8, processors=(lambda logits, tokens: logits.to(kind),)))
    )
    assert len(answer.tokens) == 8


def test_what_a_processor_does_to_its_logits_is_seen_by_nobody_else(model: Any, engine_over: Make) -> None:
    """It may write into what it was given: neither others nor the log-probabilities are of that."""
    engine = engine_over(model)
    plain = Sampling(max_tokens=20, logprobs=3)
    expected = collect(engine.stream(PROMPT, plain))

    def ruin(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
        return logits.fill_(-1e9).index_fill_(0, torch.tensor([7]), 0.0)

    streams = [engine.stream(PROMPT, plain) for _ in range(3)]
    ruined = collect(engine.stream(PROMPT, Sampling(max_tokens=20, logprobs=3, processors=(ruin,))))
    assert ruined.tokens == (7,) * 20
    assert ruined.logprobs and expected.logprobs
    assert [top.token for top in ruined.logprobs[0].top] == [top.token for top in expected.logprobs[0].top]
    for stream in streams:
        answer = collect(stream)
        assert answer.tokens == expected.tokens and answer.logprobs
        assert [found.logprob for found in answer.logprobs] == pytest.approx(
            [found.logprob for found in expected.logprobs], abs=1e-5
        )
