"""Positions of time, row and column against transformers'."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

from bestiary.errors import MediaError
from bestiary_qwen_vl import positions
from bestiary_qwen_vl.grid import Grid

TEXT, IMAGE, VIDEO = 5, 262, 263


def reference(tokens: list[int], media: list[tuple[int, Grid, float]], per_second: int | None) -> tuple[Any, int]:
    """transformers' `get_rope_index`, which looks at two numbers of a model's configuration only."""
    vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=per_second)
    kind = Qwen2VLModel if per_second is None else Qwen2_5_VLModel
    model = SimpleNamespace(
        config=SimpleNamespace(vision_config=vision),
        get_vision_position_ids=lambda *args, **more: kind.get_vision_position_ids(None, *args, **more),
    )
    ids = torch.tensor([tokens])
    grids: dict[str, Any] = {}
    for name, token in (("image_grid_thw", IMAGE), ("video_grid_thw", VIDEO)):
        those = [[grid.time, 2 * grid.height, 2 * grid.width] for each, grid, _ in media if each == token]
        grids[name] = torch.tensor(those) if those else None
    seconds = torch.tensor([second for each, _, second in media if each == VIDEO])
    types = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    made, delta = kind.get_rope_index(model, ids, types, **grids, second_per_grid_ts=seconds)
    return made[:, 0].numpy(), int(delta)


@pytest.mark.parametrize("per_second", [None, 2, 25])
def test_positions_equal_transformers(per_second: int | None) -> None:
    random = np.random.default_rng(0)
    for count, _ in itertools.product(range(1, 4), range(20)):
        tokens: list[int] = [TEXT] * int(random.integers(0, 6))
        media: list[tuple[int, Grid, float]] = []
        stretches: list[positions.Stretch] = []
        for _ in range(count):
            kind = int(random.choice((IMAGE, VIDEO)))
            time, height, width = (int(each) for each in random.integers(1, 7, 3))
            grid = Grid(time if kind == VIDEO else 1, height, width)
            second = float(np.float32(random.choice((0.0833333, 1.0, 2.3, 0.6458333))))
            places = np.arange(len(tokens), len(tokens) + grid.patches)
            interval = (
                1.0 if kind == IMAGE or per_second is None else float(np.float32(per_second) * np.float32(second))
            )
            tokens += [kind] * grid.patches + [TEXT] * int(random.integers(1, 6))
            media.append((kind, grid, second))
            stretches.append((places, grid, interval))
        made = positions.place(len(tokens), reversed(stretches))
        expected, shift = reference(tokens, media, per_second)
        assert made.prompt.dtype == np.int64 and np.array_equal(made.prompt, expected)
        # transformers' `generate` counts on from the last token, not by the shift, which steps over long videos.
        assert made.shift == expected[:, -1].max() + 1 - len(tokens)
        assert made.shift == shift or any(kind == VIDEO for kind, _, _ in media)


def test_pictures_side_by_side_each_have_their_own() -> None:
    stretches = [(np.arange(2, 6), Grid(1, 2, 2), 1.0), (np.arange(6, 7), Grid(1, 1, 1), 1.0)]
    made = positions.place(8, stretches)
    assert made.prompt.tolist() == [[0, 1, 2, 2, 2, 2, 4, 5], [0, 1, 2, 2, 3, 3, 4, 5], [0, 1, 2, 3, 2, 3, 4, 5]]
    assert made.shift == -2


def test_an_answer_counts_on_as_a_longer_prompt_would() -> None:
    for grid in (Grid(1, 2, 3), Grid(9, 2, 3)):
        stretches = [(np.arange(2, 2 + grid.patches), grid, 5.0)]
        made, longer = (positions.place(2 + grid.patches + more, stretches) for more in (0, 4))
        assert made.shift == longer.shift == longer.prompt[0, -1] - (5 + grid.patches)


def test_rows_apart_are_refused() -> None:
    with pytest.raises(MediaError):
        positions.place(8, [(np.array([1, 2, 4, 5]), Grid(1, 2, 2), 1.0)])
