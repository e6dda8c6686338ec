"""Pictures and videos as patches, and their tokens in a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError, TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames, Positions
from bestiary.media.prompt import Placed
from bestiary.protocols import Repository
from bestiary_qwen_vl import positions, shape
from bestiary_qwen_vl.grid import Grid
from bestiary_qwen_vl.patches import cut
from bestiary_qwen_vl.sampling import sampled
from bestiary_qwen_vl.settings import PictureSettings, VideoSettings, image_settings, video_settings
from bestiary_qwen_vl.shape import Shape

_NOTHING: Mapping[str, np.ndarray] = {}
_TENSORS = {"image": ("pixel_values", "image_grid_thw"), "video": ("pixel_values_videos", "video_grid_thw")}


def qwen2_vl(config: Config, repository: Repository, tokenizer: Tokenizer) -> QwenProcessor:
    return _build(shape.qwen2_vl(config), config, repository, tokenizer)


def qwen2_5_vl(config: Config, repository: Repository, tokenizer: Tokenizer) -> QwenProcessor:
    return _build(shape.qwen2_5_vl(config), config, repository, tokenizer)


def _build(tower: Shape, config: Config, repository: Repository, tokenizer: Tokenizer) -> QwenProcessor:
    image, video = image_settings(repository, config), video_settings(repository, config)
    for settings in (image, video.picture):
        ours, theirs = ((each.patch, each.moments, each.merge) for each in (settings, tower))
        if ours != theirs:
            raise ConfigError(
                f"The processor cuts and merges patches by {ours} (pixels, frames, patches); the tower by {theirs}.",
                where=repository.origin,
            )
    marks = {kind: tokenizer.special_tokens.get(f"{kind}_token", f"<|{kind}_pad|>") for kind in _TENSORS}
    tokens = {kind: tokenizer.id(mark) for kind, mark in marks.items()}
    lacking = [marks[kind] for kind, token in tokens.items() if token is None]
    if lacking:
        raise TokenizerError(
            f"The tokenizer has no {' and no '.join(lacking)}, which stand for pictures and videos.",
            where=repository.origin,
        )
    known = {kind: token for kind, token in tokens.items() if token is not None}
    return QwenProcessor(image, video, marks, known, tower.tokens_per_second)


@dataclass(frozen=True)
class QwenProcessor:
    """The processor of both generations; `tokens_per_second` None is Qwen2-VL's."""

    image: PictureSettings
    video: VideoSettings
    marks: Mapping[str, str]
    """By kind the text of its token."""
    tokens: Mapping[str, int]
    tokens_per_second: int | None
    whole: bool = False

    def prepare(self, media: Frames) -> Prepared:
        if media.kind == "image":
            return self._prepared("image", *cut(media.frames, self.image))
        settings = self.video
        numbers, fps = sampled(media, settings)
        frames = [media.frames[number] for number in numbers]
        picture = settings.picture
        most = picture.most
        if settings.total_pixels is not None:
            share = settings.total_pixels * picture.moments // len(frames)
            most = max(min(most, share), int(picture.least * 1.05))
        more: dict[str, np.ndarray] = {}
        if self.tokens_per_second is not None:
            # Among the tensors, so that the same frames at another speed are another video to whoever compares prompts.
            more["second_per_grid_ts"] = np.array([picture.moments / fps], np.float32)
        return self._prepared("video", *cut(frames, picture, most), more)

    def _prepared(
        self, kind: str, patches: np.ndarray, grid: Grid, more: Mapping[str, np.ndarray] = _NOTHING
    ) -> Prepared:
        pixels, sizes = _TENSORS[kind]
        tensors = {pixels: patches, sizes: np.array([[grid.time, grid.height, grid.width]], np.int64), **more}
        return Prepared(kind, tensors, grid.rows(self.image.merge), {"grid": grid})

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        kinds = {mark: kind for kind, mark in self.marks.items()}
        left = {kind: [each for each in reversed(media) if each.kind == kind] for kind in self.marks}
        counts = {kind: len(those) for kind, those in left.items()}
        # Texts and marks take turns.
        parts = re.split("|".join(f"({re.escape(mark)})" for mark in kinds), text)
        found = {kind: parts.count(mark) for mark, kind in kinds.items()}
        for kind, count in counts.items():
            if found[kind] != count:
                raise MediaError(
                    f"The prompt has {found[kind]} {self.marks[kind]}, and {count} {kind}s.",
                    fix=f"write {self.marks[kind]} once for each",
                )
        return "".join(
            part * left[kinds[part]].pop().rows if part in kinds else part for part in parts if part is not None
        )

    def positions(self, length: int, placed: Sequence[Placed]) -> Positions | None:
        stretches = []
        for medium, places in ((each.medium, each.places) for each in placed):
            grid: Grid = medium.facts["grid"]
            merged = Grid(grid.time, grid.height // self.image.merge, grid.width // self.image.merge)
            stretches.append((places, merged, self._interval(medium)))
        return positions.place(length, stretches)

    def _interval(self, medium: Prepared) -> float:
        """Positions between two moments."""
        if medium.kind != "video" or self.tokens_per_second is None:
            return 1.0
        return float(np.float32(self.tokens_per_second) * medium.tensors["second_per_grid_ts"][0])
