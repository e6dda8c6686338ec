"""LLaVA and LLaVA-NeXT see what transformers' classes see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from llava_folders import saver

from bestiary.testing.conformance import assert_close
from bestiary.testing.seeing import Opened, SeeingCase, SeeingTests
from bestiary_llava import tiny

EDGE = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
EDGE_30 = {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}}
SQUARE_30 = {"size": {"height": 30, "width": 30}}
CLS = {"patch_size": 7, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
SIGLIP = {"patch_size": 7, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"}


def seen(name: str, config: dict[str, Any], stated: dict[str, Any] = CLS, **arguments: Any) -> SeeingCase:
    return SeeingCase(name, config, saver(**arguments, **stated), "<image>")


def tiled(name: str, config: dict[str, Any], image: dict[str, Any], stated: dict[str, Any] = CLS) -> SeeingCase:
    image = {**image, "image_grid_pinpoints": config["image_grid_pinpoints"]}
    return seen(name, config, stated, kind="llava_next", next=True, image=image)


class Checks(SeeingTests):
    def test_tolerance_is_that_of_float32(self, opened: Opened) -> None:
        """Sums in another order, and no more."""
        pictures = opened.pictures(2, seed=3)
        text = opened.text(2)
        with torch.no_grad():
            theirs = opened.reference.model(**opened.inputs(text, pictures)).logits[0].float()
        assert_close(opened.pipe.score(text, images=pictures), theirs)

    def test_many_tiles_are_seen_in_parts(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        prepared = opened.pipe.media.read([("image", picture) for picture in opened.pictures(3)])
        media = [{name: torch.as_tensor(tensor) for name, tensor in each.tensors.items()} for each in prepared]
        with torch.no_grad():
            whole = opened.pipe.model.media.encode(media)
            monkeypatch.setattr("bestiary_llava.model._AT_ONCE", 2)
            for ours, theirs, each in zip(opened.pipe.model.media.encode(media), whole, prepared, strict=True):
                assert len(ours) == each.rows
                assert_close(ours, theirs)

    def test_chats_equal_the_reference(self, opened: Opened) -> None:
        first, second = opened.pictures(2, seed=5)
        messages = [
            {"role": "user", "content": [{"type": "image", "image": first}, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A thing."},
            {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "image", "image": second}]},
        ]
        if not opened.pipe.can_chat:  # the turns of Qwen2 end in tokens that this vocabulary lacks
            assert "qwen2" in opened.case.name
            return
        inputs = opened.inputs(opened.pipe.render(messages), [first, second])
        with torch.no_grad():
            made = opened.reference.model.generate(
                **inputs, do_sample=False, min_new_tokens=8, max_new_tokens=8, eos_token_id=None, pad_token_id=0
            )
        answer = opened.pipe.chat(messages, temperature=0.0, max_tokens=8, ignore_eos=True)
        assert list(answer.tokens) == made[0, inputs["input_ids"].shape[1] :].tolist()

    def test_a_users_words_stand_for_no_picture(self, opened: Opened) -> None:
        if opened.pipe.can_chat:
            (picture,) = opened.pictures(1)
            parts = [{"type": "image", "image": picture}, {"type": "text", "text": "What does <image> mean?"}]
            answer = opened.pipe.chat([{"role": "user", "content": parts}], temperature=0.0, max_tokens=2)
            assert 0 < len(answer.tokens) <= 2


class TestLlava(Checks):
    cases = (
        seen("llama", tiny.LLAVA_LLAMA[0], kind="clip", image=EDGE),
        seen("layers", tiny.LLAVA_LLAMA[1], kind="llava", image={**EDGE, "do_pad": True}),
        seen("full", tiny.LLAVA_LLAMA[2], {**CLS, "vision_feature_select_strategy": "full"}, kind="llava", image=EDGE),
        seen("mistral", tiny.LLAVA_MISTRAL[0], kind="clip", image=EDGE),
        seen("qwen2", tiny.LLAVA_QWEN2[0], SIGLIP, kind="siglip", image=SQUARE_30),
    )


class TestLlavaNext(Checks):
    cases = (
        tiled("llama", tiny.LLAVA_NEXT_LLAMA[0], EDGE),
        tiled("edges", tiny.LLAVA_NEXT_LLAMA[1], EDGE_30),
        tiled("mistral", {**tiny.LLAVA_NEXT_MISTRAL[0], "vision_feature_layer": [-2, 3]}, EDGE),
        tiled("qwen2", tiny.LLAVA_NEXT_QWEN2[1], {**SQUARE_30, "crop_size": {"height": 30, "width": 30}}, SIGLIP),
    )
