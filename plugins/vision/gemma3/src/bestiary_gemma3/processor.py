"""Pictures for Gemma 3: squares of pixels, and the tokens that stand for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.images import normalised, resize
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames
from bestiary.media.prompt import Placed
from bestiary.protocols import Repository
from bestiary_gemma3.model import tokens_of
from bestiary_gemma3.settings import Settings, picture_settings
from bestiary_siglip.model import DEFAULTS


def build(config: Config, repository: Repository, tokenizer: Tokenizer) -> Gemma3Processor:
    """Raises ConfigError for settings that cannot be, and for a tokenizer without the tokens of pictures."""
    vision = config.part("vision_config", DEFAULTS)
    size = vision.image_size
    tokens = tokens_of(config, size // vision.patch_size)
    settings = picture_settings(repository, config, size, tokens)
    named = tokenizer.special_tokens
    begin = named.get("boi_token", "<start_of_image>")
    end = named.get("eoi_token", "<end_of_image>")
    row = named.get("image_token", "<image_soft_token>")
    place = tokenizer.id(row)
    if place is None or place >= config.text.vocab_size:
        # Its row of the embedding is never read, and some files have none: another token that no text has then stands
        # in the places that pictures take.
        row, place = tokenizer.pad_token or "", tokenizer.pad_id
    if place is None or tokenizer.id(begin) is None or tokenizer.id(end) is None:
        raise ConfigError(
            f"The tokenizer lacks tokens of pictures: {begin}, {end}, or one for the places between them.",
            where=tokenizer.origin,
            fix="take the tokenizer that was published with the model",
        )
    return Gemma3Processor(settings, begin, f"\n\n{begin}{row * settings.tokens}{end}\n\n", place)


class Gemma3Processor:
    """A `bestiary.media.processor.Processor`, with the pixels and texts of transformers' Gemma3Processor."""

    whole = True

    def __init__(self, settings: Settings, placeholder: str, written: str, token: int) -> None:
        """`placeholder` stands for a picture in a text, and is replaced by `written`, with `token` for each row."""
        self.settings, self.placeholder, self.written = settings, placeholder, written
        self.tokens: Mapping[str, int] = {"image": token}

    def prepare(self, media: Frames) -> Prepared:
        """pixel_values [1 + crops, 3, S, S]: the whole picture, then its parts."""
        settings, (image,) = self.settings, media.frames
        scan = settings.pan_and_scan
        boxes = scan.crops(image.width, image.height) if scan is not None else []
        looks = [image, *(image.crop(box) for box in boxes)]
        if settings.resize:
            looks = [resize(look, settings.size, settings.size, settings.resample) for look in looks]
        for look in looks:
            if look.size != (settings.size, settings.size):
                raise MediaError(
                    f"A picture of {look.width} x {look.height} pixels came; the model sees {settings.size} x "
                    f"{settings.size}, and its processor does not resize.",
                    fix="resize the picture",
                )
        pixels = normalised(np.stack([np.asarray(look) for look in looks]), settings.mean, settings.std, settings.scale)
        return Prepared("image", {"pixel_values": pixels}, len(looks) * settings.tokens, {"crops": len(boxes)})

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        first, *rest = text.split(self.placeholder)
        if len(rest) != len(media):
            raise MediaError(
                f"The text has {len(rest)} placeholders of pictures ({self.placeholder}); {len(media)} pictures came.",
                fix="write one for each picture, or leave them to the chat template",
            )
        pieces = [first]
        for part, medium in zip(rest, media, strict=True):
            pieces += [self._written(medium.facts["crops"]), part]
        return "".join(pieces)

    def positions(self, length: int, placed: Sequence[Placed]) -> None:
        return None

    def _written(self, crops: int) -> str:
        if not crops:
            return self.written
        parts = " ".join([self.written] * crops)
        return f"Here is the original image {self.written} and here are some crops to help you see better {parts}"
