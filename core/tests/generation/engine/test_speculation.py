"""Drafts change how many steps an answer takes, and nothing else."""

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from bestiary.generation.completion import collect
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import regex
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.engine.terms import Terms
from bestiary.generation.sampling import Sampling
from bestiary.generation.speculation.drafter import NGramDrafter
from bestiary.generation.speculation.model import HeadDrafter, ModelDrafter
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import AttentionSpec, Batch
from bestiary.testing.settled import settled

Make = Callable[..., Engine]


class OwnHead:
    """A head that knows nothing: the model's head on a mixture of the state and the token's embedding."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layer = model.model.layers[0].self_attn

    @property
    def specs(self) -> Sequence[AttentionSpec]:
        return (self.layer.spec,)

    def hidden(self, tokens: torch.Tensor, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        x = states + self.model.model.embed_tokens(tokens)
        return x + self.layer(x, None, batch.positions, batch.layers[0])

    def head(self, states: torch.Tensor) -> torch.Tensor:
        return self.model.head(states)


def with_drafter(engine: Engine, kind: str, network: Callable[..., Any], tokens: int = 3) -> Engine:
    model: Any = engine.model
    if kind == "ngram":
        engine.drafter = NGramDrafter(tokens)
    elif kind == "head":
        head = OwnHead(model)
        engine.drafter = HeadDrafter(head, tokens, engine.cache.beside(head.specs, torch.float32, torch.device("cpu")))
    else:
        # The model itself is always right; another one almost never; a noisy copy sometimes; a wider one pads.
        draft = {"itself": model, "other": network(7), "wider": network(7, vocab_size=104)}.get(kind)
        if draft is None:
            draft = network(1)
            with torch.no_grad():
                for parameter in draft.parameters():
                    parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 60
        cache = engine.cache.beside(draft.specs, torch.float32, torch.device("cpu"))
        engine.drafter = ModelDrafter(draft, tokens, cache, model.vocab_size)
    return engine


KINDS = ["ngram", "itself", "noisy", "other", "wider", "head"]


def requests(count: int, seed: int = 0) -> list[tuple[list[int], Sampling]]:
    """Prompts that repeat themselves and prompts that do not, greedy and sampled, with penalties and without."""
    dice = random.Random(seed)
    made = []
    for index in range(count):
        prompt = [dice.randrange(97) for _ in range(dice.randint(1, 40))]
        prompt = prompt * dice.choice([1, 1, 2])
        options: dict[str, Any] = {"temperature": 0.7, "top_k": 5, "seed": index} if index % 2 else {}
        if index % 3 == 0:
            options |= {"repetition_penalty": 1.2, "frequency_penalty": 0.3}
        made.append((prompt, Sampling(max_tokens=dice.randint(1, 30), **options)))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_without_drafts(network: Callable[..., Any], engine_over: Make, kind: str) -> None:
    model = network()
    plain, fast = engine_over(model), with_drafter(engine_over(model), kind, network)
    asked = requests(14)
    expected = [collect(plain.stream(*request)).tokens for request in asked]
    streams = [fast.stream(*request) for request in asked]
    assert [collect(stream).tokens for stream in streams] == expected
    found = settled(fast)
    assert found.blocks_used == 0 and found.totals.drafted_tokens > 0
    if kind == "itself":
        assert found.totals.acceptance == 1.0


@pytest.mark.parametrize("kind", ["itself", "noisy", "ngram", "head"])
def test_also_where_memory_is_short_and_others_go(network: Callable[..., Any], engine_over: Make, kind: str) -> None:
    model = network(sliding_window=20, layer_types=["full_attention", "sliding_attention"])
    plain = engine_over(model)
    tight = with_drafter(
        engine_over(model, cache_tokens=160, limits=Limits(tokens=24, sequences=6)), kind, network, tokens=5
    )
    asked = requests(12, seed=4)
    expected = [collect(plain.stream(*request)).tokens for request in asked]
    streams = [tight.stream(*request) for request in asked]
    gone = [tight.stream(prompt, Sampling(max_tokens=30)) for prompt, _ in asked[:4]]
    for stream in gone:
        stream.close()
    assert [collect(stream).tokens for stream in streams] == expected
    assert settled(tight).blocks_used == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_draft_saves_steps(network: Callable[..., Any], engine_over: Make, kind: str) -> None:
    model = network()
    engine = with_drafter(engine_over(model), kind, network)
    answer = collect(engine.stream([3, 4, 5] * 4, Sampling(max_tokens=40)))
    totals = engine.statistics().totals
    assert len(answer.tokens) == 40
    assert totals.steps + totals.accepted_tokens == 40, "each step gives one token, and the drafts that were right"
    if kind == "itself":
        assert totals.steps == 1 + 10, "the prompt's, and one for every four"


@pytest.mark.parametrize("kind", ["itself", "noisy", "ngram"])
def test_draws_have_the_models_distribution(network: Callable[..., Any], engine_over: Make, kind: str) -> None:
    """Chi-square of the third token of many draws against the model's own probabilities."""
    few = functools.partial(network, vocab_size=24)
    engine = with_drafter(engine_over(few(), limits=Limits(tokens=512, sequences=64)), kind, few)
    prompt, count = [*(token for other in range(24) for token in (8, other)), 8], 3000  # whatever comes came before
    first = [
        collect(stream).tokens
        for part in range(0, count, 50)
        for stream in [
            engine.stream(prompt, Sampling(max_tokens=3, temperature=1.0, top_k=4, seed=seed))
            for seed in range(part, part + 50)
        ]
    ]
    expected: dict[int, float] = {}
    for one, p_one in top(engine, prompt):
        for two, p_two in top(engine, [*prompt, one]):
            for three, p_three in top(engine, [*prompt, one, two]):
                expected[three] = expected.get(three, 0.0) + p_one * p_two * p_three
    observed = {token: sum(tokens[2] == token for tokens in first) for token in expected}
    assert sum(observed.values()) == count
    rare = [token for token in expected if expected[token] * count < 5]
    cells = [(observed[token], expected[token] * count) for token in expected if token not in rare]
    cells.append((sum(observed[token] for token in rare), sum(expected[token] for token in rare) * count))
    statistic = sum((seen - due) ** 2 / due for seen, due in cells if due)
    degrees = len(cells) - 1
    assert statistic < degrees + 5 * (2 * degrees) ** 0.5
    assert engine.statistics().totals.drafted_tokens > 0


