"""Answers under a grammar, on the packaged model."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import bestiary
from bestiary.errors import GenerationError, OptionError, RequestError

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
    "required": ["city", "country"],
    "additionalProperties": False,
}


@dataclass
class City:
    city: str
    country: str


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        yield pipe


def test_a_dataclass_comes_back(pipe: Any) -> None:
    assert pipe.generate_structured(City, "Give me Paris as JSON", temperature=0.0) == City("Paris", "France")


@pytest.mark.parametrize("seed", range(4))
def test_a_schema_holds_whatever_the_model_wants(pipe: Any, seed: int) -> None:
    answer = pipe.chat("Hello!", grammar=CITY, temperature=3.0, seed=seed, max_tokens=400)
    if answer.finish_reason == "stop":
        found = json.loads(answer.text)
        assert set(found) == {"city", "country"} and all(isinstance(value, str) for value in found.values())
    else:
        assert len(answer.tokens) == 400


def test_a_pattern_and_a_list_of_texts(pipe: Any) -> None:
    pattern = re.compile(r"[0-9]{3}-[0-9]{4}")
    assert pattern.fullmatch(pipe.chat("Hello!", grammar=pattern, temperature=1.0).text)
    assert pipe.chat("What is the capital of France?", grammar=["Rome", "Paris", "Oslo"]).text in (
        "Rome",
        "Paris",
        "Oslo",
    )


def test_streamed_equals_whole_and_others_in_the_batch_are_free(pipe: Any) -> None:
    free = pipe.stream_chat("Hello!", temperature=0.0)
    options = {"grammar": CITY, "temperature": 2.0, "seed": 5, "max_tokens": 200}
    streams = [pipe.stream_chat("Give me Rome as JSON", **options) for _ in range(3)]
    texts = {"".join(chunk.text for chunk in stream) for stream in streams}
    assert texts == {pipe.chat("Give me Rome as JSON", **options).text}
    assert "".join(chunk.text for chunk in free) == pipe.chat("Hello!", temperature=0.0).text


def test_a_bad_grammar_is_that_requests_error(pipe: Any) -> None:
    with pytest.raises(RequestError):
        pipe.chat("Hello!", grammar={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "newt"}}})
    assert pipe.chat("Hello!", max_tokens=3).tokens


def test_a_cut_object_is_an_error_that_says_so(pipe: Any) -> None:
    with pytest.raises(GenerationError):
        pipe.generate_structured(City, "Give me Paris as JSON", max_tokens=3)


def test_endless_text_and_a_grammar_do_not_go_together(pipe: Any) -> None:
    with pytest.raises(OptionError, match="ignore_eos"):
        pipe.chat("Hello!", grammar=CITY, ignore_eos=True)
