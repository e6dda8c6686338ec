"""Llama 1 to 3.3, Yi and the dense Mistrals for Bestiary."""

from collections.abc import Sequence

import bestiary
from bestiary_llama.templates import LLAMA3, MISTRAL

BUILD = "bestiary_llama.model:build"
WEIGHTS = (
    bestiary.drop("**.rotary_emb.inv_freq"),
    bestiary.tie("lm_head.weight", "model.embed_tokens.weight"),
)
# What the configuration class of Ministral 3 takes for granted.
MINISTRAL3 = {
    "head_dim": 128,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1_000_000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
}


def _holds_ministral(evidence: bestiary.Evidence) -> bool | None:
    """Mistral3ForConditionalGeneration is a picture model around a text model; only Ministral 3's is built here."""
    text = evidence.config.get("text_config")
    if "Mistral3ForConditionalGeneration" not in (evidence.config.get("architectures") or ()):
        return None
    return isinstance(text, dict) and text.get("model_type") == "ministral3"


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "LlamaForCausalLM",
            "text",
            BUILD,
            WEIGHTS,
            model_types=("llama",),
            chat_template=LLAMA3,
            tiny="bestiary_llama.tiny:LLAMA",
        ),
        bestiary.Architecture(
            "MistralForCausalLM",
            "text",
            BUILD,
            WEIGHTS,
            model_types=("mistral",),
            chat_template=MISTRAL,
            defaults={"sliding_window": 4096},
            tiny="bestiary_llama.tiny:MISTRAL",
        ),
        bestiary.Architecture(
            "MinistralForCausalLM",
            "text",
            BUILD,
            WEIGHTS,
            model_types=("ministral",),
            chat_template=MISTRAL,
            defaults={"sliding_window": 4096},
            tiny="bestiary_llama.tiny:MINISTRAL",
        ),
        bestiary.Architecture(
            "Ministral3ForCausalLM",
            "text",
            BUILD,
            WEIGHTS,
            model_types=("ministral3",),
            chat_template=MISTRAL,
            defaults=MINISTRAL3,
            tiny="bestiary_llama.tiny:MINISTRAL3",
        ),
        bestiary.Architecture(
            "Mistral3ForConditionalGeneration",
            "text",
            BUILD,
            (
                bestiary.drop("vision_tower.**"),
                bestiary.drop("multi_modal_projector.**"),
                bestiary.rename("language_model.**", "**"),
                *WEIGHTS,
            ),
            probe=_holds_ministral,
            chat_template=MISTRAL,
            defaults=MINISTRAL3,
            tiny="bestiary_llama.tiny:MISTRAL3_AROUND_MINISTRAL3",
        ),
    ]
