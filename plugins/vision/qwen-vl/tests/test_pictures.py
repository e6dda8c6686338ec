"""Pictures as patches and tokens, against transformers' PIL processor."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen_vl_reference import Qwen25, image_processor, tokenizer

from bestiary.config import normalise
from bestiary.errors import ConfigError, MediaError, TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames
from bestiary.protocols import Repository
from bestiary.sources.folder import Folder
from bestiary_qwen_vl import processor
from bestiary_qwen_vl.processor import QwenProcessor

SIZES = [
    *((1, 1), (1, 200), (200, 1), (28, 28), (14, 14), (29, 27), (56, 56), (333, 77), (640, 480)),
    *((42, 42), (70, 98), (99, 3), (1500, 1111), (2800, 14), (4000, 20), (3000, 3000)),
]
LONG = [(1, 400), (4000, 1), (1, 4000), (201, 1)]
PHOTOS = ("bike.jpg", "australia.jpg", "mtmd_newspaper.jpeg", "test_colors.jpg", "exceltable.png")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"min_pixels": 3136, "max_pixels": 100352},
    {"size": {"shortest_edge": 784, "longest_edge": 50176}, "resample": 2, "image_mean": 0.5, "image_std": [1, 2, 3]},
    {"do_rescale": False, "patch_size": 7, "temporal_patch_size": 3, "merge_size": 3},
    {"do_normalize": False, "min_pixels": 200704, "rescale_factor": 1 / 127.5},
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(folder)
    return Tokenizer.from_repository(Folder(folder, "test"))


@pytest.fixture
def build(tmp_path: Path, tokens: Tokenizer) -> Callable[..., QwenProcessor]:
    """The processor of Qwen2.5-VL with these files in its repository, and a tower that takes these patches."""

    def made(vision: dict[str, Any] | None = None, **files: Any) -> QwenProcessor:
        for name, values in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(values, default=list))
        tower = {"hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, **(vision or {})}
        config = normalise({"hidden_size": 64, "num_attention_heads": 4, "vision_config": tower}, "here")
        repository: Repository = Folder(tmp_path, "test")
        return processor.qwen2_5_vl(config, repository, tokens)

    return made


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def of(picture: Image.Image) -> Frames:
    return Frames("image", (picture,))


def assert_same(made: Prepared, theirs: Any) -> None:
    assert made.tensors["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
    ours, expected = made.tensors["pixel_values"], np.asarray(theirs["pixel_values"])
    assert ours.shape == expected.shape and ours.dtype == np.float32
    assert float(np.abs(ours - expected).max()) <= 2e-6 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("settings", SETTINGS, ids=range(len(SETTINGS)))
def test_pictures_of_many_sizes(build: Callable[..., QwenProcessor], settings: dict[str, Any]) -> None:
    theirs = image_processor({}, **settings)
    cuts = {key: settings[key] for key in ("patch_size", "temporal_patch_size") if key in settings}
    ours = build({**cuts, "spatial_merge_size": settings.get("merge_size", 2)}, preprocessor_config=theirs.to_dict())
    for number, size in enumerate(SIZES):
        picture = noise(*size, number)
        assert_same(ours.prepare(of(picture)), theirs([picture]))
    for size in LONG:
        with pytest.raises(ValueError, match="aspect ratio"):
            theirs([noise(*size)])
        with pytest.raises(MediaError, match="200 times"):
            ours.prepare(of(noise(*size)))


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs(build: Callable[..., QwenProcessor], shared_data: Path, name: str) -> None:
    published = json.loads(
        (shared_data / "checkpoints/configs-sophgo/qwen2-vl-7b/preprocessor_config.json").read_text()
    )
    with Image.open(shared_data / "media" / name) as file:
        picture = file.convert("RGB")
    theirs = image_processor({}, min_pixels=published["min_pixels"], max_pixels=published["max_pixels"])
    assert_same(build(preprocessor_config=published).prepare(of(picture)), theirs([picture]))


def test_files_in_their_order(build: Callable[..., QwenProcessor], tmp_path: Path) -> None:
    """Without any file the defaults, then the oldest, then the newest."""
    assert (build().image.least, build().image.most) == (3136, 28 * 28 * 1280)
    assert (build().video.picture.least, build().video.picture.most) == (128 * 28 * 28, 28 * 28 * 768)
    made = build(
        preprocessor_config={"size": {"min_pixels": 10, "max_pixels": 99}, "max_pixels": 98, "do_resize": None}
    )
    assert (made.image.least, made.image.most) == (made.video.picture.least, made.video.picture.most) == (10, 98)
    made = build(video_preprocessor_config={"fps": 4, "num_frames": 6})
    assert (made.image.most, made.video.picture.most, made.video.fps) == (98, 28 * 28 * 768, 4.0)
    newest = {"image_processor": {"resample": 0}, "video_processor": {"min_frames": 2}, "processor_class": "any"}
    made = build(processor_config=newest)
    assert (made.image.resample, made.image.most, made.video.least_frames) == (0, 28 * 28 * 1280, 2)
    build(processor_config={"processor_class": "any"})


@pytest.mark.parametrize(
    "values",
    [
        {"min_pixels": 0},
        {"min_pixels": "3136"},
        {"max_pixels": 1e6},
        {"max_pixels": True},
        {"max_pixels": 1 << 40},
        {"min_pixels": 5000, "max_pixels": 4000},
        {"size": {"height": 224, "width": 224}},
        {"size": [224]},
        {"size": {"shortest_edge": 224}},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": [0.5, 0.5, "0.5"]},
        {"image_mean": True},
        {"image_std": [0.5, 0.5, 0]},
        {"image_std": 1e-300},
        {"image_mean": float("nan")},
        {"rescale_factor": 0},
        {"rescale_factor": float("inf")},
        {"resample": 9},
        {"resample": "3"},
        {"resample": [3]},
        {"do_resize": 1},
        {"do_normalize": "false"},
        {"patch_size": 16},
        {"patch_size": {"height": 14}},
        {"merge_size": 0},
        {"temporal_patch_size": -2},
    ],
    ids=str,
)
def test_impossible_values_are_refused(build: Callable[..., QwenProcessor], values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(preprocessor_config=values)
    with pytest.raises(ConfigError):
        build(preprocessor_config={}, video_preprocessor_config=values)


def test_a_file_that_is_no_object_is_refused(build: Callable[..., QwenProcessor]) -> None:
    with pytest.raises(ConfigError):
        build(preprocessor_config=[1])


def test_a_tokenizer_without_the_tokens_is_refused(tmp_path: Path) -> None:
    blind: Any = SimpleNamespace(special_tokens={}, id=lambda token: None)
    config = normalise({"hidden_size": 3584, "num_attention_heads": 4, "vision_config": {}}, "here")
    with pytest.raises(TokenizerError, match="image_pad"):
        processor.qwen2_vl(config, Folder(tmp_path, "test"), blind)


def test_a_picture_that_is_not_to_be_resized(build: Callable[..., QwenProcessor]) -> None:
    ours = build(preprocessor_config={"do_resize": False})
    theirs = image_processor({}, do_resize=False)
    assert_same(ours.prepare(of(noise(56, 84))), theirs([noise(56, 84)]))
    with pytest.raises(MediaError, match="multiples of 28"):
        ours.prepare(of(noise(56, 83)))


# Text


def test_placeholders_become_rows_as_transformers_has_them(
    build: Callable[..., QwenProcessor], tokens: Tokenizer
) -> None:
    ours, theirs = build(), Qwen25(image_processor({}), tokenizer(), None)
    pictures = [noise(90, 60), noise(30, 300), noise(5, 5)]
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    for text in (f"{mark}{mark} and {mark}", f"one <|image_pad|>{mark}\n\n<|image_pad|> two"):
        media = [ours.prepare(of(picture)) for picture in pictures]
        inputs = theirs(text=[text], images=[pictures])
        assert tokens.encode(ours.expand(text, media)) == inputs["input_ids"][0]


def test_counts_that_differ_are_refused(build: Callable[..., QwenProcessor]) -> None:
    ours = build()
    picture, video = ours.prepare(of(noise(28, 28))), ours.prepare(Frames("video", (noise(28, 28),) * 2))
    assert (picture.rows, video.rows) == (4, 144)
    for text, media in (
        ("<|image_pad|>", []),
        ("", [picture]),
        ("<|image_pad|><|image_pad|>", [picture]),
        ("<|image_pad|>", [video]),
        ("<|video_pad|>", [picture]),
        ("<|image_pad|><|video_pad|>", [picture]),
    ):
        with pytest.raises(MediaError):
            ours.expand(text, media)
    made = ours.expand("a<|video_pad|>b<|image_pad|>c", [picture, video])
    assert made == f"a{'<|video_pad|>' * video.rows}b{'<|image_pad|>' * 4}c"


def test_expansion_is_linear(build: Callable[..., QwenProcessor]) -> None:
    ours = build()
    picture = ours.prepare(of(noise(28, 28)))
    made = ours.expand("x<|image_pad|>" * 20_000 + "<|image_pa" * 20_000, [picture] * 20_000)
    assert len(made) == 20_000 * (1 + 4 * len("<|image_pad|>")) + 20_000 * len("<|image_pa")
