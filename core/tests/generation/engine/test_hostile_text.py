"""Text that tokens cut anywhere: streams, whole answers and stop texts, with the tokenizers of real models.

The tokens are drawn from a model of random weights over the whole vocabulary, so that characters are cut, left
unfinished and malformed as no trained model would do it.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bestiary.generation.completion import Chunk, collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.sampling import Sampling
from bestiary.generation.tokenizer import Tokenizer

Make = Callable[..., Engine]
COUNT = 40


@pytest.fixture(scope="module")
def loaded(tokenizer_folders: dict[str, Path], folder_repository: Callable[[Path], Any]) -> dict[str, Tokenizer]:
    return {name: Tokenizer.from_repository(folder_repository(folder)) for name, folder in tokenizer_folders.items()}


@pytest.fixture(scope="module")
def engines(loaded: dict[str, Tokenizer], network: Callable[..., Any]) -> Iterator[dict[str, Engine]]:
    import torch

    made = {
        name: Engine(
            network(vocab_size=tokenizer.vocab_size),
            tokenizer,
            device=torch.device("cpu"),
            dtype=torch.float32,
            end_tokens=frozenset(),
            context_length=160,
            cache_tokens=1024,
        )
        for name, tokenizer in loaded.items()
    }
    yield made
    for engine in made.values():
        engine.close()


def drawn(engine: Engine, seed: int, **options: Any) -> list[Chunk]:
    sampling = Sampling(**{"max_tokens": COUNT, "temperature": 8.0, "top_k": 4096, "seed": seed, **options})
    return list(engine.stream([1, 2, 3], sampling))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("seed", range(2))
def test_a_stream_is_the_whole_answer_and_the_text_of_its_tokens(engines: dict[str, Engine], seed: int) -> None:
    assert len(engines) >= 5
    broken = 0
    for name, engine in engines.items():
        chunks = drawn(engine, seed)
        tokens = [token for chunk in chunks for token in chunk.tokens]
        whole = collect(iter(drawn(engine, seed)))
        assert text_of(chunks) == whole.text == engine.tokenizer.decode(tokens), name
        assert tokens == list(whole.tokens) and len(tokens) == COUNT
        for place in range(1, len(chunks)):
            sent = text_of(chunks[:place])
            assert whole.text.startswith(sent), "what was sent is never taken back"
        broken += whole.text.count("\ufffd")
    assert broken, "no character was ever broken: this tested nothing"


def test_an_end_inside_a_character_adds_one_replacement_at_most(engines: dict[str, Engine]) -> None:
    """Of the same answer cut after each of its tokens."""
    ended = 0
    for name, engine in engines.items():
        if not engine.tokenizer.pieces.local or engine.tokenizer.clean_up:
            continue  # its text is not the sum of its tokens' texts, and comes at the end
        for seed in range(6):
            full = drawn(engine, seed)
            inside = [place for place, chunk in enumerate(full) if not chunk.text]
            for count in (*(place + 1 for place in inside[:2]), 7):
                cut = text_of(drawn(engine, seed, max_tokens=count))
                sent = text_of(full[:count])
                assert cut in (sent, sent + "\ufffd"), name
                ended += cut != sent
    assert ended, "no answer ended inside a character: this tested nothing"


def test_a_stop_text_is_found_wherever_the_tokens_cut_it(engines: dict[str, Engine]) -> None:
    dice, found = random.Random(3), 0
    for name, engine in engines.items():
        for seed in range(2):
            full = text_of(drawn(engine, seed))
            for _ in range(5):
                size = dice.randint(1, 12)
                start = dice.randrange(max(1, len(full) - size))
                stop = full[start : start + size]
                if not stop or not stop.isprintable() or "\ufffd" in stop:
                    continue
                chunks = drawn(engine, seed, stop=[stop])
                expected = full[: full.index(stop)]
                assert text_of(chunks) == expected, (name, stop)
                assert chunks[-1].finish_reason == "stop"
                assert all(stop not in text_of(chunks[:place]) for place in range(len(chunks)))
                found += 1
    assert found > 25


def test_a_stop_text_that_never_comes_changes_nothing(engines: dict[str, Engine]) -> None:
    """Also where the answer ends in the middle of what may be one."""
    for engine in engines.values():
        full = text_of(drawn(engine, 2))
        ends = [full[-size:] + "\0" for size in (1, 2, 5) if full]
        assert text_of(drawn(engine, 2, stop=[*ends, "\0\0\0", full + "\0"])) == full


def test_several_answers_are_each_whole(engines: dict[str, Engine]) -> None:
    for name, engine in engines.items():
        chunks = drawn(engine, 4, n=3)
        assert {chunk.index for chunk in chunks} == {0, 1, 2}
        for index in range(3):
            own = [chunk for chunk in chunks if chunk.index == index]
            tokens = [token for chunk in own for token in chunk.tokens]
            assert text_of(own) == engine.tokenizer.decode(tokens), name


@pytest.mark.parametrize(
    "text",
    ["a\nb\rc\r\nd", "a\u2028b\u2029c\x85d", "a\0b\x1b[2Jc", "data: x\n\nevent: y", "e\u0301👩‍👩‍👧🇫🇷"],
    ids=ascii,
)
def test_marks_of_lines_and_terminals_are_text_like_any(
    loaded: dict[str, Tokenizer], network: Callable[..., Any], engine_over: Make, text: str
) -> None:
    """`echo` brings a text through a stream as it is."""
    for tokenizer in loaded.values():
        engine = engine_over(network(vocab_size=tokenizer.vocab_size), tokenizer=tokenizer)
        tokens = tokenizer.encode(text)
        chunks = list(engine.stream(tokens, Sampling(max_tokens=2, echo=True), echo=text))
        assert text_of(chunks).startswith(text)
