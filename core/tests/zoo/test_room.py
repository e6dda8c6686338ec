"""Amounts, entries, and whom the plan closes: against the definition, tried out over every choice."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.amount import as_bytes, budget_of, check_memory, written
from bestiary.errors import OptionError
from bestiary.zoo import Entry, Zoo
from bestiary.zoo.room import Resident, make_room

RESIDENTS = st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6).map(
    lambda several: [Resident(str(used), nbytes, float(used), idle) for used, (nbytes, idle) in enumerate(several)]
)


@given(st.integers(1, 30), st.integers(1, 30), RESIDENTS)
def test_room_is_made_whenever_it_can_be_and_nobody_goes_needlessly(
    needed: int, budget: int, residents: list[Resident]
) -> None:
    found = make_room(needed, budget, residents)
    room = budget - sum(resident.nbytes for resident in residents)
    idle = {resident.name: resident.nbytes for resident in residents if resident.idle}
    enough = [
        set(choice)
        for count in range(len(idle) + 1)
        for choice in combinations(idle, count)
        if room + sum(idle[name] for name in choice) >= needed
    ]
    if found is None:
        assert not enough
        return
    assert set(found) in enough
    assert not any(smaller < set(found) for smaller in enough)


def test_the_least_recently_used_goes_first() -> None:
    residents = [Resident("new", 4, 3.0, True), Resident("old", 4, 1.0, True), Resident("middle", 4, 2.0, True)]
    assert make_room(4, 12, residents) == ("old",)
    assert make_room(8, 12, residents) == ("old", "middle")
    assert make_room(4, 16, residents) == ()
    assert make_room(4, 12, [Resident("old", 4, 1.0, False), *residents[::2]]) == ("middle",)


def test_a_small_one_stays_where_a_large_one_must_go_anyway() -> None:
    assert make_room(9, 10, [Resident("small", 1, 1.0, True), Resident("large", 9, 2.0, True)]) == ("large",)


@pytest.mark.parametrize(
    "text, count",
    [
        ("24 GiB", 24 << 30),
        ("24GB", 24 * 10**9),
        ("1.5 MiB", 3 << 19),
        ("512 kB", 512_000),
        ("2 tib", 2 << 40),
        ("77 B", 77),
        (4096, 4096),
    ],
)
def test_amounts(text: Any, count: int) -> None:
    assert as_bytes("memory", text) == check_memory(text) == count


@pytest.mark.parametrize(
    "value", ["", "24", "GiB", "-1 GB", "1e9 GB", "24 XB", "0 B", "9" * 30 + " B", 0, -1, True, 1 << 70, [], {}]
)
def test_what_is_no_amount(value: Any) -> None:
    with pytest.raises(OptionError, match="memory"):
        Zoo(memory=value)


@pytest.mark.parametrize("value", [0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_what_is_no_share(value: float) -> None:
    with pytest.raises(OptionError, match="share"):
        Zoo(memory=value)


def test_budgets() -> None:
    assert budget_of(100, None, "cpu") == 100
    assert budget_of(None, 70, "cpu") == 70
    assert budget_of(0.5, 70, "cpu") == 35
    with pytest.raises(OptionError, match="mps"):
        budget_of(None, None, "mps")
    assert (written(999), written(1_500_000), written(24 * 10**9)) == ("999 B", "1.5 MB", "24.0 GB")


@pytest.mark.parametrize(
    "options",
    [
        {"id": ""},
        {"id": 3},
        {"pinned": "yes"},
        {"idle": 0},
        {"idle": -1.0},
        {"idle": float("nan")},
        {"idle": True},
        {"memory": "much"},
        {"aliases": ["", "a"]},
        {"aliases": ["a\x00"]},
        {"aliases": [3]},
    ],
    ids=str,
)
def test_entries_have_bounds(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Entry(**{"id": "demo", **options})


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 301, 3, None])
def test_names_have_bounds(name: Any) -> None:
    with pytest.raises(OptionError, match="name"):
        Zoo({name: "demo"})


@pytest.mark.parametrize("wait", [-1, float("nan"), "1", True])
def test_waits_have_bounds(wait: Any) -> None:
    with pytest.raises(OptionError, match="wait"):
        Zoo({"demo": "demo"}, wait=wait)
    with Zoo({"demo": "demo"}) as zoo, pytest.raises(OptionError, match="wait"):
        zoo.load(wait=wait)


def test_a_misspelt_option_is_refused_when_the_model_is_added() -> None:
    with pytest.raises(OptionError, match="pined") as found:
        Zoo({"demo": Entry("demo", pined=True)})
    assert "pinned" in str(found.value)
    with pytest.raises(OptionError) as found, Zoo() as zoo:
        zoo.add("demo", "demo", dtyp="float32")
    assert "dtype" in str(found.value)
    with pytest.raises(OptionError, match="Entry"), Zoo() as zoo:
        zoo.add("demo", Entry("demo"), pinned=True)
