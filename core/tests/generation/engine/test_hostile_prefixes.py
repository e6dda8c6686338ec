"""Shared prefixes under attack: wrong sharing would be a wrong answer, or one tenant's look at another's prompt."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.generation.completion import collect
from bestiary.generation.engine import prefixes
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.events import Begun, Ended, Event, Queued, Stepped
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.engine.terms import Terms
from bestiary.generation.sampling import Sampling
from bestiary.testing.greedy import greedy_tokens
from bestiary.testing.settled import settled

BLOCK = 16
SALTS = ("", "a", "b")
Make = Callable[..., Engine]
Asked = tuple[str, list[int], int]


@pytest.fixture(scope="module")
def model(network: Callable[..., Any]) -> Any:
    return network()


def tree(seed: int, count: int) -> list[Asked]:
    """Requests (salt, prompt, tokens) whose prompts branch off a few common roots, at and beside borders of blocks."""
    dice = random.Random(seed)
    roots = [[dice.randrange(97) for _ in range(80)] for _ in range(2)]
    made = []
    for _ in range(count):
        kept = dice.choice([0, 15, 16, 17, 32, 48, 63, 64, 80])
        own = [dice.randrange(97) for _ in range(dice.choice([1, 1, 16, 30]))]
        made.append((dice.choice(SALTS), [*dice.choice(roots)[:kept], *own], dice.randint(1, 12)))
    return made


def served(engine: Engine, asked: list[Asked], at_once: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """The answers to requests of which so many run at once, and the prompt tokens that each found in the cache."""
    reused: dict[int, int] = {}

    def listen(event: Event) -> None:
        if isinstance(event, Ended):
            reused[event.request] = event.reused_tokens

    leave = engine.subscribe(listen)
    answers: list[tuple[int, ...]] = []
    numbers: list[int] = []
    for start in range(0, len(asked), at_once):
        requests = [
            engine.submit(prompt, Sampling(max_tokens=count), Terms(cache_salt=salt))
            for salt, prompt, count in asked[start : start + at_once]
        ]
        numbers += [request.id for request in requests]
        for request, (_, _, count) in zip(requests, asked[start : start + at_once], strict=True):
            answers.append(tuple(token for _ in range(count) for token in request.next().tokens))
    settled(engine)
    leave()
    return answers, [reused[number] for number in numbers]


def common(one: list[int], other: list[int]) -> int:
    """The whole blocks with which two prompts begin; the last token of a prompt is always computed."""
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    length = min(len(one), len(other)) if length is None else length
    return min(length, len(one) - 1) // BLOCK * BLOCK


@pytest.mark.parametrize("cache_tokens", [2048, 320])
@pytest.mark.parametrize("seed", range(3))
def test_answers_are_right_and_reuse_stays_within_a_salt(
    model: Any, engine_over: Make, seed: int, cache_tokens: int
) -> None:
    """In a small cache, blocks are given up while others still share the rest of their prefix."""
    asked = tree(seed, 60)
    engine = engine_over(model, cache_tokens=cache_tokens, limits=Limits(tokens=40, sequences=6))
    answers, reused = served(engine, asked, at_once=6)
    assert answers == [tuple(greedy_tokens(model, prompt, count)) for _, prompt, count in asked]
    for place, (salt, prompt, _) in enumerate(asked):
        # Of what came before, or runs beside it, under the same salt.
        others = [other for index, (own, other, _) in enumerate(asked[: place + 6]) if own == salt and index != place]
        assert reused[place] <= max((common(prompt, other) for other in others), default=0)
    assert sum(reused) > 500, "nothing was shared: this tested nothing"


def test_a_tenant_learns_nothing_of_anothers_prompts_from_the_work_that_is_done(model: Any, engine_over: Make) -> None:
    """Time is work: a prompt that another tenant sent costs the steps and tokens of one that nobody ever sent."""
    secret, foreign = [(7 * place) % 97 for place in range(100)], [(11 * place + 5) % 97 for place in range(100)]

    def work(engine: Engine, prompt: list[int], salt: str) -> list[tuple[int, int]]:
        steps: list[tuple[int, int]] = []
        leave = engine.subscribe(
            lambda event: steps.append((event.sequences, event.tokens)) if isinstance(event, Stepped) else None
        )
        collect(engine.stream(prompt, Sampling(max_tokens=4), Terms(cache_salt=salt)))
        settled(engine)
        leave()
        return steps

    engine = engine_over(model, limits=Limits(tokens=32, sequences=8))
    cold = work(engine, secret, "victim")
    assert work(engine, secret, "attacker") == work(engine, foreign, "attacker") == cold
    assert work(engine, secret, "") == cold
    assert len(work(engine, secret, "victim")) < len(cold), "the victim's own prefix is there"


@pytest.mark.parametrize(
    "one, other",
    [("", "\0"), ("a", "a "), ("a', None", "a"), ("ab", "a"), ("a\\", "a\\\\"), ("é", "e\u0301"), ("A", "a")],
    ids=repr,
)
def test_salts_that_look_alike_are_others(model: Any, engine_over: Make, one: str, other: str) -> None:
    engine = engine_over(model)
    prompt = [(5 * place) % 97 for place in range(40)]
    _, reused = served(engine, [(salt, prompt, 1) for salt in (one, other, one, other)], at_once=1)
    assert reused == [0, 0, 32, 32]


@pytest.mark.parametrize("digests", [1, 3])
def test_equal_hashes_of_other_prompts_give_nobody_a_wrong_answer(
    model: Any, engine_over: Make, monkeypatch: pytest.MonkeyPatch, digests: int
) -> None:
    """Hashes so short that nearly all prefixes of a length collide, also over salts."""
    monkeypatch.setattr(prefixes, "salted", lambda salt: b"root")
    monkeypatch.setattr(
        prefixes, "extended", lambda digest, tokens: digest[:4] + bytes([len(digest), sum(tokens) % digests])
    )
    asked = tree(7, 50)
    engine = engine_over(model, cache_tokens=640, limits=Limits(tokens=40, sequences=5))
    answers, _ = served(engine, asked, at_once=5)
    assert answers == [tuple(greedy_tokens(model, prompt, count)) for _, prompt, count in asked]


def test_tokens_whose_python_hashes_are_equal_are_others(model: Any, engine_over: Make) -> None:
    """hash(-1) == hash(-2) in CPython; prompts with either are refused, and no token of a vocabulary is negative."""
    engine = engine_over(model)
    for token in (-1, -2, None, 97, 2**61 - 1, True):
        with pytest.raises(RequestError, match="vocabulary"):
            engine.submit([1] * 20 + [token], Sampling())
    assert hash(0) == hash(2**61 - 1)


def test_a_prefix_is_found_only_by_requests_that_come_after_it_was_computed(model: Any, engine_over: Make) -> None:
    """Two that arrive together: what the second is said to reuse was computed by the first."""
    engine = engine_over(model, limits=Limits(tokens=200, sequences=8))
    events: list[Event] = []
    engine.subscribe(events.append)
    prompt = [(3 * place) % 97 for place in range(64)]
    answers, reused = served(engine, [("", prompt, 3), ("", prompt, 3)], at_once=2)
    assert answers[0] == answers[1] == tuple(greedy_tokens(model, prompt, 3))
    begun = [event for event in events if isinstance(event, Begun)]
    assert [event.reused_tokens for event in begun] == reused
    computed = sum(event.tokens for event in events if isinstance(event, Stepped))
    assert computed + sum(reused) == sum(event.prompt_tokens for event in events if isinstance(event, Queued)) + 2 * 2