def top(engine: Engine, tokens: list[int]) -> list[tuple[int, float]]:
    logits = engine.score(tokens)[-1].topk(4)
    return list(zip(logits.indices.tolist(), logits.values.softmax(-1).tolist(), strict=True))


@pytest.mark.parametrize("kind", ["itself", "noisy", "ngram"])
def test_drafts_keep_to_a_grammar(
    network: Callable[..., Any], engine_over: Make, tokenizer: Tokenizer, kind: str
) -> None:
    model = network(vocab_size=257)
    options = {"tokenizer": tokenizer, "end_tokens": frozenset([256])}
    plain = engine_over(model, **options)
    fast = with_drafter(engine_over(model, **options), kind, functools.partial(network, vocab_size=257))
    compiler = ConstraintCompiler(tokenizer, model.vocab_size, plain.end_tokens)
    grammar = regex(r"(1[0-9]){3}( abc | def ){2,4}(2[0-9]){5,9}")
    for seed in range(6):
        sampling = Sampling(temperature=1.0, seed=seed, max_tokens=40)
        expected = collect(plain.stream([1, 2, 3], sampling, constraint=compiler.compile(grammar)))
        found = collect(fast.stream([1, 2, 3], sampling, constraint=compiler.compile(grammar)))
        assert found.tokens == expected.tokens and found.finish_reason == expected.finish_reason
    assert fast.statistics().totals.accepted_tokens > 0


def test_a_request_may_do_without_drafts(network: Callable[..., Any], engine_over: Make) -> None:
    engine = with_drafter(engine_over(network()), "itself", network)
    collect(engine.stream([1, 2, 3], Sampling(max_tokens=10), Terms(speculate=False)))
    assert engine.statistics().totals.drafted_tokens == 0


@pytest.mark.parametrize("kind", ["itself", "ngram", "head"])
def test_logprobs_and_stops_are_those_without_drafts(network: Callable[..., Any], engine_over: Make, kind: str) -> None:
    model = network()
    plain, fast = engine_over(model), with_drafter(engine_over(model), kind, network)
    text = collect(plain.stream([3, 4, 5] * 3, Sampling(max_tokens=20))).text
    for options in ({"logprobs": 3}, {"stop": (text[20:26],)}, {"n": 3, "temperature": 0.9, "seed": 2}):
        sampling = Sampling(max_tokens=20, **options)  # type: ignore[arg-type]
        expected = collect(plain.stream([3, 4, 5] * 3, sampling))
        found = collect(fast.stream([3, 4, 5] * 3, sampling))
        assert [(each.text, each.tokens) for each in found.choices] == [
            (each.text, each.tokens) for each in expected.choices
        ]
        for made, due in zip(found.logprobs or (), expected.logprobs or (), strict=True):
            assert made.token == due.token and made.logprob == pytest.approx(due.logprob, abs=1e-4)
