"""transformers' processors around a small tokenizer, and the same files for Bestiary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

SPECIAL = (
    *("<|endoftext|>", "<|bos|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and the special tokens: 0 to 3, 4 to 259, 260 to 263."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL[:4], *alphabet, *SPECIAL[4:]]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=[])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


class _WithoutVideos:
    """transformers' video processor needs torchvision; see `test_video`."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        return None if name == "video_processor" else super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]


class Qwen2(_WithoutVideos, Qwen2VLProcessor):
    pass


class Qwen25(_WithoutVideos, Qwen2_5_VLProcessor):
    pass


def image_processor(vision: Mapping[str, Any], **changes: Any) -> Qwen2VLImageProcessorPil:
    """One that cuts what a tower takes."""
    cuts = {"patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, **vision}
    values = {key: cuts[key] for key in ("patch_size", "temporal_patch_size")}
    return Qwen2VLImageProcessorPil(**{**values, "merge_size": cuts["spatial_merge_size"], **changes})


def save(config: Mapping[str, Any], folder: Path, **changes: Any) -> Any:
    """Write tokenizer and preprocessor_config.json of a tiny configuration, and return transformers' processor."""
    text, images = tokenizer(), image_processor(config["vision_config"], **changes)
    text.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(images.to_dict(), default=list))
    kind = Qwen25 if config["model_type"] == "qwen2_5_vl" else Qwen2
    return kind(images, text, None)
