"""Pixels and tokens of pictures, beside those of transformers' processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idefics_reference import picture, preprocessor, save_idefics3, save_smolvlm
from PIL import Image

from bestiary.config import normalise
from bestiary.errors import MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.opening import open_media
from bestiary.media.processor import Frames
from bestiary.media.prompt import place_media
from bestiary.sources.folder import Folder
from bestiary_idefics import processor as ours
from bestiary_idefics.tiny import IDEFICS3, SMOLVLM

FAMILIES = {
    "idefics3": (save_idefics3, ours.idefics3, IDEFICS3[0]),
    "smolvlm": (save_smolvlm, ours.smolvlm, SMOLVLM[0]),
}
# Height and width.
SHAPES = (
    *((1, 1), (1, 2), (2, 1), (3, 5), (1, 400), (400, 1), (1, 4000), (4000, 1)),
    *((17, 31), (32, 32), (33, 32), (31, 129), (128, 128), (100, 300), (301, 99), (127, 255), (512, 511), (1111, 37)),
    *((2000, 3000), (3000, 1999)),
)
PHOTOS = ("bike.jpg", "australia.jpg", "mtmd_newspaper.jpeg", "test_colors.jpg", "exceltable.png")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whole": {"do_image_splitting": False},
    "as it is": {"do_resize": False},
    "fixed": {"size": {"height": 50, "width": 70}, "resample": 3},
    "bytes": {"do_normalize": False, "do_rescale": False},
    "coloured": {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.27, 0.26, 0.25], "rescale_factor": 0.01},
    "bounded": {"size": {"longest_edge": 5000}, "max_image_size": {"longest_edge": 364}, "resample": 0},
}


class Pair:
    """transformers' processor and Bestiary's of the same files."""

    def __init__(self, family: str, folder: Path, **changes: Any) -> None:
        save, build, config = FAMILIES[family]
        values = preprocessor(32, 128, **changes)
        tile = values["max_image_size"]["longest_edge"]
        # The tower of the tiny configurations, but with the patches of the real one for its tiles.
        patch = 14 if tile == 364 else 4
        config = {**config, "vision_config": {**config["vision_config"], "patch_size": patch, "image_size": tile}}
        self.rows = (tile // patch // 2) ** 2
        self.theirs = save(folder, self.rows, values)
        self.tokenizer = Tokenizer.from_repository(Folder(folder, "test/model"))
        self.ours = build(normalise(config, "config.json"), Folder(folder, "test/model"), self.tokenizer)

    def check(self, text: str, pictures: list[Image.Image]) -> None:
        expected = self.theirs(text=[text], images=[pictures], return_tensors="np")
        prepared = [self.ours.prepare(Frames("image", (each,))) for each in pictures]
        pixels = np.concatenate([each.tensors["pixel_values"] for each in prepared])
        theirs = expected["pixel_values"][0]
        assert pixels.dtype == np.float32 and pixels.shape == theirs.shape
        assert np.abs(pixels - theirs).max() <= 1e-5 * max(1.0, float(np.abs(theirs).max()))
        assert expected["pixel_attention_mask"].all()
        tokens = self.tokenizer.encode(self.ours.expand(text, prepared))
        assert tokens == expected["input_ids"][0].tolist()
        assert [each.rows for each in prepared] == [len(each.tensors["pixel_values"]) * self.rows for each in prepared]
        placed = place_media(tokens, prepared, self.ours).placed
        assert sum(len(each.places) for each in placed) == tokens.count(self.ours.tokens["image"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    made: dict[str, Pair] = {}

    def get(family: str, **changes: Any) -> Pair:
        key = f"{family} {changes}"
        if key not in made:
            made[key] = Pair(family, tmp_path_factory.mktemp("processor"), **changes)
        return made[key]

    return get


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_shapes(pair: Callable[..., Pair], family: str, height: int, width: int) -> None:
    pair(family).check("Look: <image> why?", [Image.fromarray(picture(height, width))])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", VARIANTS)
def test_settings(pair: Callable[..., Pair], family: str, name: str) -> None:
    for height, width in ((1, 200), (20, 90), (64, 64))[: 1 if name == "bounded" else None]:
        pair(family, **VARIANTS[name]).check("<image>", [Image.fromarray(picture(height, width))])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PHOTOS)
def test_photographs(pair: Callable[..., Pair], shared_data: Path, family: str, name: str) -> None:
    """In the sizes of Idefics3-8B, 364 pixels a tile and 1456 a picture."""
    photo = open_media(shared_data / "media" / name, "image").frames[0]
    sized = pair(family, size={"longest_edge": 1456}, max_image_size={"longest_edge": 364})
    sized.check("<image>\nWhat is this?", [photo])


@pytest.mark.parametrize("family", FAMILIES)
def test_several_pictures(pair: Callable[..., Pair], family: str) -> None:
    """transformers pads those with fewer tiles in a batch of prompts; within a prompt all tiles come one after
    another."""
    pictures = [Image.fromarray(picture(*shape)) for shape in ((10, 200), (64, 64), (200, 10), (5, 5))]
    pair(family).check("One <image>, two <image><image>\n\n<image>.", pictures)


@pytest.mark.parametrize("text", ["none", "<image>", "<image><image><image>"])
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_that_differ(pair: Callable[..., Pair], family: str, text: str) -> None:
    processor = pair(family).ours
    prepared = [processor.prepare(Frames("image", (Image.fromarray(picture(9, 9)),)))] * 2
    with pytest.raises(MediaError, match="placeholders"):
        processor.expand(text, prepared)


def test_expansion_is_linear(pair: Callable[..., Pair]) -> None:
    processor = pair("smolvlm").ours
    one = processor.prepare(Frames("image", (Image.fromarray(picture(9, 9)),)))
    text = processor.expand("<image>" * 5000 + "<image" * 200_000, [one] * 5000)
    assert text.count("<global-img>") == 5000


def test_names_of_tokens_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    """SmolVLMProcessor asks the tokenizer for them, Idefics3Processor does not."""
    pair = Pair("smolvlm", tmp_path)
    settings = ours.processor_settings(Folder(tmp_path, "test/model"), normalise(SMOLVLM[0], ""))
    assert settings.marks["image_token"] == "<image>"
    file = tmp_path / "tokenizer_config.json"
    file.write_text(file.read_text().replace("<global-img>", "<whole>"))
    again = ours.smolvlm(normalise(SMOLVLM[0], ""), Folder(tmp_path, "test/model"), pair.tokenizer)
    one = again.prepare(Frames("image", (Image.fromarray(picture(9, 9)),)))
    assert "<fake_token_around_image><whole><image>" in again.expand("<image>", [one])
