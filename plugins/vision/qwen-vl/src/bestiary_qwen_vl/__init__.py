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
