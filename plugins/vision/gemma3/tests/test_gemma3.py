"""Gemma 3 with eyes against transformers."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gemma3_processor import save_processor
from PIL import Image

import bestiary
import bestiary_gemma3
from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.errors import ConfigError
from bestiary.testing.conformance import ArchitectureTests, assert_maps
from bestiary.testing.headers import HeaderList
from bestiary.testing.seeing import SeeingCase, SeeingTests
from bestiary_gemma3.model import build
from bestiary_gemma3.tiny import GEMMA3

(ARCHITECTURE,) = bestiary_gemma3.bestiary_architectures()
PICTURE = {"type": "image"}
CHATS: list[tuple[list[dict[str, Any]], str]] = [
    (
        [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [PICTURE, {"type": "text", "text": " What is it? "}, PICTURE]},
            {"role": "assistant", "content": "A lion."},
            {"role": "user", "content": "Sure?"},
        ],
        "<s><start_of_turn>user\nBe brief.\n\n<start_of_image>What is it?<start_of_image><end_of_turn>\n"
        "<start_of_turn>model\nA lion.<end_of_turn>\n<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n",
    )
]
SCAN: dict[str, Any] = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 8,
    "pan_and_scan_max_num_crops": 3,
    "pan_and_scan_min_ratio_to_activate": 1.3,
}
# The configuration of the published 4B model, which leaves most to the defaults.
SMALL: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "vision_use_head": False,
    },
}


class TestGemma3(ArchitectureTests):
    plugin = bestiary_gemma3
    golden_chats = {"Gemma3ForConditionalGeneration": CHATS}


class TestSeeing(SeeingTests):
    tolerance = 1e-5
    cases = (
        *(
            SeeingCase(f"tiny-{place}", config, partial(save_processor, config=config), "<start_of_image>")
            for place, config in enumerate(GEMMA3)
        ),
        SeeingCase(
            "pan-and-scan",
            GEMMA3[0],
            partial(save_processor, config=GEMMA3[0], **SCAN),
            "<start_of_image>",
            sizes=((60, 20), (30, 30), (17, 90)),
            options=SCAN,
        ),
    )


def test_a_chat_equals_the_reference(tmp_path: Path) -> None:
    from bestiary.testing.reference import make_reference

    reference = make_reference(GEMMA3[0], tmp_path)
    processor = save_processor(tmp_path, GEMMA3[0])
    random = np.random.default_rng(5)
    pictures = [Image.fromarray(random.integers(0, 256, (20, wide, 3), dtype=np.uint8)) for wide in (30, 50)]
    first, second = ({"type": "image", "image": picture} for picture in pictures)
    messages = [{"role": "user", "content": [first, {"type": "text", "text": "<start_of_turn> or"}, second]}]
    with bestiary.load(str(tmp_path), dtype="float32", device="cpu", cache_tokens=4096, progress=False) as pipe:
        made = pipe.chat(messages, temperature=0.0, max_tokens=8, ignore_eos=True)
        # What a user writes is text, so the reference is given other letters in its place, and then the tokens of it.
        text = pipe.render(messages).replace("<start_of_turn> or", "\N{LATIN SMALL LETTER O WITH STROKE}")
    inputs = processor(text=[text], images=[pictures], return_tensors="pt", add_special_tokens=False)
    mark = processor.tokenizer("\N{LATIN SMALL LETTER O WITH STROKE}", add_special_tokens=False)["input_ids"]
    letters = [token for letter in "<start_of_turn> or" for token in _letters(processor, letter)]
    tokens = inputs["input_ids"][0].tolist()
    at = next(place for place in range(len(tokens)) if tokens[place : place + len(mark)] == mark)
    tokens[at : at + len(mark)] = letters
    kinds = torch.tensor([[int(token == 8) for token in tokens]])
    with torch.no_grad():
        due = reference.model.generate(
            input_ids=torch.tensor([tokens]),
            token_type_ids=kinds,
            attention_mask=torch.ones_like(kinds),
            pixel_values=inputs["pixel_values"],
            do_sample=False,
            min_new_tokens=8,
            max_new_tokens=8,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert list(made.tokens) == due[0, len(tokens) :].tolist()


def _letters(processor: Any, letter: str) -> list[int]:
    return processor.tokenizer(letter, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


# Weights


def _names(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of transformers' own model."""
    values = {key: value for key, value in config.items() if key != "architectures"}
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.for_model(**values))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _published(name: str) -> str:
    for old, new in (
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("published", [False, True])
def test_the_names_of_the_reference_map(published: bool, head: bool) -> None:
    raw = {**SMALL, "vision_config": {**SMALL["vision_config"], "vision_use_head": head}}
    shapes = {_published(name) if published else name: shape for name, shape in _names(raw).items()}
    config = normalise(raw, "config.json", ARCHITECTURE.defaults)
    empty = build_empty(ARCHITECTURE, config)
    made = make_plan(ARCHITECTURE, config, empty, HeaderList(shapes))
    assert {*made.recipes, *made.ties} == {name for name, _ in empty.named_parameters()}
    assert all("head" in name for name in made.dropped) and len(made.dropped) == 1 + 11 * head


def test_a_published_index_maps(shared_data: Path) -> None:
    folder = shared_data / "checkpoints/gemma3-27b-it-medgemma"
    names = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    config = assert_maps(ARCHITECTURE, folder / "config.json", list(names))
    assert config.text.query_pre_attn_scalar == 168 and config.text.window(0) == 1024


def test_the_fallback_template_is_the_published_one(shared_data: Path) -> None:
    from bestiary.generation.template import ChatTemplate

    published = shared_data / "checkpoints/gemma3-27b-it-medgemma/chat_template.jinja"
    special = {"bos_token": "<bos>", "eos_token": "<eos>"}
    templates = [
        ChatTemplate(source, source="a test", special_tokens=special)
        for source in (bestiary_gemma3.CHAT.jinja, published.read_text())
    ]
    for messages in (CHATS[0][0], CHATS[0][0][1:], CHATS[0][0][1:3], [{"role": "user", "content": " Hi\n"}]):
        for wanted in (True, False):
            ours, theirs = (each.render(messages, add_generation_prompt=wanted) for each in templates)
            assert ours == theirs


# What cannot be


@pytest.mark.parametrize(
    "changes",
    [
        *({"mm_tokens_per_image": value} for value in (0, -4, 5, 17, 25, True, 4.0, "4", [4], 1 << 70)),
        {"vision_config": None},
        {"vision_config": {"model_type": "clip_vision_model"}},
        {"vision_config": {**GEMMA3[0]["vision_config"], "image_size": 13}},
        {"vision_config": {**GEMMA3[0]["vision_config"], "patch_size": "14"}},
        {"text_config": {**GEMMA3[0]["text_config"], "use_bidirectional_attention": True}},
    ],
)
def test_what_cannot_be_is_a_config_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(normalise({**GEMMA3[0], **changes}, "config.json", ARCHITECTURE.defaults))
