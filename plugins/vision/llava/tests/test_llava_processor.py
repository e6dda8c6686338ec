"""Pixels, sizes and tokens are those of transformers' processors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_folders import save_processor
from PIL import Image

from bestiary.config import normalise
from bestiary.errors import BestiaryError, ConfigError, MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.limits import MediaLimits
from bestiary.media.opening import open_media
from bestiary.media.processor import Frames
from bestiary.sources.folder import Folder
from bestiary_llava import processor as ours
from bestiary_llava import tiny

CLS = {"patch_size": 7, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
CLS_14 = {**CLS, "patch_size": 14}
FULL = {"patch_size": 7, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"}
# Heights and widths.
SHAPES = ((1, 1), (1, 400), (400, 1), (1, 4000), (4000, 1), (2, 3), (27, 29), (28, 28), (30, 30), (31, 57), (57, 31))
SHAPES += ((56, 84), (84, 56), (101, 333), (640, 480), (719, 1283), (2000, 2000), (3001, 2048))
FILES = ("bike.jpg", "australia.jpg", "mtmd_newspaper.jpeg", "test_colors.jpg", "exceltable.png")


def edge(pixels: int, **others: Any) -> dict[str, Any]:
    return {"size": {"shortest_edge": pixels}, "crop_size": {"height": pixels, "width": pixels}, **others}


def with_vision(config: dict[str, Any], **vision: Any) -> dict[str, Any]:
    return {**config, "vision_config": {**config["vision_config"], **vision}}


LLAVA, QWEN, NEXT = tiny.LLAVA_LLAMA[0], tiny.LLAVA_QWEN2[0], tiny.LLAVA_NEXT_LLAMA[0]
LARGE, LARGE_NEXT = (with_vision(config, image_size=336, patch_size=14) for config in (LLAVA, NEXT))
LARGE_NEXT["image_grid_pinpoints"] = None
FULL_NEXT = tiny.LLAVA_NEXT_QWEN2[1]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "clip": (LLAVA, {"kind": "clip", "image": edge(28)}, CLS),
    "clip-336": (LARGE, {"kind": "clip", "image": edge(336)}, CLS_14),
    "llava": (LLAVA, {"kind": "llava", "image": edge(28)}, CLS),
    "llava-pad": (LLAVA, {"kind": "llava", "image": edge(28, do_pad=True)}, CLS),
    "llava-pad-336": (LARGE, {"kind": "llava", "image": edge(336, do_pad=True, resample=2)}, CLS_14),
    "pad-only": (LLAVA, {"kind": "llava", "image": edge(28, do_pad=True, do_resize=False)}, CLS),
    "crop-only": (LLAVA, {"kind": "clip", "image": edge(28, do_resize=False)}, CLS),
    "smaller": (LLAVA, {"kind": "clip", "image": edge(28, size={"shortest_edge": 19}, resample=1)}, CLS),
    "exact": (
        LLAVA,
        {"kind": "clip", "image": {"size": {"height": 28, "width": 28}, "do_center_crop": False, "resample": 0}},
        CLS,
    ),
    "plain": (LLAVA, {"kind": "clip", "image": edge(28, do_rescale=False, do_normalize=False)}, CLS),
    "unscaled": (LLAVA, {"kind": "clip", "image": edge(28, do_rescale=False, image_mean=[1, 2, 3])}, CLS),
    "siglip": (QWEN, {"kind": "siglip", "image": {"size": {"height": 30, "width": 30}}}, FULL),
    "next": (NEXT, {"kind": "llava_next", "next": True, "image": edge(28, image_grid_pinpoints=tiny._PINPOINTS)}, CLS),
    "next-336": (LARGE_NEXT, {"kind": "llava_next", "next": True, "image": edge(336)}, CLS_14),
    "next-exact": (
        FULL_NEXT,
        {
            "kind": "llava_next",
            "next": True,
            "image": {
                "size": {"height": 30, "width": 30},
                "crop_size": {"height": 30, "width": 30},
                "image_grid_pinpoints": FULL_NEXT["image_grid_pinpoints"],
                "do_center_crop": False,
                "image_mean": [0.5, 0.4, 0.3],
            },
        },
        FULL,
    ),
}


class Made:
    """Both processors of one folder."""

    def __init__(self, name: str, folder: Path) -> None:
        config, arguments, stated = CASES[name]
        self.theirs = save_processor(folder, **arguments, **stated)
        self.folder, self.config = folder, config
        self.ours = build(config, folder)

    def compare(self, image: Image.Image) -> None:
        text = "See <image>, then?"
        try:
            expected = self.theirs(images=[image], text=[text], return_tensors="np")
        except (ValueError, ZeroDivisionError, OverflowError, MemoryError):
            with pytest.raises(MediaError):
                self.ours.prepare(Frames("image", (image,)))
            return
        prepared = self.ours.prepare(Frames("image", (image,)))
        pixels = expected["pixel_values"].reshape(-1, *expected["pixel_values"].shape[-3:])
        assert prepared.tensors["pixel_values"].dtype == np.float32
        assert prepared.tensors["pixel_values"].shape == pixels.shape
        assert np.abs(prepared.tensors["pixel_values"] - pixels).max() <= 1e-6 * max(1.0, np.abs(pixels).max())
        if "image_sizes" in expected:
            assert prepared.tensors["image_sizes"].tolist() == expected["image_sizes"][0].tolist()
        tokens = Tokenizer.from_repository(Folder(self.folder, "test")).encode(self.ours.expand(text, [prepared]))
        assert tokens == expected["input_ids"][0].tolist()
        assert tokens.count(self.ours.tokens["image"]) == prepared.rows


def build(config: Mapping[str, Any], folder: Path) -> ours.LlavaProcessor:
    make = ours.llava_next if config["model_type"] == "llava_next" else ours.llava
    repository = Folder(folder, "test")
    return make(normalise(config, "config.json"), repository, Tokenizer.from_repository(repository))


@pytest.fixture(scope="module", params=list(CASES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp(request.param))


def random_picture(height: int, width: int) -> Image.Image:
    random = np.random.default_rng(height * 5003 + width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_random_pictures(made: Made) -> None:
    large = made.config["vision_config"]["image_size"] == 336
    for height, width in SHAPES:
        # transformers makes 450 million pixels of 1 x 4000, to look at 336 x 336 of them.
        if large and (max(height, width) == 4000 or height * width > 1_000_000):
            continue
        made.compare(random_picture(height, width))


@pytest.mark.parametrize("name", FILES)
def test_real_pictures(made: Made, name: str, shared_data: Path) -> None:
    (image,) = open_media(shared_data / "media" / name, "image", MediaLimits()).frames
    made.compare(image)


def test_long_pictures_are_cropped_before_they_are_large(tmp_path: Path) -> None:
    """Of 50 million pixels that transformers makes, the same that it looks at."""
    config = with_vision(LLAVA, image_size=112)
    theirs = save_processor(tmp_path, kind="clip", image=edge(112), **CLS)
    image = random_picture(1, 4000)
    expected = theirs.image_processor(image, return_tensors="np")["pixel_values"]
    found = build(config, tmp_path).prepare(Frames("image", (image,))).tensors["pixel_values"]
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("size", [(1, 32768), (32768, 1)])
@pytest.mark.parametrize("name", ["clip-336", "llava-pad-336", "next-336"])
def test_the_longest_pictures_take_no_more_memory(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    made = Made(name, tmp_path)
    media = Frames("image", (random_picture(*size),))
    if name == "llava-pad-336" and size[0] > size[1]:  # a thousand million pixels of padding, passed row by row
        with pytest.raises(MediaError, match="less elongated"):
            made.ours.prepare(media)
    else:
        assert made.ours.prepare(media).tensors["pixel_values"].shape[2:] == (336, 336)


def test_without_a_crop_pictures_must_be_square(tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28, do_center_crop=False), **CLS)
    made = build(LLAVA, tmp_path)
    assert made.prepare(Frames("image", (random_picture(40, 40),))).rows == 16
    with pytest.raises(MediaError, match="56 x 28"):
        made.prepare(Frames("image", (random_picture(20, 40),)))
    with pytest.raises(MediaError, match="less elongated"):
        made.prepare(Frames("image", (random_picture(1, 1 << 17),)))


def test_counts_of_placeholders_and_pictures(tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    made = build(LLAVA, tmp_path)
    media = [made.prepare(Frames("image", (random_picture(20, 40),)))] * 2
    assert made.expand("a<image>b<image>", media) == f"a{'<image>' * 16}b{'<image>' * 16}"
    for text in ("", "<image>", "<image><image><image>"):
        with pytest.raises(MediaError, match="placeholders"):
            made.expand(text, media)


def test_many_placeholders_take_linear_time(tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    made = build(LLAVA, tmp_path)
    media = [made.prepare(Frames("image", (random_picture(4, 4),)))] * 20_000
    assert len(made.expand("<image>" * len(media), media)) == 16 * 7 * len(media)


def rewrite(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    change(values)
    path.write_text(json.dumps(values))


def published(folder: Path, pictures: Mapping[str, Any], stated: Mapping[str, Any] | None = None) -> None:
    """The layout before transformers 5: two files."""
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").unlink(missing_ok=True)
    if stated is not None:
        (folder / "processor_config.json").write_text(json.dumps(stated))


PUBLISHED_CLIP = {
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 336},
}


@pytest.mark.parametrize("stated", [None, {"processor_class": "LlavaProcessor"}, CLS_14])
def test_the_published_layout(stated: dict[str, Any] | None, tmp_path: Path) -> None:
    theirs = save_processor(tmp_path, kind="clip", image=edge(336), **CLS_14)
    published(tmp_path, PUBLISHED_CLIP, stated)
    image = random_picture(333, 222)
    expected = theirs.image_processor(image, return_tensors="np")["pixel_values"]
    found = build(LARGE, tmp_path).prepare(Frames("image", (image,)))
    assert found.rows == 576
    assert np.abs(found.tensors["pixel_values"] - expected).max() <= 1e-6


def test_old_sizes_are_numbers(tmp_path: Path) -> None:
    theirs = save_processor(tmp_path, kind="clip", image={"size": 28, "crop_size": 28}, **CLS)
    published(tmp_path, {"size": 28, "crop_size": 28, "feature_extractor_type": "CLIPFeatureExtractor"})
    image = random_picture(33, 52)
    expected = theirs.image_processor(image, return_tensors="np")["pixel_values"]
    found = build(LLAVA, tmp_path).prepare(Frames("image", (image,)))
    assert np.abs(found.tensors["pixel_values"] - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "large"),
        ("size", {"height": 28}),
        ("size", {"shortest_edge": 0}),
        ("size", {"shortest_edge": 1 << 40}),
        ("size", {"shortest_edge": True}),
        ("size", {"longest_edge": 28}),
        ("size", {}),
        ("size", [28, 28]),
        ("crop_size", {"height": 28, "width": -28}),
        ("crop_size", {"height": 28, "width": 27}),
        ("crop_size", {"height": 56, "width": 56}),
        ("crop_size", "28"),
        ("resample", 9),
        ("resample", "bicubic"),
        ("resample", True),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", [0.5, 0.5, "x"]),
        ("image_mean", [1e999, 0.5, 0.5]),
        ("image_mean", "mean"),
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_std", 0),
        ("rescale_factor", "1/255"),
        ("rescale_factor", [1]),
        ("do_resize", "yes"),
        ("do_center_crop", 1),
        ("do_normalize", []),
        ("do_rescale", "false"),
        ("do_pad", "true"),
        ("pad_size", {"height": 4000, "width": 4000}),
        ("image_processor_type", "PixtralImageProcessor"),
        ("image_processor_type", "LlavaNextImageProcessor"),
        ("image_processor_type", 7),
    ],
)
def test_malformed_values_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    published(tmp_path, {**edge(28), "image_processor_type": "CLIPImageProcessor", key: value})
    with pytest.raises(ConfigError) as found:
        build(LLAVA, tmp_path)
    assert "preprocessor_config.json" in str(found.value.where)


def test_padding_in_a_colour_that_is_none_is_refused(tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    values = {**edge(28), "image_processor_type": "LlavaImageProcessor", "image_mean": [0.5, 0.5, 7]}
    published(tmp_path, values)
    build(LLAVA, tmp_path)
    published(tmp_path, {**values, "do_pad": True})
    with pytest.raises(ConfigError, match="image_mean"):
        build(LLAVA, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch_size", 14),
        ("patch_size", 0),
        ("patch_size", "7"),
        ("num_additional_image_tokens", 0),
        ("num_additional_image_tokens", -1),
        ("vision_feature_select_strategy", "full"),
        ("vision_feature_select_strategy", 3),
        ("image_processor", "clip"),
        ("image_token", 5),
    ],
)
def test_other_counts_than_the_model_makes_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    rewrite(tmp_path, "processor_config.json", lambda values: values.update({key: value}))
    with pytest.raises(ConfigError):
        build(LLAVA, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"image_grid_pinpoints": [[28, 28]]},
        {"image_grid_pinpoints": [[28, 50]]},
        {"image_grid_pinpoints": "all"},
        {"crop_size": {"height": 14, "width": 14}, "do_center_crop": False},
        {"size": {"shortest_edge": 14}, "do_center_crop": False},
        {"image_processor_type": "CLIPImageProcessor"},
    ],
)
def test_other_tiles_than_the_model_takes_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    save_processor(tmp_path, kind="llava_next", next=True, image=edge(28), **CLS)
    published(tmp_path, {**edge(28), "image_grid_pinpoints": tiny._PINPOINTS})
    assert build(NEXT, tmp_path).prepare(Frames("image", (random_picture(20, 40),))).rows > 16
    published(tmp_path, {**edge(28), "image_grid_pinpoints": tiny._PINPOINTS, **change})
    with pytest.raises(ConfigError):
        build(NEXT, tmp_path)


@pytest.mark.parametrize("change", [{"image_token_index": 5}, {"image_token_index": "130"}])
def test_another_image_token_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    build(
        {**{key: value for key, value in LLAVA.items() if key != "image_token_index"}, "image_token_id": 130}, tmp_path
    )
    with pytest.raises(ConfigError, match="<image>"):
        build({**LLAVA, **change}, tmp_path)


def test_files_that_are_no_objects_are_refused(tmp_path: Path) -> None:
    save_processor(tmp_path, kind="clip", image=edge(28), **CLS)
    for name in ("preprocessor_config.json", "processor_config.json"):
        published(tmp_path, edge(28))
        (tmp_path / name).write_text("[1, 2")
        with pytest.raises(BestiaryError):
            build(LLAVA, tmp_path)
