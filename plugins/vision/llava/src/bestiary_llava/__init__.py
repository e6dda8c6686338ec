"""LLaVA 1.5 and LLaVA-NeXT for Bestiary."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import bestiary
import bestiary_llama
from bestiary.gguf_rows import ROTARY_PAIRS, VISION_TOWER
from bestiary_llava.templates import CHATML, MISTRAL, VICUNA
from bestiary_llava.texts import LLAMA as LLAMA_DEFAULTS
from bestiary_llava.texts import MISTRAL as MISTRAL_DEFAULTS
from bestiary_llava.texts import QWEN2 as QWEN2_DEFAULTS

# As transformers 5 has the parts in memory ("model.vision_tower.embeddings..."), as it saves them, and as they are
# published ("vision_tower.vision_model.embeddings...").
WEIGHTS = (
    bestiary.rename("model.vision_tower.**", "vision_tower.**"),
    bestiary.rename("model.multi_modal_projector.**", "multi_modal_projector.**"),
    bestiary.rename("model.image_newline", "image_newline"),
    bestiary.rename("model.language_model.**", "model.**"),
    bestiary.rename("language_model.**", "**"),
    bestiary.rename("vision_tower.vision_model.**", "vision_tower.**"),
    bestiary.drop("vision_tower.embeddings.position_ids"),
    bestiary.drop("vision_tower.head.**"),  # SigLIP's one vector of a whole picture
    bestiary.rename("vision_tower.**", "media.tower.**"),
    bestiary.rename("multi_modal_projector.**", "media.projector.**"),
    bestiary.rename("image_newline", "media.image_newline"),
    *bestiary_llama.WEIGHTS,
)
_GGUF = (
    *VISION_TOWER,
    bestiary.drop("media.tower.post_layernorm.*"),  # which few files have, and the model does not use
    bestiary.rename("mm.0.*", "media.projector.linear_1.*"),
    bestiary.rename("mm.2.*", "media.projector.linear_2.*"),
    bestiary.rename("model.image_newline", "media.image_newline"),
)
GGUF = {
    # Under the names of the file, where the tower's are called otherwise.
    "llama": {"gguf": (bestiary.Gguf("llama", (*ROTARY_PAIRS, *_GGUF)),)},
    "qwen2": {"gguf": (bestiary.Gguf("qwen2", _GGUF),)},
}
"""By the text model; the files of a Mistral say that they are of a Llama."""
_OTHERS = ("mistral", "qwen2")
"""Texts with records of their own; whatever else there is under LLaVA is read as Llama's, and refused if it is not."""


@cache
def _is(name: str, model_type: str, text: str) -> Callable[[bestiary.Evidence], bool | None]:
    """Whether a model is of this class, around this kind of text model: what `text_config` leaves out differs."""

    def probe(evidence: bestiary.Evidence) -> bool | None:
        config = evidence.config
        stated = config.get("architectures") or ()
        ours = name == stated or name in stated if stated else config.get("model_type") == model_type
        if evidence.gguf is not None or not ours:
            return None
        part = config.get("text_config")
        kind = part.get("model_type") if isinstance(part, Mapping) else None
        return kind == text if text in _OTHERS else kind not in _OTHERS

    return probe


def _architecture(name: str, model_type: str, text: str, **facts: Any) -> bestiary.Architecture:
    return bestiary.Architecture(
        name,
        "vision",
        f"bestiary_llava.model:{model_type}",
        WEIGHTS,
        model_types=(model_type,),
        probe=_is(name, model_type, text),
        processor=f"bestiary_llava.processor:{model_type}",
        tiny=f"bestiary_llava.tiny:{model_type.upper()}_{text.upper()}",
        **facts,
    )


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    llava = partial(_architecture, "LlavaForConditionalGeneration", "llava")
    llava_next = partial(_architecture, "LlavaNextForConditionalGeneration", "llava_next")
    return [
        llava("llama", chat_template=VICUNA, defaults=LLAMA_DEFAULTS, **GGUF["llama"]),
        llava("mistral", chat_template=VICUNA, defaults=MISTRAL_DEFAULTS),  # BakLLaVA
        llava("qwen2", chat_template=CHATML, defaults=QWEN2_DEFAULTS, **GGUF["qwen2"]),  # LLaVA-Interleave
        llava_next("llama", chat_template=VICUNA, defaults=LLAMA_DEFAULTS, **GGUF["llama"]),
        llava_next("mistral", chat_template=MISTRAL, defaults=MISTRAL_DEFAULTS),
        llava_next("qwen2", chat_template=CHATML, defaults=QWEN2_DEFAULTS, **GGUF["qwen2"]),
    ]
