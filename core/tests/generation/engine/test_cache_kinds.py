"""Latents and recurrent states in the paged cache, against the plain cache and against their formulas."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.nn import AttentionSpec, Batch, LayerSpec, RecurrentSpec, RecurrentState
from bestiary.testing.greedy import greedy_tokens
from bestiary.testing.settled import settled

DIM, VOCABULARY = 24, 97
Make = Callable[..., Engine]


class Latent(nn.Module):
    """Multi-head latent attention with absorbed projections (DeepSeek-V2), without its rotary part."""

    spec = AttentionSpec(heads=3, kv_heads=1, head_dim=10, scale=0.3, latent=8)

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.o = nn.Linear(DIM, 30), nn.Linear(DIM, 10), nn.Linear(24, DIM)

    def forward(self, x: torch.Tensor, state: Any) -> torch.Tensor:
        y = state.attend(self.q(x).view(-1, 3, 10), self.k(x).view(-1, 1, 10), None, self.spec)
        return self.o(y.reshape(len(x), 24))  # type: ignore[no-any-return]


class Leaky(nn.Module):
    """A recurrence s' = a s + b x and a convolution over the last two inputs."""

    spec = RecurrentSpec(((DIM,), (2, DIM)), (torch.float64, torch.float32))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.taps = (nn.Parameter(torch.empty(DIM)) for _ in range(3))

    def forward(self, x: torch.Tensor, state: RecurrentState) -> torch.Tensor:
        sums, past = (tensor.clone() for tensor in state.load(self.spec))
        made, row = torch.empty_like(x), 0
        for place, count in enumerate(state.counts):
            for _ in range(count):
                sums[place] = sums[place] * torch.sigmoid(self.a) + self.b * x[row]
                made[row] = sums[place].float() + self.taps * (past[place, 0] - past[place, 1])
                past[place] = torch.stack((past[place, 1], x[row]))
                row += 1
        state.store((sums, past))
        return made


class Model(nn.Module):
    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(VOCABULARY, DIM), nn.ModuleList(layers)
        self.out = nn.Linear(DIM, VOCABULARY)
        source = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 3)

    @property
    def specs(self) -> Sequence[LayerSpec]:
        return tuple(layer.spec for layer in self.layers)  # type: ignore[misc]

    @property
    def vocab_size(self) -> int:
        return VOCABULARY

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        x = self.embed(tokens)
        for layer, state in zip(self.layers, batch.layers, strict=True):
            x = torch.tanh(x + layer(x, state))
        return x  # type: ignore[no-any-return]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.out(hidden)  # type: ignore[no-any-return]

    def forward(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        x = self.hidden(tokens, batch)
        return self.head(x if batch.outputs is None else x[batch.outputs])


MODELS = {
    "latent": lambda: Model([Latent(), Latent()]),
    "recurrent": lambda: Model([Leaky(), Leaky()]),
    "hybrid": lambda: Model([Leaky(), Latent(), Leaky()]),
}


def asked(count: int) -> list[list[int]]:
    shared = [(11 * index) % VOCABULARY for index in range(48)]
    return [
        [*shared[: 16 * (index % 4)], *((index * place) % 97 for place in range(1, 3 + index))]
        for index in range(count)
    ]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("limits", [Limits(tokens=64, sequences=8), Limits(tokens=11, sequences=3)])
def test_answers_are_those_of_the_plain_cache(engine_over: Make, kind: str, limits: Limits) -> None:
    model = MODELS[kind]()
    engine = engine_over(model, limits=limits)
    prompts = asked(12)
    with torch.no_grad():
        expected = [greedy_tokens(model, prompt, 10) for prompt in prompts]
    for _ in range(2):  # the second time with prefixes
        streams = [engine.stream(prompt, Sampling(max_tokens=10)) for prompt in prompts]
        assert [list(collect(stream).tokens) for stream in streams] == expected
    found = settled(engine)
    assert found.blocks_used == 0 and found.totals.reused_tokens > 0


@pytest.mark.parametrize("kind", ["recurrent", "hybrid"])
def test_a_kept_state_saves_the_shared_prefix(engine_over: Make, kind: str) -> None:
    engine = engine_over(MODELS[kind]())
    prompt = [(3 * index) % 97 for index in range(70)]
    first = collect(engine.stream(prompt, Sampling(max_tokens=3)))
    again = collect(engine.stream(prompt, Sampling(max_tokens=3)))
    assert again.tokens == first.tokens and settled(engine).totals.reused_tokens == 64


@pytest.mark.parametrize("kind", ["recurrent", "hybrid"])
def test_several_answers_have_states_of_their_own(engine_over: Make, kind: str) -> None:
    model = MODELS[kind]()
    prompt = asked(6)[5]
    answers = collect(engine_over(model).stream(prompt, Sampling(n=4, temperature=1.0, seed=1, max_tokens=20))).choices
    for answer in answers:
        alone = engine_over(model)
        tokens = [*prompt, *answer.tokens]
        batch = alone.score(tokens)[len(prompt) - 1 : -1]
        fed = collect(alone.stream(prompt, Sampling(prompt_logprobs=0, max_tokens=1)))
        assert fed.prompt_logprobs is not None and torch.isfinite(batch).all()
        scored = collect(alone.stream(tokens, Sampling(prompt_logprobs=0, max_tokens=1))).prompt_logprobs
        assert scored is not None
        expected = batch.log_softmax(-1)
        for place, token in enumerate(answer.tokens):
            assert scored[len(prompt) - 1 + place].logprob == pytest.approx(float(expected[place, token]), abs=1e-4)
    assert len({answer.tokens for answer in answers}) > 1


def test_latent_attention_is_its_formula() -> None:
    """Against keys and values that are written out."""
    from bestiary.nn.attend import attend

    spec = Latent.spec
    q, k = torch.randn(3, 5, 10), torch.randn(1, 9, 10)
    found = attend(q, k, None, spec)
    scores = (q @ k.transpose(1, 2)) * spec.scale
    seen = torch.arange(9)[None] <= torch.arange(4, 9)[:, None]
    expected = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ k[..., :8]
    assert torch.allclose(found, expected, atol=1e-6)
