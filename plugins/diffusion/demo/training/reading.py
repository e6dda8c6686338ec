"""Reads a picture back: which colour, which shape, on which background.  Plain numpy, no learning."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scenes import COLOURS, SHAPES, SIZE, cover

NAMES = list(COLOURS)
PALETTE = np.array(list(COLOURS.values()), np.float64)
EXTENT = {  # left, top, right and bottom of the shape of radius 1
    "circle": (-1, -1, 1, 1), "square": (-0.88, -0.88, 0.88, 0.88), "triangle": (-1, -1, 1, 0.8),
    "star": (-0.951, -1, 0.951, 0.809), "cross": (-1, -1, 1, 1), "ring": (-1, -1, 1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What a picture shows; `likeness` from 0 to 1 is how well a drawn shape covers the one that is seen.

    An empty colour and shape: the picture has one colour.
    """

    colour: str
    shape: str
    ground: str
    likeness: float


def nearest(picture: NDArray[np.float64]) -> NDArray[np.intp]:
    """The number of the palette's nearest colour for each pixel."""
    return np.square(picture[..., None, :] - PALETTE).sum(-1).argmin(-1)


def most(labels: NDArray[np.intp]) -> int:
    return int(np.bincount(labels.ravel(), minlength=len(NAMES)).argmax())


def even(labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Where a pixel and its four neighbours have the same label: not at an edge, where colours mix."""
    same = np.zeros(labels.shape, bool)
    centre = labels[1:-1, 1:-1]
    around = (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:])
    same[1:-1, 1:-1] = np.logical_and.reduce([other == centre for other in around])
    return same


def read(picture: NDArray[np.uint8]) -> Reading:
    """Reads a picture [SIZE, SIZE, 3]; the background is what touches the border."""
    if picture.shape != (SIZE, SIZE, 3):
        raise ValueError(f"a picture has the shape {(SIZE, SIZE, 3)}, not {picture.shape}")
    seen = picture.astype(np.float64)
    labels = nearest(seen)
    ground = most(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inner = labels[even(labels) & (labels != ground)]
    if not inner.size:
        return Reading("", "", NAMES[ground], 0.0)
    colour = most(inner)
    way = PALETTE[colour] - PALETTE[ground]
    share = np.clip((seen - PALETTE[ground]) @ way / (way @ way), 0, 1)  # 0 ground, 1 shape, between: an edge
    shape, likeness = best_shape(share)
    return Reading(NAMES[colour], shape, NAMES[ground], likeness)


def best_shape(share: NDArray[np.float64]) -> tuple[str, float]:
    """The shape whose drawing into the same box overlaps most: the common part over the whole."""
    rows, columns = (np.flatnonzero((share > 0.5).sum(axis) > 0) for axis in (1, 0))
    if not rows.size:
        return "", 0.0
    best = ("", 0.0)
    for shape in SHAPES:
        left, top, right, bottom = EXTENT[shape]
        width, height = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
        radius = (width / (right - left) + height / (bottom - top)) / 2
        middle = (
            (columns[0] + columns[-1] + 1 - radius * (left + right)) / 2,
            (rows[0] + rows[-1] + 1 - radius * (top + bottom)) / 2,
        )
        drawn = cover(shape, radius, middle)
        likeness = float(np.minimum(share, drawn).sum() / np.maximum(share, drawn).sum())
        best = max(best, (shape, likeness), key=lambda found: found[1])
    return best
