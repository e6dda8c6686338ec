"""Idefics3 and SmolVLM for Bestiary: a SigLIP tower over the tiles of a picture, a Llama that reads them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import bestiary
from bestiary.gguf_rows import ROTARY_PAIRS, VISION_TOWER
from bestiary_idefics.templates import IDEFICS3, SMOLVLM
from bestiary_llama import WEIGHTS as LLAMA_WEIGHTS

WEIGHTS = (
    bestiary.rename("model.vision_model.**", "media.tower.**"),
    bestiary.rename("model.connector.**", "media.projector.**"),
    bestiary.rename("model.text_model.**", "model.**"),
    *LLAMA_WEIGHTS,
)
GGUF = (
    *ROTARY_PAIRS,  # under the names of the file, where the tower's are called otherwise
    *VISION_TOWER,
    bestiary.rename("mm.model.fc.weight", "media.projector.modality_projection.proj.weight"),
)
# What LlamaConfig takes for granted: a configuration inside another is saved without what equals it.
TEXT: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    seeing = partial(
        bestiary.Architecture,
        task="vision",
        model="bestiary_idefics.model:build",
        weights=WEIGHTS,
        gguf=(bestiary.Gguf("llama", GGUF),),
        defaults=TEXT,
    )
    return [
        seeing(
            "Idefics3ForConditionalGeneration",
            model_types=("idefics3",),
            processor="bestiary_idefics.processor:idefics3",
            chat_template=IDEFICS3,
            tiny="bestiary_idefics.tiny:IDEFICS3",
        ),
        seeing(
            "SmolVLMForConditionalGeneration",
            model_types=("smolvlm",),
            processor="bestiary_idefics.processor:smolvlm",
            chat_template=SMOLVLM,
            tiny="bestiary_idefics.tiny:SMOLVLM",
        ),
    ]
