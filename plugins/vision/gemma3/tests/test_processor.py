"""Pictures and texts for Gemma 3 against transformers' processor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gemma3_processor import save_processor
from PIL import Image

from bestiary.config import normalise
from bestiary.errors import ConfigError, MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.opening import open_media
from bestiary.media.processor import Frames
from bestiary.media.prompt import place_media
from bestiary.sources.folder import Folder
from bestiary_gemma3 import DEFAULTS
from bestiary_gemma3.processor import Gemma3Processor, build
from bestiary_gemma3.tiny import GEMMA3

TINY = GEMMA3[0]
LARGE = {**TINY, "mm_tokens_per_image": 256, "vision_config": {**TINY["vision_config"], "image_size": 896}}
SIZES = [
    *((1, 1), (1, 4000), (4000, 1), (1, 400), (400, 1), (2, 3), (300, 300), (896, 896), (897, 895), (640, 480)),
    *((307, 256), (308, 256), (256, 308), (640, 256), (641, 257), (257, 900), (1500, 300), (5000, 700), (3000, 3001)),
]
MEDIA = ("bike.jpg", "australia.jpg", "mtmd_newspaper.jpeg", "test_colors.jpg", "exceltable.png")
SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 256,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}


class Pair:
    """Our processor, and the one of transformers that wrote its files."""

    def __init__(self, folder: Path, config: dict[str, Any], **settings: Any) -> None:
        self.theirs, self.settings = save_processor(folder, config, **settings), settings
        self.tokenizer = Tokenizer.from_repository(Folder(folder, "test/model"))
        self.ours = _ours(folder, config)

    def compare(self, text: str, pictures: list[Image.Image]) -> int:
        """Assert that both make the same of a prompt; returns how many squares they make of its pictures."""
        due = self.theirs(text=[text], images=[pictures], return_tensors="np", **self.settings)
        media = [self.ours.prepare(open_media(picture, "image")) for picture in pictures]
        tokens = self.tokenizer.encode(self.ours.expand(text, media))
        assert tokens == due["input_ids"][0].tolist()
        pixels = np.concatenate([medium.tensors["pixel_values"] for medium in media])
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, due["pixel_values"], rtol=0, atol=1e-6)
        runs = place_media(tokens, media, self.ours).runs
        steps = np.diff(np.pad(due["token_type_ids"][0], 1))
        starts, ends = (np.flatnonzero(steps == step).tolist() for step in (1, -1))
        assert runs == tuple(zip(starts, ends, strict=True))
        return len(pixels)


def _ours(folder: Path, config: dict[str, Any]) -> Gemma3Processor:
    repository = Folder(folder, "test/model")
    return build(normalise(config, "config.json", DEFAULTS), repository, Tokenizer.from_repository(repository))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """The processors of full size, without pan and scan or with it."""
    made = {
        name: Pair(tmp_path_factory.mktemp(name), LARGE, **settings)
        for name, settings in (("whole", {}), ("scan", SCAN))
    }
    return made.__getitem__


@pytest.mark.parametrize("kind", ["whole", "scan"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_equal_the_reference(pair: Callable[[str], Pair], kind: str, size: tuple[int, int]) -> None:
    wide, high = size
    random = np.random.default_rng(wide * high)
    picture = Image.fromarray(random.integers(0, 256, (high, wide, 3), dtype=np.uint8))
    count = pair(kind).compare("<start_of_image>", [picture])
    assert count == 1 or kind == "scan"


@pytest.mark.parametrize("kind", ["whole", "scan"])
@pytest.mark.parametrize("name", MEDIA)
def test_files_equal_the_reference(pair: Callable[[str], Pair], shared_data: Path, kind: str, name: str) -> None:
    with Image.open(shared_data / "media" / name) as picture:
        pair(kind).compare("See <start_of_image>.", [picture.convert("RGB")])


def test_several_pictures_of_which_some_are_cut(pair: Callable[[str], Pair]) -> None:
    random = np.random.default_rng(0)
    pictures = [
        Image.fromarray(random.integers(0, 256, (high, wide, 3), dtype=np.uint8))
        for wide, high in ((900, 256), (300, 300), (256, 1100))
    ]
    text = "<start_of_image><start_of_image> and\n\n<start_of_image>\n\nwhy? \N{OX}"
    assert pair("scan").compare(text, pictures) == 1 + 3 + 1 + 1 + 4
    assert pair("whole").compare(text, pictures) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"resample": 3},
        {"resample": 0},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 128},
        {**SCAN, "pan_and_scan_min_crop_size": 10, "pan_and_scan_max_num_crops": 2},
        {**SCAN, "pan_and_scan_min_crop_size": 10, "pan_and_scan_max_num_crops": 1},
        {**SCAN, "pan_and_scan_min_crop_size": 3, "pan_and_scan_min_ratio_to_activate": 0.5},
        {**SCAN, "pan_and_scan_min_crop_size": 1, "pan_and_scan_max_num_crops": 12},
    ],
    ids=str,
)
def test_settings_equal_the_reference(tmp_path: Path, settings: dict[str, Any]) -> None:
    pair = Pair(tmp_path, TINY, **settings)
    random = np.random.default_rng(1)
    for wide, high in ((30, 20), (20, 31), (56, 56), (100, 11)):
        picture = Image.fromarray(random.integers(0, 256, (high, wide, 3), dtype=np.uint8))
        pair.compare("a <start_of_image> b", [picture])


def test_a_part_without_pixels_is_black_as_that_of_the_reference(tmp_path: Path) -> None:
    pair = Pair(tmp_path, TINY, **{**SCAN, "pan_and_scan_min_crop_size": 1, "pan_and_scan_max_num_crops": 12})
    # In twelve parts of two pixels each.
    assert pair.compare("<start_of_image>", [Image.new("RGB", (13, 1), (99, 9, 9))]) == 13


def test_a_picture_that_may_not_be_resized(tmp_path: Path) -> None:
    pair = Pair(tmp_path, TINY, do_resize=False)
    pair.compare("<start_of_image>", [Image.new("RGB", (56, 56), (1, 2, 3))])
    with pytest.raises(MediaError):
        pair.ours.prepare(Frames("image", (Image.new("RGB", (56, 57)),)))


def test_files_that_say_nothing_mean_the_model(tmp_path: Path) -> None:
    """Null is as good as absent, and the older files count where there is no newer one."""
    theirs = save_processor(tmp_path, LARGE)
    newer = json.loads((tmp_path / "processor_config.json").read_text())
    picture = Frames("image", (Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50).convert("RGB"),))
    due = theirs(text=["<start_of_image>"], images=[list(picture.frames)], return_tensors="np")["pixel_values"]
    older: tuple[dict[str, Any], ...] = ({}, dict.fromkeys(newer["image_processor"]), newer["image_processor"])
    (tmp_path / "processor_config.json").write_text('{"image_seq_length": 256}')
    for values in older:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
        made = _ours(tmp_path, LARGE).prepare(picture)
        np.testing.assert_allclose(made.tensors["pixel_values"], due, rtol=0, atol=1e-6)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (tmp_path / name).unlink()
        assert _ours(tmp_path, LARGE).prepare(picture).digest == made.digest


def test_a_vocabulary_without_the_token_of_rows(tmp_path: Path) -> None:
    """Of a text model whose embedding ends before it, the pad token takes its place."""
    save_processor(tmp_path, TINY)
    short = {**TINY, "text_config": {**TINY["text_config"], "vocab_size": 8}}
    ours, picture = _ours(tmp_path, short), Frames("image", (Image.new("RGB", (3, 3)),))
    assert ours.tokens == {"image": 0}
    assert ours.expand("<start_of_image>", [ours.prepare(picture)]) == (
        "\n\n<start_of_image><pad><pad><pad><pad><end_of_image>\n\n"
    )


@pytest.mark.parametrize(("text", "count"), [("", 1), ("<start_of_image>", 2), ("<start_of_image>" * 2, 1)])
def test_counts_that_differ(tmp_path: Path, text: str, count: int) -> None:
    save_processor(tmp_path, TINY)
    ours = _ours(tmp_path, TINY)
    medium = ours.prepare(Frames("image", (Image.new("RGB", (3, 3)),)))
    with pytest.raises(MediaError):
        ours.expand(text, [medium] * count)
    # The token of a row in a text is no row of a picture.
    written = ours.expand("<image_soft_token><start_of_image>", [medium])
    with pytest.raises(MediaError):
        place_media(Tokenizer.from_repository(Folder(tmp_path, "test/model")).encode(written), [medium], ours)


NAN, INFINITE = float("nan"), float("inf")
BAD: dict[str, tuple[Any, ...]] = {
    "size": (55, True, "56", [56, 56], {}, {"height": 56}, {"height": 56, "width": 57}, {"shortest_edge": 56}),
    "do_resize": (1, "true", []),
    "do_pan_and_scan": (1, "no", {}),
    "resample": (-1, 99, 2.0, True, "bilinear", 1 << 80),
    "rescale_factor": ("x", True, NAN, INFINITE, 10**400, [1]),
    "image_mean": ("x", [0.5], [0.5] * 4, [0.5, 0.5, None], NAN, [True] * 3, {}),
    "image_std": (0, [0.5, 0.5, 0], [0.5, 0.5, INFINITE], 10**400),
    "pan_and_scan_min_crop_size": (0, -1, 1.5, "256", True),
    "pan_and_scan_max_num_crops": (0, -1, 65, 2.0, "4", True),
    "pan_and_scan_min_ratio_to_activate": (-1, "1.2", NAN, True),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values], ids=str)
def test_malformed_values_are_config_errors(tmp_path: Path, key: str, value: Any) -> None:
    save_processor(tmp_path, TINY)
    path = tmp_path / "processor_config.json"
    written = json.loads(path.read_text())
    written["image_processor"][key] = value
    path.write_text(json.dumps(written))
    with pytest.raises(ConfigError) as found:
        _ours(tmp_path, TINY)
    assert key in str(found.value) and found.value.where


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"image_processor": 3}', '{"image_seq_length": 5}', '{"image_seq_length": "4"}']
)
def test_malformed_files_are_config_errors(tmp_path: Path, text: str) -> None:
    save_processor(tmp_path, TINY)
    (tmp_path / "processor_config.json").write_text(text)
    with pytest.raises(ConfigError):
        _ours(tmp_path, TINY)


def test_a_tokenizer_without_the_tokens_of_pictures(tmp_path: Path) -> None:
    save_processor(tmp_path, TINY)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<end_of_image>", "<somewhere>"))
    path = tmp_path / "tokenizer_config.json"
    written = {key: value for key, value in json.loads(path.read_text()).items() if key != "eoi_token"}
    path.write_text(json.dumps(written))
    with pytest.raises(ConfigError):
        _ours(tmp_path, TINY)
