"""What a measurement asks of an engine, by the engine's own counts."""

from collections.abc import Iterator
from typing import Any

import pytest

import bestiary
from bestiary.errors import OptionError
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.statistics import Totals
from bestiary.generation.speed import check_room, measure


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with bestiary.load("demo", progress=False, cache_tokens=4096) as pipe:
        yield pipe.engine


def counted(engine: Engine, **options: Any) -> tuple[dict[str, Any], Totals]:
    """The result, and what the engine did for it."""
    before = engine.statistics().totals
    row = measure(engine, **options)
    after = engine.statistics().totals
    names = ("requests", "prompt_tokens", "reused_tokens", "generated_tokens", "preemptions")
    return row, Totals(**{name: getattr(after, name) - getattr(before, name) for name in names})


@pytest.mark.parametrize("repeat", [1, 3])
def test_each_prompt_is_computed_once_and_then_answered(engine: Engine, repeat: int) -> None:
    row, did = counted(engine, prompt=20, generate=7, requests=3, repeat=repeat)
    assert (row["prompt"], row["generate"], row["requests"], row["depth"]) == (20, 7, 3, 0)
    # Once for the prompt's speed and once for the answer's; the second time a block of 16 is in the cache.
    assert did.prompt_tokens == repeat * 2 * 3 * 20 and did.reused_tokens == repeat * 3 * 16
    assert did.generated_tokens == repeat * 3 * (1 + 7) and did.requests == repeat * 6
    assert row["reused_tokens"] == 0 and did.preemptions == 0
    assert row["prompt_tokens_per_second"] == pytest.approx(3 * 20 / row["seconds_to_first_token"])
    assert row["decode_tokens_per_second"] > 0


def test_the_depth_is_in_the_cache_before_the_prompt_is_timed(engine: Engine) -> None:
    row, did = counted(engine, prompt=10, generate=5, requests=2, depth=100)
    assert did.prompt_tokens == 2 * (100 + 110 + 110)
    assert row["reused_tokens"] == 2 * 96  # whole blocks; what is left of the depth counts as computed
    assert row["prompt_tokens_per_second"] == pytest.approx(2 * (110 - 96) / row["seconds_to_first_token"])
    assert did.reused_tokens == 2 * (96 + 96) and did.generated_tokens == 2 * (1 + 1 + 5)


def test_more_requests_than_run_at_once_are_all_counted(engine: Engine) -> None:
    row, did = counted(engine, prompt=3, generate=2, requests=70)
    assert did.requests == 140 and row["decode_tokens_per_second"] > 0


@pytest.mark.parametrize(
    "wrong", [{"prompt": 0}, {"generate": 1}, {"requests": 0}, {"repeat": 0}, {"depth": -1}], ids=str
)
def test_a_measurement_of_nothing_is_refused(engine: Engine, wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="needs a prompt"):
        measure(engine, **{"prompt": 4, "generate": 4, "requests": 1, **wrong})


def test_what_does_not_fit_the_context_is_refused_with_its_parts(engine: Engine) -> None:
    longest = engine.context_length
    check_room(engine, longest - 30, 10, 20)
    with pytest.raises(OptionError, match=f"20 [+] {longest - 29} [+] 10 tokens .* context of {longest}"):
        measure(engine, longest - 29, 10, 1, depth=20)
