"""One coloured shape on a background: what there is, how it is drawn, and how it is read back from a picture."""

from dataclasses import dataclass
from hashlib import sha256
from random import Random

import numpy as np
from numpy.typing import NDArray

SIZE = 64
COLOURS = {
    "red": (220, 30, 40), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (250, 220, 40),
    "orange": (250, 130, 20), "purple": (140, 40, 170), "white": (255, 255, 255), "black": (0, 0, 0),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = {"small": (9.0, 11.0), "": (14.0, 17.0), "large": (22.0, 25.0)}
"""The radius in pixels; the empty word is a size that no one named."""
PLACES = {"": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
ASIDE = 14.0
FINE = 3
"""The edges are as soft as this many samples a pixel, in each direction, make them."""


@dataclass(frozen=True)
class Scene:
    """What a prompt names.  An empty background is the usual one, an empty size or place the middle."""

    colour: str
    shape: str
    background: str = ""
    size: str = ""
    place: str = ""

    @property
    def ground(self) -> str:
        """The background's colour: white where none is named, and black under a white shape."""
        return self.background or ("black" if self.colour == "white" else "white")

    @property
    def held_out(self) -> bool:
        """Whether training never draws it: a tenth of the combinations of shape, colour and background's colour."""
        return sha256(f"{self.colour} {self.shape} {self.ground}".encode()).digest()[0] % 10 == 0


def draw_scene(dice: Random, held_out: bool = False) -> Scene:
    """A scene of those that training draws, or of the others."""
    while True:
        colour = dice.choice(list(COLOURS))
        background = dice.choice([name for name in COLOURS if name != colour]) if dice.random() < 0.75 else ""
        place = dice.choice(list(PLACES)[1:]) if dice.random() < 0.35 else ""
        size = dice.choice(["", "small"] if place else ["", "", "small", "large"])
        scene = Scene(colour, dice.choice(SHAPES), background, size, place)
        if scene.held_out == held_out:
            return scene


def inside(shape: str, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether points lie in the shape of radius 1; y grows downwards."""
    away = np.hypot(x, y)
    if shape == "circle":
        return away <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.88
    if shape == "triangle":
        return (y <= 0.8) & (abs(x) <= (y + 1) / 1.8)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 1)
    if shape == "ring":
        return (away <= 1) & (away >= 0.58)
    if shape == "star":  # five points: the edge of a tenth of the turn, and its mirror images
        turn = abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        inner = 0.42
        ax, ay = inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)
        return away * (np.cos(turn) * ay + np.sin(turn) * (1 - ax)) <= ay
    raise ValueError(f"no such shape: {shape}")


def cover(shape: str, radius: float, middle: tuple[float, float]) -> NDArray[np.floating]:
    """How much of each pixel the shape covers, [SIZE, SIZE] from 0 to 1; only the pixels around it are looked at."""
    share = np.zeros((SIZE, SIZE), np.float32)
    left, top = (max(0, int(centre - radius)) for centre in middle)
    right, bottom = (min(SIZE, int(centre + radius) + 1) for centre in middle)
    across, down = (
        ((np.arange(low * FINE, high * FINE, dtype=np.float32) + 0.5) / FINE - centre) / radius
        for low, high, centre in ((left, right, middle[0]), (top, bottom, middle[1]))
    )
    x, y = np.meshgrid(across, down)
    fine = inside(shape, x, y).reshape(bottom - top, FINE, right - left, FINE)
    share[top:bottom, left:right] = fine.mean((1, 3))
    return share


def paint(scene: Scene, dice: Random) -> NDArray[np.uint8]:
    """A picture [SIZE, SIZE, 3] of the scene; the radius and the middle vary a little."""
    radius = dice.uniform(*SIZES[scene.size]) - (1.5 if scene.place and not scene.size else 0)
    across, down = PLACES[scene.place]
    bound = SIZE / 2 - radius - 1.5  # the shape stays inside
    middle = [
        SIZE / 2 + max(-bound, min(bound, direction * ASIDE + dice.uniform(-3, 3))) for direction in (across, down)
    ]
    share = cover(scene.shape, radius, (middle[0], middle[1]))[..., None]
    colour, ground = (np.array(COLOURS[name], np.float64) for name in (scene.colour, scene.ground))
    return np.rint(share * colour + (1 - share) * ground).astype(np.uint8)
