"""Prompts that are too long, too large or empty: typed errors, before work is done."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import bestiary
from bestiary.errors import OptionError, RequestError
from bestiary.generation.completion import collect

CONTEXT = 1024
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    with bestiary.load("demo", progress=False) as pipe:
        assert pipe.config.max_position_embeddings == CONTEXT
        yield pipe


@pytest.fixture(autouse=True)
def undisturbed(pipe: Any) -> Iterator[None]:
    """Whatever was refused: the model answers as before, and nothing is left of it."""
    yield
    assert pipe.chat("What is the capital of France?", temperature=0.0).text == "The capital of France is Paris."
    assert pipe.statistics().waiting == 0


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1, 10 * CONTEXT, 100 * CONTEXT, 1000 * CONTEXT])
def test_more_tokens_than_the_context_are_refused_with_both_numbers(pipe: Any, length: int) -> None:
    steps = pipe.statistics().totals.steps
    for ask in (pipe.generate, pipe.stream, *([pipe.score] if length > CONTEXT else [])):
        with pytest.raises(RequestError, match=rf"{length} tokens.*holds {CONTEXT}"):
            ask([5] * length)
    assert pipe.statistics().totals.steps == steps, "nothing was computed"


@pytest.mark.parametrize("most", [None, 4, 5, 1000, 1 << 31])
def test_an_answer_has_as_many_tokens_as_fit_behind_its_prompt(pipe: Any, most: int | None) -> None:
    answer = pipe.generate([5] * (CONTEXT - 4), max_tokens=most, ignore_eos=True)
    assert len(answer.tokens) == 4 and answer.finish_reason == "length"
    assert answer.usage.total_tokens == CONTEXT


@pytest.mark.parametrize("tokens", ["", [], (), range(0)], ids=repr)
def test_an_empty_prompt_is_refused(pipe: Any, tokens: Any) -> None:
    for ask in (pipe.generate, pipe.stream, *([pipe.score] if tokens != "" else [])):
        with pytest.raises(RequestError, match="no tokens"):
            ask(tokens)


@pytest.mark.parametrize(
    "messages", [[], (), None, 3, [None], ["Hello!"], [[]], {"role": "user", "content": "x"}, b"x"]
)
def test_messages_that_are_none_are_refused(pipe: Any, messages: Any) -> None:
    with pytest.raises(RequestError):
        pipe.chat(messages)


@pytest.mark.parametrize("what", ["a", " ", "\n", "0", "é", "😀", "\u0301", "<|im_end|>"])
def test_three_megabytes_of_one_thing_are_too_long_a_prompt(pipe: Any, what: str) -> None:
    text = what * (3 * MEGABYTE // len(what.encode()))
    for ask in (pipe.generate, pipe.chat):
        with pytest.raises(RequestError, match=f"holds {CONTEXT}|{CONTEXT} tokens"):
            ask(text)


@pytest.mark.parametrize("what", ["a", "é", "😀"])
def test_bytes_are_counted_before_anything_is_tokenized(pipe: Any, what: str) -> None:
    """The message tells: it is about bytes, and not about tokens."""
    text = what * (17 * MEGABYTE // len(what.encode()))
    asks = (
        pipe.generate,
        pipe.stream,
        pipe.tokenize,
        pipe.chat,
        lambda text: pipe.chat([{"role": "system", "content": text}]),
    )
    for ask in asks:
        with pytest.raises(RequestError, match=rf"\d+ bytes; at most {16 * MEGABYTE}"):
            ask(text)


def test_every_other_text_of_a_request_has_a_bound_too(pipe: Any) -> None:
    large = "a" * MEGABYTE
    tool = {"type": "function", "function": {"name": "look", "description": large, "parameters": {}}}
    for error, options in (
        (OptionError, {"stop": large}),
        (OptionError, {"stop": ["a"] * 10**5}),
        (OptionError, {"stop_tokens": [1] * 10**6}),
        (OptionError, {"logit_bias": dict.fromkeys(range(10**5), 1.0)}),
        (OptionError, {"dry_multiplier": 1.0, "dry_sequence_breakers": [large]}),
        (OptionError, {"cache_salt": large}),
        (RequestError, {"grammar": [large + "a"]}),
        (RequestError, {"tools": [tool]}),
    ):
        with pytest.raises(error):
            pipe.chat("Hello!", **options)


def test_a_lone_surrogate_is_refused(pipe: Any) -> None:
    for ask in (pipe.generate, pipe.chat):
        with pytest.raises(RequestError, match="Unicode"):
            ask("a\ud800b")


def test_a_long_prompt_does_not_stop_the_answers_that_run(pipe: Any) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 0.0, "ignore_eos": True}
    expected = pipe.generate("Once", **options).tokens
    running = pipe.stream("Once", **options)
    first = next(running)
    with pytest.raises(RequestError):
        pipe.generate("a" * 3 * MEGABYTE)
    assert first.tokens + collect(running).tokens == expected


def test_a_refused_prompt_takes_little_memory() -> None:
    """In a child whose address space may grow by two gigabytes: an allocation that fails in the tokenizer is no error
    that could be caught, but the end of the process."""
    code = (
        "import resource, bestiary\n"
        "from bestiary.errors import RequestError\n"
        "pipe = bestiary.load('demo', progress=False)\n"
        "pipe.chat('Hello!')\n"
        "with open('/proc/self/statm') as file:\n"
        "    pages = int(file.read().split()[0])\n"
        "limit = pages * resource.getpagesize() + (2 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for text in ('a' * (3 << 20), '0' * (3 << 20), 'a' * (64 << 20)):\n"
        "    for ask in (pipe.generate, pipe.chat):\n"
        "        try:\n"
        "            ask(text)\n"
        "        except RequestError as error:\n"
        "            print('refused')\n"
        "print(pipe.chat('What is the capital of France?', temperature=0.0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "refused\n" * 6 + "The capital of France is Paris.\n"), done.stderr
