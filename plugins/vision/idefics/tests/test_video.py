"""Videos for SmolVLM, beside SmolVLMProcessor.

Frames are chosen, sized and spoken of by transformers' own classes.  Only the resizing of bytes is torch's Lanczos
there, as in torchvision from 0.27 on, and Pillow's here: of 255 steps they may differ by two.
"""

from __future__ import annotations

import importlib
import itertools
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from idefics_reference import picture, preprocessor, save_idefics3, save_smolvlm
from PIL import Image

import bestiary
from bestiary.config import normalise
from bestiary.errors import MediaError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.processor import Frames
from bestiary.sources.folder import Folder
from bestiary.testing.conformance import assert_close
from bestiary.testing.reference import make_reference
from bestiary_idefics import processor as ours
from bestiary_idefics.settings import Sampling
from bestiary_idefics.tiny import IDEFICS3, SMOLVLM
from bestiary_idefics.video import watch

SAMPLED = {"video_sampling": {"max_frames": 5, "fps": 1, "video_size": {"longest_edge": 32}}}


def _frames(count: int, height: int, width: int, fps: float | None = None) -> Frames:
    return Frames("video", tuple(Image.fromarray(picture(height, width, seed)) for seed in range(count)), fps)


def _asked(video: Frames) -> dict[str, Any]:
    """The arguments of transformers' processor for it."""
    count = len(video.frames)
    made: dict[str, Any] = {"videos": [np.stack([np.asarray(frame) for frame in video.frames])]}
    if video.fps is None:
        return made
    known = {"total_num_frames": count, "fps": video.fps, "duration": count / video.fps}
    return {**made, "video_metadata": [known], "do_sample_frames": True}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Tokenizer]:
    folder = tmp_path_factory.mktemp("video")
    theirs = save_smolvlm(folder, 4, preprocessor(16, 64, **SAMPLED))
    repository = Folder(folder, "test/model")
    tokenizer = Tokenizer.from_repository(repository)
    return theirs, ours.smolvlm(normalise(SMOLVLM[0], ""), repository, tokenizer), tokenizer


@pytest.mark.parametrize(
    "video",
    [
        _frames(1, 20, 30),
        _frames(3, 16, 16),
        _frames(7, 200, 33),
        _frames(1, 20, 30, 25.0),
        _frames(9, 40, 40, 3.0),
        _frames(40, 9, 50, 2.5),
        _frames(90, 8, 8, 0.5),
        _frames(130, 4, 4, 29.97),
    ],
    ids=lambda video: f"{len(video.frames)} at {video.fps}",
)
def test_videos(pair: tuple[Any, Any, Tokenizer], video: Frames) -> None:
    theirs, processor, tokenizer = pair
    text = "Watch: <video>what?"
    expected = theirs(text=[text], return_tensors="np", **_asked(video))
    prepared = processor.prepare(video)
    assert tokenizer.encode(processor.expand(text, [prepared])) == expected["input_ids"][0].tolist()
    pixels = prepared.tensors["pixel_values"]
    assert pixels.shape == expected["pixel_values"][0].shape and prepared.rows == 4 * len(pixels)
    assert np.abs(pixels - expected["pixel_values"][0]).max() <= 2.01 / 127.5
    assert np.abs(pixels - expected["pixel_values"][0]).mean() <= 0.5 / 127.5


def test_sampling_is_that_of_transformers() -> None:
    module = importlib.import_module("transformers.models.smolvlm.video_processing_smolvlm")
    choose = module.SmolVLMVideoProcessor.sample_frames
    frame = Image.fromarray(picture(1, 1))
    for count, fps, most, rate in itertools.product(
        (1, 2, 3, 29, 100, 733), (0.3, 1.0, 24.0, 29.97), (1, 4, 64), (0.5, 1.0, 2.0)
    ):
        known = module.VideoMetadata(total_num_frames=count, fps=fps, duration=count / fps)
        expected = choose(SimpleNamespace(num_frames=most, fps=rate), known)
        made = watch(Frames("video", (frame,) * count, fps), Sampling(most, rate))
        assert made.indices.tolist() == expected.tolist(), (count, fps, most, rate)


