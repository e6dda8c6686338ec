"""What Idefics3 and SmolVLM make of pictures and videos, equal to Idefics3Processor and SmolVLMProcessor of
transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.images import normalised
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames, Positions
from bestiary.media.prompt import Placed
from bestiary.protocols import Repository
from bestiary_idefics.geometry import tile_rows
from bestiary_idefics.settings import MARKS, Pixels, ProcessorSettings, processor_settings
from bestiary_idefics.tiling import cut
from bestiary_idefics.video import announcement, frame_pixels, introduction, watch


def idefics3(config: Config, repository: Repository, tokenizer: Tokenizer) -> IdeficsProcessor:
    """Of Idefics3 and the first SmolVLM, which take pictures.  Raises ConfigError."""
    return _build(config, repository, tokenizer, videos=False)


def smolvlm(config: Config, repository: Repository, tokenizer: Tokenizer) -> IdeficsProcessor:
    """Of SmolVLM2, which takes videos too.  Raises ConfigError."""
    return _build(config, repository, tokenizer, videos=True)


def _build(config: Config, repository: Repository, tokenizer: Tokenizer, videos: bool) -> IdeficsProcessor:
    settings = processor_settings(repository, config)
    marks = settings.marks if videos else MARKS  # Idefics3Processor knows no other texts
    rows = tile_rows(config, settings.image.tile)
    stated = rows if settings.rows is None else settings.rows
    seen = {rows, stated, tile_rows(config, settings.video.tile)} if videos else {rows, stated}
    if len(seen) > 1:
        raise ConfigError(
            f"{stated} tokens stand for a tile (image_seq_len), which the model makes {rows} rows of.",
            where=f"{repository.origin}: processor_config.json",
            fix="fetch processor_config.json, preprocessor_config.json and config.json of one model",
        )
    token, expected = tokenizer.id(marks["image_token"]), config.get("image_token_id")
    if token is None or (expected is not None and token != expected):
        raise ConfigError(
            f"{marks['image_token']} is token {token} of the tokenizer; the model's image_token_id is {expected}.",
            where=repository.origin,
            fix="fetch tokenizer.json and config.json of one model",
        )
    return IdeficsProcessor(settings, marks, token, rows, videos)


class IdeficsProcessor:
    """A `bestiary.media.processor.Processor`."""

    whole = False

    def __init__(
        self, settings: ProcessorSettings, marks: Mapping[str, str], token: int, rows: int, videos: bool
    ) -> None:
        """`token` stands for each of the `rows` of a tile, and of a frame."""
        self._settings, self._rows = settings, rows
        self._placeholders = {marks["image_token"]: "image"} | ({marks["video_token"]: "video"} if videos else {})
        self._pattern = re.compile("|".join(map(re.escape, self._placeholders)))
        self._around = marks["fake_image_token"]
        self._tile = marks["image_token"] * rows
        self._whole_picture = f"{self._around}{marks['global_image_token']}{self._tile}{self._around}"
        self.tokens = MappingProxyType({"image": token} | ({"video": token} if videos else {}))

    def prepare(self, media: Frames) -> Prepared:
        """`pixel_values` [tiles, 3, H, H]; of a video, a tile is a frame."""
        if media.kind == "video":
            return self._prepare_video(media)
        settings = self._settings
        tiles = cut(media.frames[0], settings.image, settings.splitting)
        text = self._picture_text(tiles.rows, tiles.columns)
        return self._prepared("image", tiles.pixels, settings.image, text)

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        """Raises MediaError where placeholders and media are not the same, one after another."""
        found = [self._placeholders[mark] for mark in self._pattern.findall(text)]
        given = [medium.kind for medium in media]
        for kind in self._placeholders.values():
            if found.count(kind) != given.count(kind):
                raise MediaError(
                    f"The prompt has {found.count(kind)} placeholders of {kind}s; {given.count(kind)} {kind}s came.",
                    fix=f"give a {kind} for each, or leave the placeholders to the chat template",
                )
        if found != given:
            raise MediaError(
                "Pictures and videos come in another order than their placeholders.",
                fix="put them into the messages of a chat, or the pictures before the videos",
            )
        texts = iter(medium.facts["text"] for medium in media)
        return self._pattern.sub(lambda _: next(texts), text)

    def positions(self, length: int, placed: Sequence[Placed]) -> Positions | None:
        return None

    def _prepare_video(self, media: Frames) -> Prepared:
        settings = self._settings
        watched = watch(media, settings.sampling)
        pixels = frame_pixels([media.frames[place] for place in watched.indices], settings.video)
        frames = "".join(announcement(seconds) + self._whole_picture for seconds in watched.seconds)
        return self._prepared("video", pixels, settings.video, f"{introduction(watched)}{frames}\n\n")

    def _prepared(self, kind: str, pixels: np.ndarray, settings: Pixels, text: str) -> Prepared:
        values = normalised(pixels, settings.mean, settings.std, settings.scale)
        return Prepared(kind, {"pixel_values": values}, len(pixels) * self._rows, {"text": text})

    def _picture_text(self, rows: int, columns: int) -> str:
        """Each tile named by its row and column, a line for each row, and the whole picture after a blank one."""
        if not rows:
            return self._whole_picture
        lines = (
            "".join(f"{self._around}<row_{row}_col_{column}>{self._tile}" for column in range(1, columns + 1))
            for row in range(1, rows + 1)
        )
        return "\n".join((*lines, "", self._whole_picture))
