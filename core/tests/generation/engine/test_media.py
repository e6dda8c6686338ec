"""Rows of pictures in place of tokens: encoded once, positioned apart, and guessed beyond."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bestiary.adapters.anymoe import AnyMoeModel, Means
from bestiary.errors import GenerationError
from bestiary.generation.completion import collect
from bestiary.generation.engine.encoding import EncodedMedia
from bestiary.generation.engine.engine import Engine
from bestiary.generation.sampling import Sampling
from bestiary.generation.speculation.drafter import NGramDrafter
from bestiary.generation.speculation.model import ModelDrafter
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Positions
from bestiary.media.prompt import MediaPrompt, Placed

Make = Callable[..., Engine]
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}


class Eyes(nn.Module):
    """A matrix for each row of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.proj = nn.Linear(4, 32, bias=False)
        with torch.no_grad():
            self.proj.weight.copy_(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))

    def encode(self, media: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
        self.seen.append(len(media))
        rows: list[torch.Tensor] = [self.proj(each["pixel_values"]) for each in media]
        return rows


def picture(seed: int, rows: int = 5) -> Prepared:
    return Prepared(
        "image", {"pixel_values": np.random.default_rng(seed).standard_normal((rows, 4)).astype("f4")}, rows
    )


def prompt(length: int, start: int, medium: Prepared, *, apart: bool = True) -> tuple[list[int], MediaPrompt]:
    """Tokens with a picture from `start` on, whose rows stand beside each other in the text's direction."""
    tokens = [(7 * place) % 90 for place in range(length)]
    places = np.arange(start, start + medium.rows)
    positions = np.broadcast_to(np.arange(length), (3, length)).copy()
    positions[0, places] = start
    positions[:, places[-1] + 1 :] -= 2
    stated = Positions(positions, -2) if apart else None
    return tokens, MediaPrompt((Placed(medium, places),), (), stated)


@pytest.fixture
def seeing(network: Callable[..., Any]) -> Callable[[], Any]:
    def make() -> Any:
        model = network(rope_parameters=SECTIONS)
        model.media = Eyes()
        return model

    return make


def test_answers_are_those_of_the_plain_cache(seeing: Callable[[], Any], engine_over: Make) -> None:
    engine = engine_over(seeing())
    for seed, (length, start) in enumerate([(9, 2), (30, 20), (40, 0)]):
        tokens, media = prompt(length, start, picture(seed))
        made = collect(engine.stream(tokens, Sampling(max_tokens=6), media=media)).tokens
        for place, token in enumerate(made):
            longer = [*tokens, *made[:place]]
            after = np.broadcast_to(np.arange(length, len(longer)) - 2, (3, place))
            assert media.positions is not None
            whole = Positions(np.concatenate((media.positions.prompt, after), 1), -2)
            logits = engine.score(longer, MediaPrompt(media.placed, (), whole))
            assert int(logits[-1].argmax()) == token


@pytest.mark.parametrize("kind", ["ngram", "other", "itself"])
def test_drafts_change_nothing(
    seeing: Callable[[], Any], network: Callable[..., Any], engine_over: Make, kind: str
) -> None:
    """A model that drafts has no eyes, and no positions but those of the order."""
    plain, fast = engine_over(seeing()), engine_over(seeing())
    if kind == "ngram":
        fast.drafter = NGramDrafter(3)
    else:
        draft = network(7) if kind == "other" else network(rope_parameters=SECTIONS)
        cache = fast.cache.beside(draft.specs, torch.float32, torch.device("cpu"))
        fast.drafter = ModelDrafter(draft, 3, cache, 97)
    asked = [prompt(length, 3, picture(length)) for length in (12, 25, 33)]
    streams = [fast.stream(tokens, Sampling(max_tokens=12), media=media) for tokens, media in asked]
    expected = [collect(plain.stream(tokens, Sampling(max_tokens=12), media=media)).tokens for tokens, media in asked]
    assert [collect(stream).tokens for stream in streams] == expected


def test_several_answers_share_a_picture(seeing: Callable[[], Any], engine_over: Make) -> None:
    model = seeing()
    engine = engine_over(model)
    tokens, media = prompt(30, 4, picture(0))
    answers = collect(engine.stream(tokens, Sampling(n=3, temperature=1.0, seed=3, max_tokens=8), media=media)).choices
    assert model.media.seen == [1] and len({answer.tokens for answer in answers}) > 1
    alone = engine_over(seeing())
    again = collect(alone.stream(tokens, Sampling(n=3, temperature=1.0, seed=3, max_tokens=8), media=media)).choices
    assert [answer.tokens for answer in again] == [answer.tokens for answer in answers]


def test_what_was_used_last_is_kept() -> None:
    eyes = Eyes()
    each = 5 * 32 * 4
    held = EncodedMedia(eyes, torch.device("cpu"), kept=2 * each)
    for seed, due in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):  # the third makes the second go
        _, media = prompt(12, 3, picture(seed))
        found = held.features([(media, 0, 12, 100)])
        assert found is not None and found.rows.tolist() == [103, 104, 105, 106, 107] and held.encoded == due
    part = held.features([(media, 5, 7, 0)])
    assert part is not None and part.rows.tolist() == [0, 1] and torch.equal(part.values, found.values[2:4])
    assert held.features([(media, 0, 3, 0)]) is None


def test_an_encoder_that_makes_other_rows_fails_its_request(seeing: Callable[[], Any], engine_over: Make) -> None:
    engine = engine_over(seeing())
    tokens, media = prompt(12, 3, Prepared("image", {"pixel_values": np.zeros((4, 4), "f4")}, 5))
    with pytest.raises(GenerationError, match="made 4 rows of a medium for which 5 tokens stand"):
        collect(engine.stream(tokens, Sampling(max_tokens=2), media=media))
    tokens, media = prompt(12, 3, picture(0))
    assert len(collect(engine.stream(tokens, Sampling(max_tokens=2), media=media)).tokens) == 2


def test_a_mixture_sees_with_the_eyes_of_its_model(seeing: Callable[[], Any], engine_over: Make) -> None:
    model = seeing()
    tokens, media = prompt(12, 3, picture(0))
    expected = collect(engine_over(model).stream(tokens, Sampling(max_tokens=4), media=media)).tokens
    mixture = AnyMoeModel(model, {}, Means())
    assert collect(engine_over(mixture).stream(tokens, Sampling(max_tokens=4), media=media)).tokens == expected
