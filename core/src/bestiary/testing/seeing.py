"""The facts that every architecture with eyes must show, as a pytest class to inherit from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import bestiary
from bestiary.errors import MediaError
from bestiary.generation.engine.events import Begun
from bestiary.generation.engine.scheduler import Limits
from bestiary.testing.conformance import assert_close
from bestiary.testing.reference import Reference, make_reference

TOLERANCE = 1e-4
"""Of the largest logit."""


@dataclass(frozen=True)
class SeeingCase:
    """A tiny checkpoint with eyes, and how transformers prepares pictures for it."""

    name: str
    config: Mapping[str, Any]
    save: Callable[[Path], Any]
    """Writes tokenizer and processor files to the folder, and returns the processor of transformers."""
    placeholder: str
    """What stands for a picture in a text."""
    sizes: Sequence[tuple[int, int]] = ((40, 30), (30, 56), (64, 64))
    """Width and height of the pictures that are asked about."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of transformers' processor."""


class Opened:
    """A case with its reference, and the same weights loaded by Bestiary."""

    def __init__(self, case: SeeingCase, folder: Path) -> None:
        self.case = case
        self.reference: Reference = make_reference(case.config, folder)
        self.processor = case.save(folder)
        self.pipe = bestiary.load(str(folder), dtype="float32", device="cpu", cache_tokens=4096, progress=False)

    def pictures(self, count: int, seed: int = 0) -> list[Image.Image]:
        """Pictures of the sizes of the case, no two alike."""
        random = np.random.default_rng(seed)
        sizes = [self.case.sizes[place % len(self.case.sizes)] for place in range(count)]
        return [Image.fromarray(random.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in sizes]

    def text(self, count: int) -> str:
        """A prompt with so many pictures."""
        return "It begins. " + "".join(f"{self.case.placeholder} number {place}, " for place in range(count)) + "why?"

    def inputs(self, text: str, pictures: Sequence[Image.Image]) -> Any:
        """What transformers makes of a prompt."""
        media = {"images": [list(pictures)]} if pictures else {}
        return self.processor(text=[text], return_tensors="pt", **media, **self.case.options)

    def tokens(self, text: str, pictures: Sequence[Image.Image]) -> list[int]:
        """What the engine is given for a prompt."""
        pipe = self.pipe
        tokens: list[int] = pipe._encode(text, pipe._media_of({"images": list(pictures)}))
        return tokens

    def answer(self, text: str, pictures: Sequence[Image.Image], count: int = 8) -> list[int]:
        """Greedy tokens."""
        return _tokens(self.pipe.generate(text, images=pictures, **_greedy(count)))


class SeeingTests:
    """Inherit, set `cases`, and pytest compares each with transformers and with itself in other company."""

    cases: ClassVar[Sequence[SeeingCase]]
    tolerance: ClassVar[float] = TOLERANCE

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "opened" in metafunc.fixturenames:
            cases = [pytest.param(case, id=case.name) for case in self.cases]
            metafunc.parametrize("opened", cases, scope="class", indirect=True)

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
        made = Opened(request.param, tmp_path_factory.mktemp("seeing"))
        with made.pipe:
            yield made

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_logits_equal_the_reference(self, opened: Opened, count: int) -> None:
        text, pictures = opened.text(count), opened.pictures(count)
        inputs = opened.inputs(text, pictures)
        assert opened.tokens(text, pictures) == inputs["input_ids"][0].tolist()
        with torch.no_grad():
            theirs = opened.reference.model(**inputs).logits[0].float()
        assert_close(opened.pipe.score(text, images=pictures), theirs, self.tolerance)

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_greedy_tokens_equal_the_reference(self, opened: Opened, count: int) -> None:
        text, pictures = opened.text(count), opened.pictures(count)
        inputs = opened.inputs(text, pictures)
        with torch.no_grad():
            made = opened.reference.model.generate(
                **inputs, do_sample=False, min_new_tokens=8, max_new_tokens=8, eos_token_id=None, pad_token_id=0
            )
        assert opened.answer(text, pictures) == made[0, inputs["input_ids"].shape[1] :].tolist()

    def test_a_prompt_in_chunks_is_the_same(self, opened: Opened) -> None:
        text, pictures = opened.text(2), opened.pictures(2)
        whole = opened.answer(text, pictures)
        for size in (7, 33):
            with _limited(opened.pipe, Limits(tokens=size)):
                assert opened.answer(text, pictures) == whole

    def test_in_company_is_as_alone(self, opened: Opened) -> None:
        asked = [(opened.text(count), opened.pictures(count, seed)) for seed, count in enumerate((1, 0, 2, 0, 1))]
        alone = [opened.answer(text, pictures) for text, pictures in asked]
        with _limited(opened.pipe, Limits(tokens=96)):
            streams = [opened.pipe.stream(text, images=pictures, **_greedy(8)) for text, pictures in asked]
            made: list[list[int]] = [[] for _ in streams]

            def read(place: int) -> None:
                made[place] = [token for chunk in streams[place] for token in chunk.tokens]

            threads = [threading.Thread(target=read, args=(place,)) for place in range(len(streams))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert made == alone

    def test_a_second_question_does_not_look_again(self, opened: Opened) -> None:
        (picture,), (other,) = opened.pictures(1, seed=7), opened.pictures(1, seed=8)
        engine, text = opened.pipe.engine, opened.text(1)
        longer = text + " And then?"
        with _forgotten(engine):
            alone = opened.answer(longer, [picture])
        with _forgotten(engine):
            opened.answer(text, [picture])
        looked, reused = engine._runner.media.encoded, list[int]()
        leave = opened.pipe.subscribe(
            lambda event: reused.append(event.reused_tokens) if isinstance(event, Begun) else None
        )
        assert opened.answer(longer, [picture]) == alone
        leave()
        # All full blocks of the first prompt, with the rows of the picture.
        assert reused == [len(opened.tokens(text, [picture])) // 16 * 16]
        assert engine._runner.media.encoded == looked
        # Another picture has the same tokens, and shares nothing from its place on.
        elsewhere = opened.answer(longer, [other])
        with _forgotten(engine):
            assert opened.answer(longer, [other]) == elsewhere

    def test_placeholders_and_pictures_go_together(self, opened: Opened) -> None:
        with pytest.raises(MediaError):
            opened.pipe.generate(opened.text(2), images=opened.pictures(1), max_tokens=1)
        with pytest.raises(MediaError):
            opened.pipe.generate(opened.text(0), images=opened.pictures(1), max_tokens=1)


class _limited:
    """Steps of another size, while nothing runs."""

    def __init__(self, pipe: Any, limits: Limits) -> None:
        self._scheduler, self._limits = pipe.engine._scheduler, limits

    def __enter__(self) -> None:
        self._before, self._scheduler.limits = self._scheduler.limits, self._limits
        self._scheduler.forget()

    def __exit__(self, *error: object) -> None:
        self._scheduler.limits = self._before


class _forgotten:
    """Nothing of what was computed before counts."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        with self._engine.changing():
            pass

    def __exit__(self, *error: object) -> None:
        return None


def _greedy(count: int) -> dict[str, Any]:
    return {"temperature": 0.0, "max_tokens": count, "ignore_eos": True}


def _tokens(completion: Any) -> list[int]:
    return [int(token) for token in completion.tokens]
