"""Files of a checkpoint that are wrong, absent, or of another version of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idefics_reference import NAMED, picture, preprocessor, save_idefics3, save_tokenizer
from PIL import Image

from bestiary.config import Config, normalise
from bestiary.errors import ConfigError, MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.processor import Frames
from bestiary.sources.folder import Folder
from bestiary_idefics import processor as ours
from bestiary_idefics.settings import Pixels, ProcessorSettings, Sampling, processor_settings
from bestiary_idefics.tiny import IDEFICS3, SMOLVLM
from bestiary_idefics.video import watch

_NAN = float("nan")
_HUGE = 10**400

WRONG: dict[str, list[Any]] = {
    "size": [
        *(7, "1456", [], {}, {"height": 5}, {"height": 1 << 20, "width": 1}, {"height": True, "width": True}),
        *({"longest_edge": edge} for edge in (0, "9", 2.5, 1 << 30)),
    ],
    "max_image_size": [512, {}, {"height": 4}, *({"longest_edge": edge} for edge in (0, -4, 3, 1 << 40, _HUGE))],
    "resample": [-1, 99, "lanczos", 1.0, True],
    "rescale_factor": ["1/255", _NAN, float("inf"), [1], _HUGE],
    "image_mean": ["0.5", [0.5], [0.5] * 4, [0.5, 0.5, None], [_NAN] * 3, [_HUGE] * 3, {}],
    "image_std": [0, 0.0, [0.5, 0.5, 0], [1e-30] * 3, [True] * 3],
    "do_resize": [1, "true", []],
    "do_rescale": ["no"],
    "do_normalize": [0],
    "do_image_splitting": ["yes"],
    "video_sampling": [
        *(1, [], {}, {"max_frames": 4}, {"fps": 1}),
        *({"max_frames": frames, "fps": fps} for frames, fps in ((0, 1), (1.5, 1), (4, 0), (4, _NAN), (4, "1"))),
    ],
    "num_frames": [0, "4", True],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path)
    _write(tmp_path, "preprocessor_config.json", preprocessor(16, 32))
    _write(tmp_path, "processor_config.json", {"image_seq_len": 4})
    return tmp_path


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def _read(folder: Path) -> ProcessorSettings:
    return processor_settings(Folder(folder, "test/model"), Config({}, "config.json"))


def _build(folder: Path, config: dict[str, Any] = SMOLVLM[0]) -> ours.IdeficsProcessor:
    repository = Folder(folder, "test/model")
    return ours.smolvlm(normalise(config, "config.json"), repository, Tokenizer.from_repository(repository))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_values_are_named(folder: Path, name: str, value: Any) -> None:
    _write(folder, "preprocessor_config.json", {**preprocessor(16, 32), name: value})
    with pytest.raises(ConfigError) as found:
        _build(folder)
    assert name in str(found.value) or "tile" in str(found.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"text"', "[" * 100_000])
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_files_that_are_no_objects(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ConfigError):
        _build(folder)


@pytest.mark.parametrize("rows", [0, -1, 5, "4", 4.0, True, 1 << 60])
def test_tokens_of_a_tile_are_those_that_the_model_makes(folder: Path, rows: Any) -> None:
    _write(folder, "processor_config.json", {"image_seq_len": rows})
    with pytest.raises(ConfigError, match="image_seq_len"):
        _build(folder)


def test_the_token_of_pictures_is_that_of_the_model(folder: Path) -> None:
    with pytest.raises(ConfigError, match="image_token_id"):
        _build(folder, {**SMOLVLM[0], "image_token_id": 5})
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_token": "<picture>"}))
    with pytest.raises(ConfigError, match="<picture>"):
        _build(folder)


@pytest.mark.parametrize("value", [5, "", "x" * 257, [], {"content": 4}])
def test_names_of_tokens_are_texts(folder: Path, value: Any) -> None:
    _write(folder, "tokenizer_config.json", {"image_token": value})
    with pytest.raises(ConfigError, match="image_token"):
        _read(folder)


def test_tiles_that_are_not_cut_evenly(folder: Path) -> None:
    _write(folder, "preprocessor_config.json", preprocessor(20, 40))  # 5 patches a side, by twos
    with pytest.raises(ConfigError, match="tile of 20 pixels"):
        _build(folder)


def test_what_files_leave_out_is_what_transformers_takes(tmp_path: Path) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    theirs = Idefics3ImageProcessorPil()
    save_tokenizer(tmp_path)
    settings = _read(tmp_path)
    expected = Pixels(
        theirs.size["longest_edge"],
        None,
        theirs.max_image_size["longest_edge"],
        int(theirs.resample),
        tuple(theirs.image_mean),
        tuple(theirs.image_std),
        theirs.rescale_factor,
    )
    assert settings.image == settings.video == expected and settings.splitting == theirs.do_image_splitting
    assert settings.sampling is None and settings.rows is None
    assert settings.marks == {**NAMED, "video_token": "<video>"}
    # Then the length is what the model makes of a tile, as that of the class is the one of Idefics3-8B.
    vision = {**IDEFICS3[0]["vision_config"], "image_size": 364, "patch_size": 14}
    config = normalise({**IDEFICS3[0], "vision_config": vision}, "config.json")
    repository = Folder(tmp_path, "test/model")
    made = ours.idefics3(config, repository, Tokenizer.from_repository(repository))
    prepared = made.prepare(Frames("image", (Image.fromarray(picture(5, 5)),)))
    assert made.expand("<image>", [prepared]).count("<image>") == 17 * 169


def test_files_of_transformers_5(tmp_path: Path) -> None:
    """All values are in processor_config.json there."""
    theirs = save_idefics3(tmp_path, 4, preprocessor(16, 48, image_mean=[0.1, 0.2, 0.3]))
    before = _read(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    theirs.save_pretrained(tmp_path)
    assert "image_processor" in json.loads((tmp_path / "processor_config.json").read_text())
    after = _read(tmp_path)
    assert (after.image, after.splitting, after.rows) == (before.image, before.splitting, before.rows)


def test_where_the_values_of_videos_are(folder: Path) -> None:
    def read() -> tuple[int | None, Sampling | None]:
        settings = _read(folder)
        return settings.video.longest_edge, settings.sampling

    sampling = {"max_frames": 8, "fps": 2, "video_size": {"longest_edge": 24}}
    values = preprocessor(16, 32, video_sampling=sampling)
    _write(folder, "preprocessor_config.json", values)
    assert read() == (32, Sampling(8, 2.0))  # as SmolVLMVideoProcessor, for which the size of pictures goes before
    del values["size"]
    _write(folder, "preprocessor_config.json", values)
    assert read() == (24, Sampling(8, 2.0))
    _write(folder, "video_preprocessor_config.json", {**preprocessor(16, 40), "num_frames": 3, "fps": 0.5})
    assert read() == (40, Sampling(3, 0.5))
    _write(folder, "processor_config.json", {"image_seq_len": 4, "video_processor": preprocessor(16, 28)})
    assert read() == (28, None)


def test_frames_that_are_not_resized(folder: Path) -> None:
    _write(folder, "video_preprocessor_config.json", {**preprocessor(16, 32), "do_resize": False})
    processor = _build(folder)
    fitting = Frames("video", (Image.fromarray(picture(16, 16)),))
    assert processor.prepare(fitting).tensors["pixel_values"].shape == (1, 3, 16, 16)
    with pytest.raises(MediaError, match="16 x 16"):
        processor.prepare(Frames("video", (Image.fromarray(picture(16, 17)),)))


def test_a_video_of_a_thousand_years() -> None:
    frame = Image.fromarray(np.zeros((1, 1, 3), np.uint8))
    for fps in (1e-9, 1e-300, 5e-324):
        with pytest.raises(MediaError, match="too long"):
            watch(Frames("video", (frame, frame), fps), Sampling(4, 1.0))
