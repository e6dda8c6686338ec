"""Logits and answers of tiny checkpoints, beside those of transformers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from idefics_checkpoints import IDEFICS3_8B, SMOLVLM2_500M
from idefics_reference import picture, preprocessor, save_idefics3, save_smolvlm
from PIL import Image

import bestiary_siglip as siglip
from bestiary.config import Config
from bestiary.testing.conformance import assert_close
from bestiary.testing.seeing import Opened, SeeingCase, SeeingTests
from bestiary_idefics.model import Connector, Eyes
from bestiary_idefics.tiny import IDEFICS3, SMOLVLM

# Of the tiny configurations: pixels of a tile, its rows, and the longest edge of a picture.
SIZES = ((16, 4, 32), (16, 4, 48), (24, 9, 24))


def _cases(family: str, configs: Sequence[dict[str, Any]], save: Callable[..., Any]) -> Iterator[SeeingCase]:
    for place, (config, (tile, rows, edge)) in enumerate(zip(configs, SIZES, strict=True)):
        values = preprocessor(tile, edge)
        yield SeeingCase(f"{family}-{place}", config, partial(save, rows=rows, values=values), "<image>")
    values = preprocessor(16, 32, do_image_splitting=False)
    yield SeeingCase(f"{family}-whole", configs[0], partial(save, rows=4, values=values), "<image>")


class TestSeeing(SeeingTests):
    cases = (*_cases("idefics3", IDEFICS3, save_idefics3), *_cases("smolvlm", SMOLVLM, save_smolvlm))
    tolerance = 1e-5

    def test_a_chat_equals_the_reference(self, opened: Opened) -> None:
        """Through the family's own template, beside that of SmolVLMProcessor."""
        pictures = opened.pictures(2)
        parts = [{"type": "image"}, {"type": "text", "text": "One, and "}, {"type": "image"}]
        chat = [{"role": "user", "content": parts}]
        template = importlib.import_module("transformers.models.smolvlm.processing_smolvlm").DEFAULT_CHAT_TEMPLATE
        tokenizer = opened.processor.tokenizer
        text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
        inputs = opened.inputs(text, pictures)
        with torch.no_grad():
            made = opened.reference.model.generate(
                **inputs, do_sample=False, min_new_tokens=8, max_new_tokens=8, eos_token_id=None, pad_token_id=0
            )
        given = iter(pictures)
        parts = [{"type": "image", "image": next(given)} if part["type"] == "image" else part for part in parts]
        messages = [{"role": "user", "content": parts}]
        assert opened.pipe.render(messages) == text
        answer = opened.pipe.chat(messages, temperature=0.0, max_tokens=8, ignore_eos=True)
        assert list(answer.tokens) == made[0, inputs["input_ids"].shape[1] :].tolist()

    def test_a_black_picture_is_seen(self, opened: Opened) -> None:
        """transformers takes tiles of zeros for padding; here there is none, and every picture is what it is."""
        black = Image.new("RGB", (40, 30))
        prepared = opened.pipe.media.read([("image", black)])[0]
        rows = opened.pipe.model.media.encode([{"pixel_values": torch.zeros(prepared.tensors["pixel_values"].shape)}])
        assert [len(each) for each in rows] == [prepared.rows]


@pytest.mark.parametrize(
    ("published", "tiny", "save"),
    [(IDEFICS3_8B, IDEFICS3[0], save_idefics3), (SMOLVLM2_500M, SMOLVLM[0], save_smolvlm)],
    ids=["26 patches a side", "32 patches a side"],
)
def test_the_grids_of_published_models(
    tmp_path: Path, published: dict[str, Any], tiny: dict[str, Any], save: Callable[..., Any]
) -> None:
    """Tiles, patches and squares have their real sizes, of which positions are rounded; all else is small."""
    sizes = {name: published["vision_config"][name] for name in ("image_size", "patch_size")}
    scale, tile = published["scale_factor"], sizes["image_size"]
    config = {**tiny, "scale_factor": scale, "vision_config": {**tiny["vision_config"], **sizes}}
    rows = (tile // sizes["patch_size"] // scale) ** 2
    case = SeeingCase("real", config, partial(save, rows=rows, values=preprocessor(tile, 2 * tile)), "<image>")
    opened = Opened(case, tmp_path)
    image, text = Image.fromarray(picture(100, 333)), "What? <image>"
    with opened.pipe, torch.no_grad():
        inputs = opened.inputs(text, [image])
        assert inputs["pixel_values"].shape == (1, 3, 3, tile, tile)
        theirs = opened.reference.model(**inputs).logits[0].float()
        assert_close(opened.pipe.score(text, images=[image]), theirs, 1e-5)


def test_media_of_several_shapes_are_encoded_together() -> None:
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = siglip.build(Config({**vision, "image_size": 32, "patch_size": 4}, "test"), any_size=True)
    eyes = Eyes(tower, Connector(16, 8, 2)).eval()
    with torch.no_grad():
        for parameter in eyes.parameters():
            parameter.normal_(0, 0.1)
        shapes = ((2, 16), (1, 32), (40, 16), (3, 32))
        media = [{"pixel_values": torch.randn(tiles, 3, side, side)} for tiles, side in shapes]
        together = eyes.encode(media)
        assert [tuple(rows.shape) for rows in together] == [(tiles * (side // 8) ** 2, 8) for tiles, side in shapes]
        for rows, medium in zip(together, media, strict=True):
            torch.testing.assert_close(rows, eyes.encode([medium])[0])
