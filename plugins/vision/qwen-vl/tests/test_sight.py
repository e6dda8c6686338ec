"""Which patches see each other, and that pictures do not see other pictures."""

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from bestiary.config import normalise
from bestiary_qwen_vl import DEFAULTS, model
from bestiary_qwen_vl.grid import Grid, Sets, by_frame, by_window, coordinates, together
from bestiary_qwen_vl.seen import Seen
from bestiary_qwen_vl.tiny import QWEN2_5_VL, QWEN2_VL

GRIDS = [Grid(1, 2, 2), Grid(3, 8, 12), Grid(1, 6, 26), Grid(2, 16, 16), Grid(1, 18, 4)]


def as_sets(sets: Sets) -> set[frozenset[int]]:
    return {frozenset(each) for patches in sets.values() for each in patches.tolist()}


@pytest.mark.parametrize("window", [1, 2, 4])
def test_windows_are_those_of_transformers(window: int) -> None:
    theirs, ends = get_vision_window_index(
        torch.tensor([[g.time, g.height, g.width] for g in GRIDS]), 2, window * 28, 14
    )
    patches = (theirs[:, None] * 4 + torch.arange(4)).flatten().split((ends[1:] - ends[:-1]).tolist())
    ours = together((grid, by_window(grid, 2, window)) for grid in GRIDS)
    assert as_sets(ours) == {frozenset(each.tolist()) for each in patches}
    assert sum(each.size for each in ours.values()) == sum(grid.patches for grid in GRIDS)
    assert all(size == each.shape[1] for size, each in ours.items())


@pytest.mark.parametrize("merge", [1, 2])
def test_coordinates_are_those_of_transformers(merge: int) -> None:
    for grid in GRIDS:
        theirs = get_vision_position_ids(torch.tensor([[grid.time, grid.height, grid.width]]), merge)
        assert np.array_equal(coordinates(grid, merge), theirs.T.numpy())


def test_frames_see_themselves() -> None:
    assert as_sets(together((grid, by_frame(grid)) for grid in (Grid(2, 2, 1), Grid(1, 1, 3)))) == {
        frozenset({0, 1}),
        frozenset({2, 3}),
        frozenset({4, 5, 6}),
    }


@pytest.mark.parametrize("config", [QWEN2_VL[0], QWEN2_5_VL[0]], ids=["qwen2", "qwen2_5"])
def test_together_is_as_alone(config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pictures of different sizes at once, and in parts, make what each makes alone."""
    build = getattr(model, str(config["model_type"]))
    eyes = build(normalise(config, "here", DEFAULTS)).media
    torch.manual_seed(0)
    for parameter in eyes.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    media = [
        {
            "pixel_values": torch.randn(grid.patches, eyes.tower.shape.patch_numbers),
            "image_grid_thw": torch.tensor([[grid.time, grid.height, grid.width]]),
        }
        for grid in GRIDS
    ]
    with torch.no_grad():
        alone = [eyes.encode([each])[0] for each in media]
        for most in (1 << 14, 300):
            monkeypatch.setattr(model, "_PATCHES", most)
            for one, other in zip(alone, eyes.encode(media), strict=True):
                assert one.shape == other.shape and torch.allclose(one, other, atol=1e-5)
        assert eyes.encode([]) == []


def test_parts_hold_neighbours_up_to_a_number_of_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_PATCHES", 10)
    grids = [Grid(1, 2, count) for count in (2, 3, 1, 9, 1, 1)]
    assert list(model._parts(grids)) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]


def test_attention_in_sets_is_attention_under_a_mask() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, sum(grid.patches for grid in GRIDS[:3]), 2, 8).unbind(0)
    for sets in (
        together((grid, by_window(grid, 2, 2)) for grid in GRIDS[:3]),
        together((grid, by_frame(grid)) for grid in GRIDS[:3]),
        {len(q): np.arange(len(q))[None]},
    ):
        mask = torch.zeros(len(q), len(q), dtype=torch.bool)
        for each in as_sets(sets):
            places = torch.tensor(sorted(each))
            mask[places[:, None], places] = True
        whole = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), mask)
        made = Seen(sets, torch.device("cpu")).attend(q, k, v)
        assert torch.allclose(made, whole[0].transpose(0, 1), atol=1e-6)
