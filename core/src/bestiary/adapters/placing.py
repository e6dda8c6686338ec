"""Where the weight plan of a model moves the rows of a tensor, the rows of a change of it go too.

A low-rank change B A of a tensor [out, in] is a tensor of the same shape, so the rules of `bestiary.weights` that move
or scale whole rows (`split`, `cat`, `rows`) can work on B [out, rank] alone.  What a `map` does to a change cannot be
told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bestiary.errors import BestiaryError, WeightMismatch
from bestiary.weights import Join, Recipe, Step, Stored

Shapes = Mapping[str, Sequence[int]]
"""Of the tensors of a checkpoint, by name."""


@dataclass(frozen=True)
class Place:
    """Part of a change, on some rows of a parameter."""

    start: int
    """The first row."""
    b: torch.Tensor
    """[rows, rank]"""
    magnitude: torch.Tensor | None = None
    """[rows]; NaN on rows that have none."""


def place(
    recipe: Recipe, shapes: Shapes, source: str, b: torch.Tensor, magnitude: torch.Tensor | None = None
) -> list[Place]:
    """How the change b [out, rank] of the tensor `source` changes what a recipe makes of it.

    Raises WeightMismatch where a rule does more than move and scale whole rows.
    """
    if magnitude is None:
        return _follow(recipe, shapes, source, b)
    # A row that is scaled by s takes the magnitude |s| with it: a column of ones shows s.
    columns = torch.cat((b.float(), magnitude.float()[:, None], torch.ones(len(b), 1)), 1)
    made = []
    for found in _follow(recipe, shapes, source, columns):
        scale = found.b[:, -1]
        moved = torch.where(scale == 0, torch.nan, found.b[:, -2] * scale.sign())
        made.append(Place(found.start, found.b[:, :-2], moved))
    return made


def has_map(recipe: Recipe, source: str) -> bool:
    """Whether a `map` stands between a tensor and what is made of it."""
    if isinstance(recipe, Step):
        return source in recipe.sources() and (not recipe.rowwise or has_map(recipe.part, source))
    return isinstance(recipe, Join) and any(has_map(part, source) for part in recipe.parts)


def _follow(recipe: Recipe, shapes: Shapes, source: str, columns: torch.Tensor) -> list[Place]:
    if source not in recipe.sources():
        return []
    if isinstance(recipe, Stored):
        return [Place(0, columns)]
    if isinstance(recipe, Step):
        return [
            Place(0, _changed(recipe, shapes, source, found)) for found in _follow(recipe.part, shapes, source, columns)
        ]
    if recipe.stacked:
        raise WeightMismatch(f"{source} becomes part of a stack within another tensor, where changes do not follow.")
    made, start = [], 0
    for part in recipe.parts:
        made += [Place(start + found.start, found.b) for found in _follow(part, shapes, source, columns)]
        start += _height(part, shapes)
    return made


def _changed(step: Step, shapes: Shapes, source: str, found: Place) -> torch.Tensor:
    if not step.rowwise:
        raise WeightMismatch(
            f"A `map` rule of the weight plan works on {source}: what it does to a change of that cannot be told.",
            fix="merge the adapter into its model with PEFT (merge_and_unload), and load the result",
        )
    values = found.b.float()
    height = _height(step.part, shapes)
    if len(values) != height:
        whole = values.new_zeros(height, values.shape[1])
        whole[found.start : found.start + len(values)] = values
        values = whole
    try:
        moved, nothing = step.change(values), step.change(torch.zeros_like(values))
    except BestiaryError:
        raise
    except Exception as error:  # a plugin's function, which may count on the columns of its own tensor
        columns = values.shape[1]
        raise WeightMismatch(f"A `rows` rule on {source} does not work on {columns} columns: {error}") from error
    if moved.ndim != 2 or moved.shape[1] != values.shape[1] or bool(nothing.any()):
        raise WeightMismatch(f"A `rows` rule on {source} does more than move and scale whole rows.")
    return moved


def _height(recipe: Recipe, shapes: Shapes) -> int:
    return recipe.make(lambda name: torch.empty(tuple(shapes[name]), device="meta")).shape[0]
