"""Videos: which frames are looked at, and logits against transformers'.

transformers' video processor needs torchvision; here its numbers come from its processor of pictures, frame by frame,
which has the same pixels but for torchvision's rounding (at most two of 255, on 1e-4 of an average).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_reference import image_processor, save

import bestiary
from bestiary.media.processor import Frames
from bestiary.testing.conformance import assert_close
from bestiary.testing.reference import Reference, make_reference
from bestiary_qwen_vl.sampling import sampled
from bestiary_qwen_vl.settings import PictureSettings, VideoSettings
from bestiary_qwen_vl.tiny import QWEN2_5_VL, QWEN2_VL

IMAGE, VIDEO = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
PIXELS = {"min_pixels": 500, "max_pixels": 3000}


def frames(count: int, width: int = 40, height: int = 31, seed: int = 0) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]


class Case:
    """A tiny checkpoint that has seen nothing yet, and transformers' answers about videos."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.config = config
        self.reference: Reference = make_reference(config, folder)
        self.processor = save(config, folder, **PIXELS)
        self.moments = config["vision_config"].get("temporal_patch_size", 2)
        self.pipe = bestiary.load(str(folder), dtype="float32", device="cpu", cache_tokens=4096, progress=False)

    def inputs(
        self, text: str, images: Sequence[Image.Image], videos: Sequence[tuple[list[Image.Image], float]]
    ) -> dict[str, Any]:
        """What transformers' model takes; of each video the frames that are looked at, and frames a second."""
        made: dict[str, Any] = {}
        merge = self.processor.image_processor.merge_size**2
        if images:
            made.update(self.processor.image_processor(list(images), return_tensors="pt"))
            text = self._expanded(text, "<|image_pad|>", made["image_grid_thw"], merge)
        if videos:
            parts = [self._video(each) for each, _ in videos]
            made["pixel_values_videos"] = torch.cat([patches for patches, _ in parts])
            made["video_grid_thw"] = torch.stack([grid for _, grid in parts])
            text = self._expanded(text, "<|video_pad|>", made["video_grid_thw"], merge)
            if self.config["model_type"] == "qwen2_5_vl":
                made["second_per_grid_ts"] = torch.tensor([self.moments / fps for _, fps in videos])
        tokens = torch.tensor([self.processor.tokenizer(text)["input_ids"]])
        kinds = (tokens == 262).int() + 2 * (tokens == 263).int()
        return {**made, "input_ids": tokens, "mm_token_type_ids": kinds}

    def _expanded(self, text: str, mark: str, grids: torch.Tensor, merge: int) -> str:
        first, *rest = text.split(mark)
        counts = (grids.prod(-1) // merge).tolist()
        return first + "".join(mark * count + part for count, part in zip(counts, rest, strict=True))

    def _video(self, frames: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of one frame each, joined."""
        frames = frames + [frames[-1]] * (-len(frames) % self.moments)
        alone = image_processor({**self.config["vision_config"], "temporal_patch_size": 1}, **PIXELS)
        made = alone(frames, return_tensors="pt")
        (_, height, width), time = made["image_grid_thw"][0].tolist(), len(frames) // self.moments
        pixels = made["pixel_values"].view(time, self.moments, height * width, 3, -1)
        return pixels.permute(0, 2, 3, 1, 4).reshape(time * height * width, -1), torch.tensor([time, height, width])

    def logits(self, inputs: dict[str, Any]) -> torch.Tensor:
        self.reference.model.model.rope_deltas = None
        with torch.no_grad():
            return self.reference.model(**inputs).logits[0].float()  # type: ignore[no-any-return]

    def greedy(self, inputs: dict[str, Any], count: int = 8) -> list[int]:
        self.reference.model.model.rope_deltas = None
        with torch.no_grad():
            made = self.reference.model.generate(
                **inputs, do_sample=False, min_new_tokens=count, max_new_tokens=count, eos_token_id=None, pad_token_id=0
            )
        return made[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[no-any-return]

    def answer(self, ask: Any, prompt: Any, **media: Any) -> list[int]:
        return [int(token) for token in ask(prompt, temperature=0.0, max_tokens=8, ignore_eos=True, **media).tokens]


@pytest.fixture(
    scope="module",
    params=[QWEN2_VL[0], QWEN2_VL[1], *QWEN2_5_VL],
    ids=["qwen2-0", "qwen2-1", "qwen2_5-0", "qwen2_5-1", "qwen2_5-2"],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    made = Case(request.param, tmp_path_factory.mktemp("video"))
    with made.pipe:
        yield made


def test_videos_equal_the_reference(case: Case) -> None:
    """Of an odd number of frames, beside a picture and another video; one says how fast it is and one does not."""
    picture, first, second = frames(1, seed=1)[0], frames(5, 40, 31, 2), frames(2, 25, 60, 3)
    text = f"{VIDEO} then {IMAGE}{VIDEO} what?"
    inputs = case.inputs(text, [picture], [(first, 2.0), (second, 0.25)])
    media = {"images": [picture], "videos": [first, {"frames": second, "fps": 0.25}]}
    assert_close(case.pipe.score(text, **media), case.logits(inputs), 1e-5)
    assert case.answer(case.pipe.generate, text, **media) == case.greedy(inputs)


def test_frames_are_left_out_of_a_fast_video(case: Case) -> None:
    video, text = frames(24, seed=4), f"{VIDEO} what?"
    inputs = case.inputs(text, [], [(video[::4], 2.0)])
    media = {"videos": [{"frames": video, "fps": 8.0}]}
    assert_close(case.pipe.score(text, **media), case.logits(inputs), 1e-5)


def test_a_chat_about_a_video_and_a_picture(case: Case) -> None:
    picture, video = frames(1, 60, 20, 5)[0], frames(4, seed=6)
    content = [{"type": "video", "video": video}, {"type": "image", "image": picture}, {"type": "text", "text": "Eh?"}]
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    text = f"{system}<|im_start|>user\n{VIDEO}{IMAGE}Eh?<|im_end|>\n<|im_start|>assistant\n"
    inputs = case.inputs(text, [picture], [(video, 2.0)])
    messages = [{"role": "user", "content": content}]
    assert case.pipe.tokenize_chat(messages) == inputs["input_ids"][0].tolist()
    assert case.answer(case.pipe.chat, messages) == case.greedy(inputs)


def test_the_same_frames_at_another_speed_are_another_video(case: Case) -> None:
    """Their tokens and rows are the same, but not where they stand: nothing of one prompt is that of the other."""
    video, text = frames(6, seed=7), f"{VIDEO} what do you see, and for how long?"
    slow, fast = ({"videos": [{"frames": video, "fps": fps}]} for fps in (0.125, 2.0))
    for media, fps in ((slow, 0.125), (fast, 2.0), (slow, 0.125)):
        assert case.answer(case.pipe.generate, text, **media) == case.greedy(case.inputs(text, [], [(video, fps)]))


# Which frames


def settings(**changes: Any) -> VideoSettings:
    picture = PictureSettings(True, 3, 1, 1, (0, 0, 0), (1, 1, 1), 1.0, 14, changes.pop("moments", 2), 2)
    values = {"sample": True, "fps": 2.0, "count": None, "least_frames": 4, "most_frames": 768, "total_pixels": None}
    return VideoSettings(picture, **{**values, **changes})


def chosen(total: int, speed: float | None, **changes: Any) -> tuple[list[int], float]:
    picture = Image.new("RGB", (1, 1))
    return sampled(Frames("video", (picture,) * total, speed), settings(**changes))


def test_frames_are_chosen_as_transformers_chooses() -> None:
    """Numbers of Qwen2VLVideoProcessor.sample_frames of transformers 5.23."""
    assert chosen(100, 30.0) == ([0, 16, 33, 50, 66, 83], pytest.approx(1.8))
    assert chosen(30, 10.0) == ([0, 5, 10, 15, 20, 25], 2.0)
    assert chosen(31, 24.0) == ([0, 7, 15, 23], pytest.approx(4 / 31 * 24))
    assert chosen(9, 1.0) == ([0, 1, 2, 3, 4, 5, 6, 7], pytest.approx(8 / 9))
    assert chosen(3, 30.0) == ([0, 1], 20.0)
    assert len(chosen(2000, 1.0)[0]) == 768
    assert len(chosen(2000, 1.0, most_frames=31)[0]) == 30
    assert len(chosen(100, 30.0, least_frames=20)[0]) == 20
    assert len(chosen(100, 30.0, fps=4.0)[0]) == 12
    assert len(chosen(100, 30.0, moments=3)[0]) == 6


def test_frames_that_are_all_looked_at() -> None:
    assert chosen(1, 30.0) == ([0], 30.0)
    assert chosen(5, None) == ([0, 1, 2, 3, 4], 2.0)
    assert chosen(5, 30.0, sample=False) == ([0, 1, 2, 3, 4], 30.0)
    assert chosen(10, None, count=5)[0] == [0, 2, 5, 7]
    assert chosen(3, None, count=8)[0] == [0, 1, 2]


def test_frames_are_spread_as_torch_spreads_them() -> None:
    for total in range(4, 300):
        numbers, _ = chosen(total, 7.0)
        assert numbers == torch.arange(0, total, total / len(numbers)).int().tolist()[: len(numbers)]


def test_frames_share_the_pixels_of_a_video(tmp_path: Path) -> None:
    from bestiary.config import normalise
    from bestiary.generation.tokenizer import Tokenizer
    from bestiary.sources.folder import Folder
    from bestiary_qwen_vl import processor

    config = QWEN2_5_VL[0]
    save(config, tmp_path)
    values = '{"patch_size": 4, "cap_pixels_per_frame": true, "max_video_tokens": 100, "min_pixels": 64}'
    (tmp_path / "video_preprocessor_config.json").write_text(values)
    folder = Folder(tmp_path, "test")
    made = processor.qwen2_5_vl(normalise(config, "here"), folder, Tokenizer.from_repository(folder))
    # 90 rows of 8 x 8 pixels for all moments.
    assert [made.prepare(Frames("video", tuple(frames(n, 400, 400)), None)).rows for n in (2, 20)] == [81, 90]
