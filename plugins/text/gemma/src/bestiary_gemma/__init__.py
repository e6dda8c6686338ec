"""Gemma, Gemma 2 and the text models of Gemma 3 for Bestiary."""

from collections.abc import Sequence
from typing import Any

import bestiary

CHAT = bestiary.ChatTemplate(
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content | trim + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ ns.system + message.content | trim }}<end_of_turn>\n{% set ns.system = '' %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    stop=("<end_of_turn>",),
)
WEIGHTS = (
    bestiary.drop("**.rotary_emb.inv_freq"),
    bestiary.tie("lm_head.weight", "model.embed_tokens.weight"),
)
# What the configuration classes of the three generations take for granted, and checkpoints therefore leave out.
GEMMA: dict[str, Any] = {"tie_word_embeddings": True, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh"}
GEMMA2 = {
    **GEMMA,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 2,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
GEMMA3 = {
    **GEMMA,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
}


STORED_NORMS = bestiary.map("**norm.weight", lambda weight, config: weight - 1)
"""GGUF files have one added already, which these norms add to their weights."""


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            name,
            "text",
            f"bestiary_gemma.model:{build}",
            WEIGHTS,
            model_types=(model_type,),
            gguf=(bestiary.Gguf(build, (STORED_NORMS,)),),
            chat_template=CHAT,
            defaults=defaults,
            tiny=f"bestiary_gemma.tiny:{build.upper()}",
            tool_format=tool_format,
        )
        for name, build, model_type, defaults, tool_format in (
            ("GemmaForCausalLM", "gemma", "gemma", GEMMA, None),
            ("Gemma2ForCausalLM", "gemma2", "gemma2", GEMMA2, None),
            ("Gemma3ForCausalLM", "gemma3", "gemma3_text", GEMMA3, "gemma3"),
        )
    ]


@bestiary.hookimpl
def bestiary_tool_formats() -> Sequence[bestiary.ToolFormat]:
    """Those of Gemma 3, whose template shows none, FunctionGemma and Gemma 4."""
    module = "bestiary.generation.tools.gemma"
    return [
        bestiary.ToolFormat("gemma3", f"{module}:Gemma3Parser", form=f"{module}:GEMMA3"),
        bestiary.ToolFormat(
            "function_gemma",
            f"{module}:FunctionGemmaParser",
            ("<start_function_call>", "call:"),
            form=f"{module}:FUNCTION_GEMMA",
        ),
        bestiary.ToolFormat("gemma4", f"{module}:Gemma4Parser", ("<|tool_call>", "call:"), form=f"{module}:GEMMA4"),
    ]
