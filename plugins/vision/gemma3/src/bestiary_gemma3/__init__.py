"""Gemma 3 with eyes (4B, 12B and 27B, MedGemma) for Bestiary."""

from collections.abc import Sequence
from typing import Any

import bestiary
import bestiary_gemma
from bestiary.gguf_rows import VISION_TOWER

CHAT = bestiary.ChatTemplate(
    "{% macro written(content) %}{% if content is string %}{{ content | trim }}{% else %}{% for part in content %}"
    "{% if part.type == 'image' %}<start_of_image>{% elif part.type == 'text' %}{{ part.text | trim }}"
    "{% else %}{{ raise_exception('Gemma 3 takes texts and images, no ' ~ part.type) }}{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}"
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = written(message.content) + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ ns.system + written(message.content) }}<end_of_turn>\n{% set ns.system = '' %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    stop=("<end_of_turn>",),
)
WEIGHTS = (
    # As transformers has the model since 4.52, and some checkpoints with it.
    bestiary.rename("model.language_model.**", "language_model.model.**"),
    bestiary.rename("model.vision_tower.**", "vision_tower.**"),
    bestiary.rename("model.multi_modal_projector.**", "multi_modal_projector.**"),
    # As it is published.
    bestiary.rename("language_model.**", "**"),
    bestiary.rename("vision_tower.vision_model.**", "vision_tower.**"),
    bestiary.drop("vision_tower.head.**"),  # one vector for a whole picture, which this model does not ask for
    bestiary.rename("vision_tower.**", "media.tower.**"),
    bestiary.rename("multi_modal_projector.**", "media.projector.**"),
    *bestiary_gemma.WEIGHTS,
)
GGUF = (
    bestiary_gemma.STORED_NORMS,  # under the names of the file, where SigLIP's norms are called otherwise
    *VISION_TOWER,
    bestiary.rename("mm.soft_emb_norm.weight", "media.projector.mm_soft_emb_norm.weight"),
    bestiary.rename("mm.input_projection.weight", "media.projector.mm_input_projection_weight"),
)
# What the configuration class takes for granted: the 4B's own configuration says little more than its widths.
DEFAULTS: dict[str, Any] = {
    **bestiary_gemma.GEMMA3,
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
}


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "Gemma3ForConditionalGeneration",
            "vision",
            "bestiary_gemma3.model:build",
            WEIGHTS,
            model_types=("gemma3",),
            gguf=(bestiary.Gguf("gemma3", GGUF),),
            chat_template=CHAT,
            processor="bestiary_gemma3.processor:build",
            defaults=DEFAULTS,
            tiny="bestiary_gemma3.tiny:GEMMA3",
            tool_format="gemma3",
        )
    ]
