"""Which tokens stand for which rows, and what prefixes of prompts with media have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bestiary.errors import MediaError
from bestiary.generation.engine.prefixes import PrefixTree
from bestiary.generation.engine.scheduler import Group, Limits, Scheduler
from bestiary.generation.engine.sequence import Sequence as Tokens
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames, Positions
from bestiary.media.prompt import MediaPrompt, Placed, place_media

IMAGE, VIDEO = 7, 8


@dataclass(frozen=True)
class Eyes:
    """A processor as far as tokens go."""

    whole: bool = False
    tokens: Mapping[str, int] = field(default_factory=lambda: {"image": IMAGE, "video": VIDEO})

    def prepare(self, media: Frames) -> Prepared:
        raise NotImplementedError

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        raise NotImplementedError

    def positions(self, length: int, placed: Sequence[Placed]) -> Positions | None:
        return None


def picture(seed: int, rows: int, kind: str = "image") -> Prepared:
    pixels = np.random.default_rng(seed).standard_normal((3, 4, 4)).astype(np.float32)
    return Prepared(kind, {"pixel_values": pixels}, rows)


def prompt(tokens: Sequence[int], media: Sequence[Prepared], whole: bool = False) -> MediaPrompt:
    return place_media(tokens, media, Eyes(whole))


def test_each_kind_has_its_own_tokens() -> None:
    tokens = [1, IMAGE, IMAGE, 2, VIDEO, IMAGE, 3, VIDEO, VIDEO]
    found = prompt(tokens, [picture(0, 2), picture(1, 1, "video"), picture(2, 1), picture(3, 2, "video")])
    assert [each.places.tolist() for each in found.placed] == [[1, 2], [4], [5], [7, 8]]
    within = [(found.placed.index(each), first, last) for each, first, last in found.within(2, 8)]
    assert within == [(0, 1, 2), (1, 0, 1), (2, 0, 1), (3, 0, 1)]


@pytest.mark.parametrize("rows", [(1,), (3,), (2, 1), ()])
def test_tokens_and_rows_must_be_as_many(rows: tuple[int, ...]) -> None:
    with pytest.raises(MediaError, match="stand for rows"):
        prompt([1, IMAGE, IMAGE, 2], [picture(place, count) for place, count in enumerate(rows)])


def test_runs_are_what_lies_together() -> None:
    tokens = [1, IMAGE, IMAGE, 2, IMAGE, 3, IMAGE, IMAGE, IMAGE]
    assert prompt(tokens, [picture(0, 3), picture(1, 3)]).runs == ()
    found = prompt(tokens, [picture(0, 3), picture(1, 3)], whole=True)
    assert found.runs == ((1, 3), (4, 5), (6, 9))
    assert found.run_across(2) == (1, 3) and found.run_across(1) is None and found.run_across(3) is None
    assert found.runs_before(2, 5) == ((1, 3), (4, 5))


def test_a_hash_knows_all_that_the_encoder_sees() -> None:
    one = picture(0, 2)
    assert one.digest == picture(0, 2).digest and one.digest != picture(0, 3).digest
    assert one.digest != picture(0, 2, "video").digest
    changed = one.tensors["pixel_values"].copy()
    changed[0, 0, 0] = np.nextafter(changed[0, 0, 0], 9)
    assert one.digest != Prepared("image", {"pixel_values": changed}, 2).digest
    assert one.digest != Prepared("image", {"pixel_values": one.tensors["pixel_values"].reshape(3, 2, 8)}, 2).digest
    assert one.digest != Prepared("image", {"pixels": one.tensors["pixel_values"]}, 2).digest


def sequence(tokens: list[int], media: Sequence[Prepared] = (), whole: bool = False) -> Tokens:
    found = prompt(tokens, media, whole) if media else None
    return Tokens(list(tokens), len(tokens), media=found)


def test_the_same_tokens_of_another_picture_share_nothing_from_there_on() -> None:
    tokens = [1, 2, 3, 4, 5, IMAGE, IMAGE, 6, 9, 10, 11, 1]
    one, same, other = (sequence(tokens, [picture(seed, 2)]) for seed in (0, 0, 1))
    tree = PrefixTree(4, 1)
    parent = None
    for start in range(0, 12, 4):
        parent = tree.add(parent, one.identities(start, start + 4), b"", [start // 4])
    assert len(tree.find(same.identities(0, 12), b"")) == 3
    assert len(tree.find(other.identities(0, 12), b"")) == 1
    assert len(tree.find(tokens, b"")) == 1  # nor does a prompt of bare tokens


def test_identities_end_with_the_prompt() -> None:
    """What the model itself says is tokens, whatever they are."""
    held = sequence([1, IMAGE], [picture(0, 1)])
    held.tokens += [IMAGE, 5]
    assert held.identities(1, 4)[1:] == [IMAGE, 5] and held.identities(0, 2)[0] == 1
    assert held.identities(1, 2)[0] > 1 << 64


def run(scheduler: Scheduler) -> list[int]:
    """The sizes of the steps until everything of the prompts is computed."""
    sizes = []
    while any(member.pending > 0 for member in scheduler.running) or scheduler.waiting:
        plan = scheduler.plan()
        assert plan.work
        sizes.append(sum(work.count for work in plan.work))
        scheduler.commit(plan)
    return sizes


@pytest.mark.parametrize(
    ("budget", "due"),
    [(64, [16]), (12, [12, 4]), (10, [2, 10, 4]), (9, [2, 10, 4]), (5, [2, 10, 4]), (2, [2, 10, 2, 2])],
)
def test_a_run_is_computed_in_one_piece(budget: int, due: list[int]) -> None:
    """Text of 2 tokens, a run of 10, text of 4; a run that no step has room for is a step of its own."""
    tokens = [1, 1, *[IMAGE] * 10, 2, 2, 2, 2]
    scheduler = Scheduler([Group(64)], 4, Limits(tokens=budget))
    scheduler.add(sequence(tokens, [picture(0, 10)], whole=True))
    assert run(scheduler) == due


@pytest.mark.parametrize("window", [None, 12, 6])
def test_the_beginning_of_a_run_is_reused(window: int | None) -> None:
    tokens = [1, 1, *[IMAGE] * 8, 2, 2]
    groups = [Group(64), *([Group(64, window)] if window else [])]
    scheduler = Scheduler(groups, 4, Limits(tokens=64))
    first = sequence(tokens, [picture(0, 8)], whole=True)
    scheduler.add(first)
    run(scheduler)
    scheduler.remove(first)
    second = sequence([*tokens[:10], 3, 3], [picture(0, 8)], whole=True)
    scheduler.add(second)
    run(scheduler)
    assert second.reused == 8


def test_positions_go_on_after_the_prompt() -> None:
    stated = Positions(np.arange(9).reshape(3, 3), shift=-1)
    held = sequence([1, IMAGE, 2], [picture(0, 1)])
    held.media = MediaPrompt(held.media.placed, (), stated) if held.media else None
    held.tokens += [4, 5]
    assert held.positions(1, 5).tolist() == [[1, 2, 2, 3], [4, 5, 2, 3], [7, 8, 2, 3]]
    assert held.positions(3, 5).tolist() == [2, 3] and held.shift == -1
    plain: Any = sequence([1, 2, 3])
    assert plain.positions(1, 3).tolist() == [1, 2] and plain.shift == 0


def test_kinds_may_share_a_token() -> None:
    """The frames of SmolVLM's videos stand in the prompt as pictures do."""
    eyes = Eyes(tokens={"image": IMAGE, "video": IMAGE})
    found = place_media(
        [IMAGE, 1, IMAGE, IMAGE, 2, IMAGE], [picture(0, 1), picture(1, 2, "video"), picture(2, 1)], eyes
    )
    assert [each.places.tolist() for each in found.placed] == [[0], [2, 3], [5]]
    with pytest.raises(MediaError, match="images and videos have 3"):
        place_media([IMAGE, 1], [picture(0, 1), picture(1, 2, "video")], eyes)
