"""Qwen2-VL and Qwen2.5-VL, which see pictures and videos of any size, for Bestiary."""

from collections.abc import Sequence

import bestiary
from bestiary_qwen import WEIGHTS as TEXT

CHAT = bestiary.ChatTemplate(
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    stop=("<|im_end|>",),
)
# Published checkpoints, then what transformers 4.52 to 5 keeps in memory and some of its saved checkpoints have.
WEIGHTS = (
    bestiary.rename("model.visual.**", "visual.**"),
    bestiary.rename("visual.merger.**", "media.projector.**"),
    bestiary.rename("visual.**", "media.tower.**"),
    bestiary.rename("model.language_model.**", "model.**"),
    # A convolution whose steps are as large as its kernel: a product with the numbers of a patch.
    bestiary.map("media.tower.patch_embed.proj.weight", lambda weight, config: weight.reshape(len(weight), -1)),
    *TEXT,
)
# In a companion (mmproj) the matrices of a patch's two frames are apart, and so are those of q, k and v.
GGUF_TOWER = (
    bestiary.rename("v.patch_embd.weight", "v.patch_embd.weight.0"),
    bestiary.stack("media.tower.patch_embed.proj.weight", "v.patch_embd.weight.#"),
    bestiary.map("media.tower.patch_embed.proj.weight", lambda weight, config: weight.permute(1, 2, 0, 3, 4)),
    *(
        bestiary.cat(f"media.tower.blocks.*.attn.qkv.{kind}", *(f"v.blk.*.attn_{letter}.{kind}" for letter in "qkv"))
        for kind in ("weight", "bias")
    ),
    bestiary.rename("v.blk.*.attn_qkv.*", "media.tower.blocks.*.attn.qkv.*"),
    bestiary.rename("v.blk.*.attn_out.*", "media.tower.blocks.*.attn.proj.*"),
    bestiary.rename("v.blk.*.ln1.*", "media.tower.blocks.*.norm1.*"),
    bestiary.rename("v.blk.*.ln2.*", "media.tower.blocks.*.norm2.*"),
    bestiary.rename("v.post_ln.*", "media.projector.ln_q.*"),
    bestiary.rename("mm.*.*", "media.projector.mlp.*.*"),
)
GGUF = {
    "qwen2_vl": {"ffn_up": "fc1", "ffn_down": "fc2"},
    "qwen2_5_vl": {"ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"},
}
"""What the feed-forward matrices are called."""


def _gguf(model_type: str) -> bestiary.Gguf:
    renames = (
        bestiary.rename(f"v.blk.*.{stored}.*", f"media.tower.blocks.*.mlp.{name}.*")
        for stored, name in GGUF[model_type].items()
    )
    return bestiary.Gguf("qwen2vl", (*GGUF_TOWER, *renames))


# What the configuration classes take for granted, and checkpoints may therefore leave out.
DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "qkv_bias": True,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 80,
}


def _is_chat_model(evidence: bestiary.Evidence) -> bool | None:
    """Embedding models have the class name too; a sentence-transformers file beside it tells them apart."""
    return False if "config_sentence_transformers.json" in evidence.files else None


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            name,
            "vision",
            f"bestiary_qwen_vl.model:{model_type}",
            WEIGHTS,
            model_types=(model_type,),
            gguf=(_gguf(model_type),),
            probe=_is_chat_model,
            chat_template=CHAT,
            processor=f"bestiary_qwen_vl.processor:{model_type}",
            defaults=DEFAULTS,
            tiny=f"bestiary_qwen_vl.tiny:{model_type.upper()}",
        )
        for name, model_type in (
            ("Qwen2VLForConditionalGeneration", "qwen2_vl"),
            ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"),
        )
    ]
