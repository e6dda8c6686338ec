"""The processor of transformers, and the files that it and Bestiary read."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

SPECIAL = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "start": "<start_of_turn>",
    "end": "<end_of_turn>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
"""The first tokens of the tiny tokenizer, as they are numbered."""


def save_processor(folder: Path, config: dict[str, Any], **settings: Any) -> Any:
    """Write a tokenizer of bytes and the processor's files beside a checkpoint; returns transformers' processor.

    `settings` are further ones of its image processor.
    """

    special = list(SPECIAL.values())
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*special, *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    named = {name: token for name, token in SPECIAL.items() if name.endswith("_token")}
    further = {name: named.pop(name) for name in ("boi_token", "eoi_token", "image_token")}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, extra_special_tokens=further, **named
    )
    side = config["vision_config"]["image_size"]
    pictures = Gemma3ImageProcessorPil(size={"height": side, "width": side}, **settings)
    made = Gemma3Processor(pictures, tokenizer, image_seq_length=config["mm_tokens_per_image"])
    made.save_pretrained(folder)
    return made
