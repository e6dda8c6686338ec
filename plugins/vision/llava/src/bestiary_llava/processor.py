"""Pictures and prompts for LLaVA: what LlavaProcessor and LlavaNextProcessor of transformers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError, shown
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames, Positions
from bestiary.media.prompt import Placed
from bestiary.media.settings import Settings, media_settings, read_settings
from bestiary.protocols import Repository
from bestiary_llava.pictures import Pictures
from bestiary_llava.sight import LARGEST, Sight, pinpoints, read_sight

_WHOLE = ("LlavaImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor")
_TILED = ("LlavaNextImageProcessor",)


def llava(config: Config, repository: Repository, tokenizer: Tokenizer) -> LlavaProcessor:
    return _build(config, repository, tokenizer, read_sight(config), _WHOLE)


def llava_next(config: Config, repository: Repository, tokenizer: Tokenizer) -> LlavaProcessor:
    return _build(config, repository, tokenizer, read_sight(config, any_resolution=True), _TILED)


def _build(
    config: Config, repository: Repository, tokenizer: Tokenizer, sight: Sight, kinds: Sequence[str]
) -> LlavaProcessor:
    """`kinds` are the classes of image processors that go with the family, the one that is taken for granted first.

    Raises ConfigError for values that cannot be, and for those with which the model would be given other numbers of
    rows than it makes.
    """
    stated = read_settings(repository, "processor_config.json")
    settings = media_settings(repository, config, "image_processor", ("preprocessor_config.json",))
    kind = settings.text("image_processor_type", kinds[0]).removesuffix("Fast").removesuffix("Pil")
    if kind not in kinds:
        raise settings.wrong("image_processor_type", " or ".join(kinds))
    pictures = Pictures.read(settings, kind)
    _check_sizes(pictures, settings, sight)
    _check_rows(stated, sight)
    token = stated.text("image_token", "<image>")
    named = read_settings(repository, "tokenizer_config.json").get("image_token", token)
    return LlavaProcessor(pictures, sight, *_image_token(named, config, tokenizer))


def _check_sizes(pictures: Pictures, settings: Settings, sight: Sight) -> None:
    """What is known before any picture: whether it comes out as large as the tower takes it."""
    side = sight.image_size
    made = [pictures.crop] if pictures.crops else []
    if sight.anyres is not None:
        made = [pictures.crop, pictures.after(*pictures.overview), pictures.after(side, side)]
        theirs = settings.get("image_grid_pinpoints", sight.anyres.resolutions)
        if pinpoints(theirs, side, settings.where) != sight.anyres.resolutions:
            raise ConfigError(
                '"image_grid_pinpoints" is not what config.json has.', where=settings.where, fix="make them alike"
            )
    wrong = next((size for size in made if size != (side, side)), None)
    if wrong is not None:
        raise ConfigError(
            f"Pictures are made {wrong[1]} x {wrong[0]} pixels large; the tower takes {side} x {side}.",
            where=settings.where,
            fix=f'"size" and "crop_size" are of {side} pixels',
        )


def _check_rows(stated: Settings, sight: Sight) -> None:
    """What processor_config.json says of the tokens that stand for a picture must be what the model makes of it.

    What it does not say is taken from config.json, where transformers counts wrong or not at all.
    """
    patch = stated.whole("patch_size", sight.image_size // sight.side, 1, LARGEST)
    skip = int(stated.text("vision_feature_select_strategy", "default" if sight.skip else "full") == "default")
    classes = stated.whole("num_additional_image_tokens", sight.rows - sight.side**2 + sight.skip, 0, LARGEST)
    rows = (sight.image_size // patch) ** 2 + classes - skip
    if rows != sight.rows:
        raise ConfigError(
            f"The file gives a picture {rows} tokens; the model makes {sight.rows} rows of it.",
            where=stated.where,
            fix='"patch_size", "num_additional_image_tokens" and "vision_feature_select_strategy" are those of the '
            "model",
        )


def _image_token(token: Any, config: Config, tokenizer: Tokenizer) -> tuple[str, str, int]:
    """What stands for a picture in a prompt, and the text and number of the token that stands for each of its rows."""
    if isinstance(token, Mapping):  # an AddedToken, spelled out
        token = token.get("content")
    number = config.get("image_token_index", config.get("image_token_id", 32000))
    found = tokenizer.id(token) if isinstance(token, str) and token else None
    if number is None and isinstance(token, str) and token:  # a GGUF file, which does not say
        row, found = _row_token(token, tokenizer)
        if found is not None:
            return token, row, found
    if not isinstance(token, str) or found is None or found != number:
        raise ConfigError(
            f"{shown(token)}, which stands for pictures, is the token {found}; the model has {shown(number)} for them.",
            where=config.origin,
            fix="check that tokenizer and config.json belong together",
        )
    return token, token, found


def _row_token(token: str, tokenizer: Tokenizer) -> tuple[str, int | None]:
    """A token for the rows of pictures, where the vocabulary may be that of the text model alone.

    The row of the embedding is never read, so any does that no text has.
    """
    for name in (token, tokenizer.pad_token, tokenizer.unk_token):
        found = tokenizer.id(name) if name else None
        if name and found is not None and list(tokenizer.encode(name * 2, add_special_tokens=False)) == [found] * 2:
            return name, found
    return token, None


class LlavaProcessor:
    """Cuts pictures for the tower, and puts as many tokens into a prompt as the model makes rows."""

    whole = False

    def __init__(self, pictures: Pictures, sight: Sight, placeholder: str, row: str, token: int) -> None:
        """`placeholder` stands for a picture in a text, and is replaced by `row`, of the number `token`, for each."""
        self._pictures, self._sight, self._placeholder, self._row = pictures, sight, placeholder, row
        self.tokens = {"image": token}

    def prepare(self, media: Frames) -> Prepared:
        (image,) = media.frames
        anyres = self._sight.anyres
        if anyres is not None:
            tensors = {
                "pixel_values": self._pictures.tiled(image, anyres),
                "image_sizes": np.array([image.height, image.width], np.int64),
            }
            return Prepared("image", tensors, anyres.rows(image.height, image.width))
        pixels, side = self._pictures.whole(image), self._sight.image_size
        if pixels.shape[2:] != (side, side):
            raise MediaError(
                f"The picture comes to have {pixels.shape[3]} x {pixels.shape[2]} pixels; {side} x {side} are due.",
                fix="give one with equal sides",
            )
        return Prepared("image", {"pixel_values": pixels}, self._sight.rows)

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        first, *rest = text.split(self._placeholder)
        if len(rest) != len(media):
            raise MediaError(
                f"The prompt has {len(rest)} placeholders {self._placeholder} and {len(media)} pictures.",
                fix="give one for each",
            )
        parts = [self._row * medium.rows + part for medium, part in zip(media, rest, strict=True)]
        return first + "".join(parts)

    def positions(self, length: int, placed: Sequence[Placed]) -> Positions | None:
        return None
