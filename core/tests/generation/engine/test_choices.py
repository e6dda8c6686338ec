"""Several answers to one prompt, the best of several, and the log-probabilities of prompts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.generation.completion import Completion, collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.randomness import derived
from bestiary.generation.sampling import Sampling
from bestiary.testing.settled import settled

PROMPT = [(7 * index) % 97 for index in range(37)]
Make = Callable[..., Engine]


def ask(engine: Engine, prompt: list[int] = PROMPT, **options: Any) -> Completion:
    return collect(engine.stream(prompt, Sampling(max_tokens=options.pop("max_tokens", 12), **options)))


@pytest.fixture(scope="module")
def model(network: Callable[..., Any]) -> Any:
    return network()


@pytest.mark.parametrize("limits", [Limits(tokens=48, sequences=8), Limits(tokens=48, sequences=2)])
def test_each_of_n_answers_is_the_one_that_its_seed_gives_alone(model: Any, engine_over: Make, limits: Limits) -> None:
    """Also where fewer may run at once than are asked for."""
    answers = ask(engine_over(model, limits=limits), n=5, temperature=1.0, seed=11).choices
    assert len(answers) == 5
    alone = engine_over(model)
    for index, answer in enumerate(answers):
        assert answer.tokens == ask(alone, temperature=1.0, seed=derived(11, index)).tokens
    assert len({answer.tokens for answer in answers}) > 1


def test_the_prompt_of_n_answers_is_computed_once(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    ask(engine, n=6, temperature=1.0, max_tokens=2)
    totals = engine.statistics().totals
    assert totals.steps == 2, "one step for the prompt and the first tokens, one for the second"
    assert totals.prompt_tokens == 6 * len(PROMPT) and totals.reused_tokens == 5 * len(PROMPT)
    assert settled(engine).blocks_used == 0


def test_greedy_answers_are_all_the_same(model: Any, engine_over: Make) -> None:
    answers = ask(engine_over(model), n=3).choices
    assert len({answer.tokens for answer in answers}) == 1


def test_best_of_gives_the_answers_of_the_highest_mean_logprob(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    all_six = ask(engine, n=6, temperature=1.0, seed=3, logprobs=0).choices
    best = ask(engine, n=2, best_of=6, temperature=1.0, seed=3).choices

    def mean(answer: Completion) -> float:
        assert answer.logprobs is not None
        return sum(made.logprob for made in answer.logprobs) / len(answer.tokens)

    expected = sorted(all_six, key=mean, reverse=True)[:2]
    assert [answer.tokens for answer in best] == [answer.tokens for answer in expected]
    assert all(answer.logprobs is None for answer in best)


def test_streams_of_several_answers_name_each_piece(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    chunks = list(engine.stream(PROMPT, Sampling(n=3, temperature=1.0, seed=5, max_tokens=6)))
    whole = ask(engine, n=3, temperature=1.0, seed=5, max_tokens=6)
    for index, answer in enumerate(whole.choices):
        own = [chunk for chunk in chunks if chunk.index == index]
        assert tuple(token for chunk in own for token in chunk.tokens) == answer.tokens
        assert [chunk.finish_reason for chunk in own] == [None] * 5 + ["length"]


def test_closing_a_stream_of_several_answers_ends_them_all(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    for count in (0, 1, 4):
        stream = engine.stream(PROMPT, Sampling(n=4, temperature=1.0, max_tokens=100))
        for _ in range(count):
            next(stream)
        stream.close()
    other = ask(engine)
    assert other.finish_reason == "length"
    found = settled(engine)
    assert (found.running, found.waiting, found.blocks_used) == (0, 0, 0)


@pytest.mark.parametrize("tokens", [16, 48])
def test_prompt_logprobs_are_those_of_the_model(model: Any, engine_over: Make, tokens: int) -> None:
    """In one step and in several, and whatever the cache already holds of the prompt."""
    engine = engine_over(model, limits=Limits(tokens=tokens, sequences=4, logits=13))
    expected = engine.score(PROMPT).log_softmax(-1)
    plain = ask(engine)
    for _ in range(2):
        answer = ask(engine, prompt_logprobs=3)
        assert answer.tokens == plain.tokens and answer.prompt_logprobs is not None
        assert [made.token for made in answer.prompt_logprobs] == PROMPT[1:]
        for made, token, row in zip(answer.prompt_logprobs, PROMPT[1:], expected, strict=False):
            assert made.logprob == pytest.approx(float(row[token]), abs=1e-4)
            assert [other.token for other in made.top] == row.topk(3).indices.tolist()
    assert plain.prompt_logprobs is None


def test_prompt_logprobs_come_once_with_several_answers(model: Any, engine_over: Make) -> None:
    answers = ask(engine_over(model), prompt_logprobs=0, n=2, best_of=3, temperature=1.0).choices
    assert answers[0].prompt_logprobs is not None and len(answers[0].prompt_logprobs) == len(PROMPT) - 1
    assert answers[1].prompt_logprobs is None


def test_a_prompt_of_one_token_has_no_logprobs(model: Any, engine_over: Make) -> None:
    assert ask(engine_over(model), [5], prompt_logprobs=2).prompt_logprobs == ()


def test_several_answers_beside_others_change_nobody(model: Any, engine_over: Make) -> None:
    engine = engine_over(model)
    streams = [
        engine.stream(PROMPT[: 5 + index], Sampling(n=1 + index % 3, temperature=1.0, seed=index, max_tokens=9))
        for index in range(8)
    ]
    for index, stream in enumerate(streams):
        answer = collect(stream)
        alone = engine_over(model)
        expected = ask(alone, PROMPT[: 5 + index], n=1 + index % 3, temperature=1.0, seed=index, max_tokens=9)
        assert [each.tokens for each in answer.choices] == [each.tokens for each in expected.choices]


def test_processors_of_each_answer_see_its_own_tokens(model: Any, engine_over: Make) -> None:
    def no_repeats(logits: torch.Tensor, tokens: Any) -> torch.Tensor:
        logits = logits.clone()
        logits[list(tokens[len(PROMPT) :])] = float("-inf")
        return logits

    for answer in ask(engine_over(model), n=3, temperature=1.0, processors=(no_repeats,), max_tokens=20).choices:
        assert len(set(answer.tokens)) == 20