def test_all_frames_without_a_rule(tmp_path: Path) -> None:
    save_smolvlm(tmp_path, 4, preprocessor(16, 64))
    repository = Folder(tmp_path, "test/model")
    processor = ours.smolvlm(normalise(SMOLVLM[0], ""), repository, Tokenizer.from_repository(repository))
    prepared = processor.prepare(_frames(130, 4, 4, 1.0))
    assert len(prepared.tensors["pixel_values"]) == 130
    text = processor.expand("<video>", [prepared])
    assert text.startswith("You are provided the following series of one hundred and thirty frames from a 0:02:10 [H:")
    assert re.findall("Frame from (.....):", text)[-1] == "02:09"


class TestWatching:
    """A checkpoint that answers about videos."""

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("watching")
        reference = make_reference(SMOLVLM[0], folder)
        # Frames of the size of a tile are resized by nobody, so that pixels are equal.
        theirs = save_smolvlm(folder, 4, preprocessor(16, 16, **SAMPLED))
        with bestiary.load(str(folder), dtype="float32", device="cpu", cache_tokens=4096, progress=False) as pipe:
            yield SimpleNamespace(reference=reference, theirs=theirs, pipe=pipe)

    @pytest.mark.parametrize(("count", "fps"), [(1, None), (9, 2.0), (40, None)])
    def test_logits_and_answers_equal_the_reference(self, opened: Any, count: int, fps: float | None) -> None:
        video = _frames(count, 16, 16, fps)
        given = list(video.frames) if fps is None else {"frames": list(video.frames), "fps": fps}
        text = "Watch: <video>what?"
        inputs = opened.theirs(text=[text], return_tensors="pt", **_asked(video))
        with torch.no_grad():
            theirs = opened.reference.model(**inputs)
            made = opened.reference.model.generate(
                **inputs, do_sample=False, min_new_tokens=8, max_new_tokens=8, eos_token_id=None, pad_token_id=0
            )
        assert_close(opened.pipe.score(text, videos=[given]), theirs.logits[0].float(), 1e-5)
        answer = opened.pipe.generate(text, videos=[given], temperature=0.0, max_tokens=8, ignore_eos=True)
        assert list(answer.tokens) == made[0, inputs["input_ids"].shape[1] :].tolist()

    def test_a_chat_with_pictures_and_videos(self, opened: Any) -> None:
        """Each stands where its message has it: the same as the text with its media in that order."""
        film, photo = list(_frames(3, 16, 16).frames), Image.fromarray(picture(20, 40, 9))
        content = [{"type": "video", "video": film}, {"type": "image", "image": photo}, {"type": "text", "text": "Hm?"}]
        options = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True}
        answer = opened.pipe.chat([{"role": "user", "content": content}], **options)
        prepared = opened.pipe.media.read([("video", film), ("image", photo)])
        prompt = opened.pipe.media.expand(prepared)("<|im_start|>User: <video><image>Hm?<end_of_utterance>\nAssistant:")
        tokens = opened.pipe.tokenizer.encode(prompt)
        placed = opened.pipe.media.place(tokens, prepared)
        again = opened.pipe._start(tokens, dict(options), None, media=placed)
        assert list(answer.tokens) == [token for chunk in again for token in chunk.tokens]
        assert [len(each.places) for each in placed.placed] == [12, prepared[1].rows]

    def test_another_order_than_the_placeholders_is_refused(self, opened: Any) -> None:
        film, photo = list(_frames(2, 16, 16).frames), Image.fromarray(picture(20, 40, 9))
        generate = partial(opened.pipe.generate, images=[photo], videos=[film], max_tokens=1)
        assert len(generate("<image> and <video>").tokens) == 1
        with pytest.raises(MediaError, match="order"):
            generate("<video> and <image>")
        for text in ("<image>", "<video>", "<image><video><video>", "<image><image><video>"):
            with pytest.raises(MediaError, match="placeholders"):
                generate(text)


def test_idefics3_takes_no_videos(tmp_path: Path) -> None:
    make_reference(IDEFICS3[0], tmp_path)
    save_idefics3(tmp_path, 4, preprocessor(16, 32))
    with bestiary.load(str(tmp_path), dtype="float32", device="cpu", progress=False) as pipe:
        assert pipe.media.kinds == ("image",)
        with pytest.raises(MediaError, match="no videos"):
            pipe.generate("<video>", videos=[list(_frames(2, 16, 16).frames)])
