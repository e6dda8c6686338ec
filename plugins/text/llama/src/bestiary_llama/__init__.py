"""Llama 1 to 3.3, Yi and the dense Mistrals for Bestiary."""

from collections.abc import Sequence
from functools import partial

import bestiary
from bestiary.gguf_rows import ROTARY_PAIRS
from bestiary_llama.templates import LLAMA3, MISTRAL
from bestiary_llama.tools import bestiary_tool_formats as bestiary_tool_formats

WEIGHTS = (
    bestiary.drop("**.rotary_emb.inv_freq"),
    bestiary.tie("lm_head.weight", "model.embed_tokens.weight"),
)

GGUF = (bestiary.Gguf("llama", ROTARY_PAIRS),)
# Ministral 3 is published as a picture model around a text model, and the text model is what is built.
TEXT_PART = (
    bestiary.drop("vision_tower.**"),
    bestiary.drop("multi_modal_projector.**"),
    bestiary.rename("language_model.**", "**"),
)
# What the configuration class of Ministral 3 takes for granted.
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384}
YARN |= {"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
MINISTRAL3 = {"head_dim": 128, "rope_parameters": YARN}


def _is_ministral3(evidence: bestiary.Evidence) -> bool | None:
    """Mistral Small 3 has the same class name around another text model, with a tower that matters."""
    text = evidence.config.get("text_config")
    if "Mistral3ForConditionalGeneration" not in (evidence.config.get("architectures") or ()):
        return None
    return isinstance(text, dict) and text.get("model_type") == "ministral3"


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    llama = partial(bestiary.Architecture, task="text", model="bestiary_llama.model:build", weights=WEIGHTS)
    mistral = partial(llama, chat_template=MISTRAL, defaults={"sliding_window": 4096})
    ministral3 = partial(mistral, defaults=MINISTRAL3)
    tiny = "bestiary_llama.tiny:"
    around = {"weights": TEXT_PART + WEIGHTS, "probe": _is_ministral3, "tiny": f"{tiny}AROUND_MINISTRAL3"}
    return [
        llama("LlamaForCausalLM", model_types=("llama",), chat_template=LLAMA3, tiny=f"{tiny}LLAMA", gguf=GGUF),
        mistral("MistralForCausalLM", model_types=("mistral",), tiny=f"{tiny}MISTRAL"),
        mistral("MinistralForCausalLM", model_types=("ministral",), tiny=f"{tiny}MINISTRAL"),
        ministral3("Ministral3ForCausalLM", model_types=("ministral3",), tiny=f"{tiny}MINISTRAL3"),
        ministral3("Mistral3ForConditionalGeneration", **around),
    ]
