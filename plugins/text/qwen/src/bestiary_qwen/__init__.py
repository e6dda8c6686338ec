"""Qwen2, Qwen2.5, QwQ, Qwen3 and their mixtures of experts for Bestiary."""

from collections.abc import Sequence

import bestiary

BUILD = "bestiary_qwen.model:build"
CHATML = bestiary.ChatTemplate(
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    stop=("<|im_end|>",),
)
WEIGHTS = (
    bestiary.drop("**.rotary_emb.inv_freq"),
    bestiary.tie("lm_head.weight", "model.embed_tokens.weight"),
)
EXPERTS = (
    *WEIGHTS,
    *(
        bestiary.stack(f"model.layers.*.mlp.experts.{name}", f"model.layers.*.mlp.experts.#.{name}.weight")
        for name in ("gate_proj", "up_proj", "down_proj")
    ),
)


STORED_GATE = bestiary.map("**.mlp.shared_expert_gate.weight", lambda weight, config: weight.reshape(1, -1))
"""GGUF files have it as a vector."""

QWEN2_VL_TEXT = bestiary.Gguf("qwen2vl")
"""The text model of Qwen2-VL is a Qwen2: positions in three dimensions are the same three times where all is text."""


def _is_chat_model(evidence: bestiary.Evidence) -> bool | None:
    """Qwen3-Embedding has the class name of the chat model; a sentence-transformers file beside it tells them apart."""
    return False if "config_sentence_transformers.json" in evidence.files else None


def _architecture(
    name: str,
    model_type: str,
    tiny: str,
    weights: tuple[object, ...] = WEIGHTS,
    gguf: tuple[bestiary.Gguf, ...] = (),
    **defaults: object,
) -> bestiary.Architecture:
    return bestiary.Architecture(
        name,
        "text",
        BUILD,
        weights,
        model_types=(model_type,),
        gguf=(bestiary.Gguf(model_type.replace("_", ""), (STORED_GATE,)), *gguf),
        probe=_is_chat_model,
        chat_template=CHATML,
        defaults={"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, **defaults},
        tiny=f"bestiary_qwen.tiny:{tiny}",
    )


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        _architecture("Qwen2ForCausalLM", "qwen2", "QWEN2", gguf=(QWEN2_VL_TEXT,), qkv_bias=True),
        _architecture("Qwen3ForCausalLM", "qwen3", "QWEN3", head_dim=128),
        _architecture("Qwen2MoeForCausalLM", "qwen2_moe", "QWEN2_MOE", EXPERTS, qkv_bias=True),
        _architecture("Qwen3MoeForCausalLM", "qwen3_moe", "QWEN3_MOE", EXPERTS, max_window_layers=0),
    ]


@bestiary.hookimpl
def bestiary_tool_formats() -> Sequence[bestiary.ToolFormat]:
    """That of Qwen3-Coder and Qwen 3.5; the others speak Hermes, which the core brings."""
    module = "bestiary.generation.tools.qwen_coder"
    signs = ("<tool_call>", "<function=", "<parameter=")
    return [bestiary.ToolFormat("qwen_coder", f"{module}:QwenCoderParser", signs, form=f"{module}:FORM")]
