"""Tokenizer and processor files beside a tiny checkpoint, and the processor of transformers that they make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

KINDS = {
    "clip": CLIPImageProcessorPil,
    "llava": LlavaImageProcessorPil,
    "llava_next": LlavaNextImageProcessorPil,
    "siglip": SiglipImageProcessorPil,
}


def save_tokenizer(folder: Path, size: int = 130) -> Any:
    """Bytes that are printable ASCII, then <image> as the token `size`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [letter for letter in alphabet if letter.isascii() or letter in "ĠĊ"]
    names = ["<unk>", "<s>", "</s>", *printable]
    names += [f"<spare{place}>" for place in range(size - len(names))]
    made = tokenizers.Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>", "<unk>", "<image>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def save_processor(folder: Path, *, kind: str, next: bool = False, image: Mapping[str, Any], **stated: Any) -> Any:
    """The files, in the layout of transformers 5, and the processor that wrote them."""
    name = "LlavaNextProcessor" if next else "LlavaProcessor"
    processor = getattr(transformers, name)(KINDS[kind](**image), save_tokenizer(folder), **stated)
    processor.save_pretrained(folder)
    return processor


def saver(**arguments: Any) -> Any:
    return partial(save_processor, **arguments)
