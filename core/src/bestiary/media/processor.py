"""What a family's plugin brings for its media: `Architecture.processor` names a function that builds it.

    build(config: Config, repository: Repository, tokenizer: Tokenizer) -> Processor

It reads preprocessor_config.json and processor_config.json of the repository where they are there; what they leave out
is what transformers' classes of the family take for granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bestiary.media.prepared import Prepared

if TYPE_CHECKING:
    from PIL.Image import Image  # which a model without eyes does without

    from bestiary.media.prompt import Placed


@dataclass(frozen=True)
class Frames:
    """A picture, or a video: RGB frames, turned upright."""

    kind: str
    """"image" or "video"."""
    frames: tuple[Image, ...]
    """All in mode RGB; of a picture one."""
    fps: float | None = None
    """Frames in a second of a video, where that is known."""


@dataclass(frozen=True)
class Positions:
    """Where the tokens of a prompt stand, where that is more than their order."""

    prompt: np.ndarray
    """[3, T] int64, by token: time, row and column (M-RoPE, Qwen2-VL, arXiv 2409.12191)."""
    shift: int
    """The position of each token after the prompt, less its index."""


class Processor(Protocol):
    """Turns media into tensors and tokens.  Safe to call from several threads."""

    @property
    def tokens(self) -> Mapping[str, int]:
        """By kind ("image", "video") the token that stands for one row of an encoded medium; kinds may share one."""

    @property
    def whole(self) -> bool:
        """Whether the rows of one run of such tokens see each other both ways, as in Gemma 3."""

    def prepare(self, media: Frames) -> Prepared:
        """One medium as tensors.  Raises MediaError for one that the family cannot take."""

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        """The text of a prompt, each placeholder of a medium (as chat templates write it) replaced by what stands for
        the medium: its tokens, as often as it has rows, and whatever the family puts around them.

        The time is linear in text and media.  Raises MediaError where text and media do not go together: the n-th
        placeholder of a kind stands for the n-th medium of that kind.
        """

    def positions(self, length: int, placed: Sequence[Placed]) -> Positions | None:
        """Of all tokens of a prompt of this length, with its media; None: they stand in their order."""
