"""The processors of transformers, and the files that they and Bestiary read.

transformers' video processor works through torchvision, which need not be here: three operations are torch's in place
of it.  Of these, resizing is the one that could differ from torchvision's.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from bestiary_idefics.tiny import IMAGE_TOKEN
from bestiary_idefics.words import in_words

NAMED = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "global_image_token": "<global-img>",
}
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)


def save_tokenizer(folder: Path) -> Any:
    """A tokenizer of bytes, with the special tokens of SmolVLM; as transformers loads it."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {text: place for place, text in enumerate((*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    vocabulary |= {f"<unused_{place}>": place for place in range(len(vocabulary), IMAGE_TOKEN)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (*SPECIAL, "<image>")])
    assert backend.token_to_id("<image>") == IMAGE_TOKEN
    named = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, **named, unk_token="<|endoftext|>", extra_special_tokens=NAMED
    )
    made.save_pretrained(folder)
    return made


def preprocessor(tile: int, edge: int, **changes: Any) -> dict[str, Any]:
    """A preprocessor_config.json as SmolVLM2 has it."""
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": tile},
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": edge},
        **changes,
    }


def save_idefics3(folder: Path, rows: int, values: Mapping[str, Any]) -> Any:
    """Writes the files, and returns the Idefics3Processor that has the same values."""
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = _save(folder, rows, values)
    return Idefics3Processor(Idefics3ImageProcessorPil(**values), tokenizer, image_seq_len=rows)


def save_smolvlm(folder: Path, rows: int, values: Mapping[str, Any]) -> Any:
    """Writes the files, and returns the SmolVLMProcessor that has the same values."""
    processing = importlib.import_module("transformers.models.smolvlm.processing_smolvlm")
    pictures = importlib.import_module("transformers.models.smolvlm.image_processing_pil_smolvlm")
    if processing.num2words is None:
        processing.num2words = in_words  # its own words are in test_words.py

    class Processor(processing.SmolVLMProcessor):  # type: ignore[name-defined,misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(argument)  # the class that is asked for is a stand-in where torchvision is absent

    tokenizer = _save(folder, rows, values)
    image = {name: value for name, value in values.items() if name != "video_sampling"}
    return Processor(pictures.SmolVLMImageProcessorPil(**image), tokenizer, video_processor(values), image_seq_len=rows)


def video_processor(values: Mapping[str, Any]) -> Any:
    """A SmolVLMVideoProcessor, of which three operations are torch's."""
    module = importlib.import_module("transformers.models.smolvlm.video_processing_smolvlm")
    base = module.BaseVideoProcessor

    class Resizing(base):  # type: ignore[misc,valid-type]
        def resize(self, image: torch.Tensor, size: Any, resample: Any = None, antialias: bool = True, **_: Any) -> Any:
            mode = {1: "lanczos", 2: "bilinear", 3: "bicubic"}[int(resample)]
            if image.shape[-2:] == (size.height, size.width):
                return image
            flat = F.interpolate(image.flatten(0, -4), (size.height, size.width), mode=mode, antialias=antialias)
            return flat.view(*image.shape[:-2], size.height, size.width)

        def convert_to_rgb(self, video: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            return video

        def rescale_and_normalize(
            self, x: torch.Tensor, rescale: bool, factor: float, normalise: bool, mean: Any, std: Any
        ) -> torch.Tensor:
            x = x.float() * factor if rescale else x.float()
            if not normalise:
                return x
            return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    class Processor(module.SmolVLMVideoProcessor, Resizing):  # type: ignore[name-defined,misc]
        """What SmolVLMVideoProcessor asks of its parent, it asks of the class above."""

    return Processor(**copy.deepcopy({name: value for name, value in values.items() if name != "do_image_splitting"}))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _save(folder: Path, rows: int, values: Mapping[str, Any]) -> Any:
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(values)))
    (folder / "processor_config.json").write_text(json.dumps({"image_seq_len": rows}))
    return save_tokenizer(folder)
