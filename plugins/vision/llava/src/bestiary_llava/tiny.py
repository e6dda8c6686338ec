"""Small configurations that exercise every argument, for `bestiary.testing`."""

from typing import Any

from bestiary.testing.tiny import decoder

_CLIP = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
_CLIP |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 7}
_SIGLIP = {**_CLIP, "model_type": "siglip_vision_model", "image_size": 30, "vision_use_head": False}
_PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def _text(model_type: str, **changes: Any) -> dict[str, Any]:
    text = decoder("", model_type, num_hidden_layers=2, max_position_embeddings=1024, **changes)
    del text["architectures"]
    return text


def _around(name: str, model_type: str, text: dict[str, Any], vision: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [name],
        "model_type": model_type,
        "text_config": text,
        "vision_config": vision,
        "image_token_index": 130,
        "tie_word_embeddings": text.get("tie_word_embeddings", False),
        **changes,
    }


def _llava(text: dict[str, Any], vision: dict[str, Any] = _CLIP, **changes: Any) -> dict[str, Any]:
    return _around("LlavaForConditionalGeneration", "llava", text, vision, **changes)


def _next(text: dict[str, Any], vision: dict[str, Any] = _CLIP, **changes: Any) -> dict[str, Any]:
    changes = {"image_grid_pinpoints": _PINPOINTS, **changes}
    return _around("LlavaNextForConditionalGeneration", "llava_next", text, vision, **changes)


_LLAMA, _MISTRAL = _text("llama"), _text("mistral", sliding_window=9)
_QWEN2 = _text("qwen2", tie_word_embeddings=True)
_FULL_SIGLIP = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}

LLAVA_LLAMA = (
    _llava(_LLAMA),
    _llava(_LLAMA, vision_feature_layer=[-1, 0, 2, -2], multimodal_projector_bias=False, projector_hidden_act="relu"),
    _llava({**_LLAMA, "tie_word_embeddings": True}, vision_feature_select_strategy="full", vision_feature_layer=1),
)
LLAVA_MISTRAL = (
    _llava(_MISTRAL),
    _llava(_text("mistral", sliding_window=None), {**_CLIP, "hidden_act": "gelu"}),
    _llava(_MISTRAL, vision_feature_layer=0),
)
LLAVA_QWEN2 = (
    _llava(_QWEN2, _SIGLIP, **_FULL_SIGLIP),
    _llava(_text("qwen2"), {**_SIGLIP, "vision_use_head": True}, **_FULL_SIGLIP),
    _llava(_QWEN2, _SIGLIP),
)
LLAVA_NEXT_LLAMA = (
    _next(_LLAMA),
    _next(_LLAMA, {**_CLIP, "image_size": 30}, image_grid_pinpoints=[[90, 60], [30, 30], [60, 120]]),
    _next({**_LLAMA, "tie_word_embeddings": True}, vision_feature_layer=[-2, 3], multimodal_projector_bias=False),
)
LLAVA_NEXT_MISTRAL = (
    _next(_MISTRAL),
    _next(_text("mistral", sliding_window=None), image_grid_pinpoints=[[84, 84]]),
    _next(_MISTRAL, vision_feature_layer=-1),
)
LLAVA_NEXT_QWEN2 = (
    _next(_QWEN2),
    _next(_text("qwen2"), _SIGLIP, image_grid_pinpoints=[[30, 60], [60, 60]], **_FULL_SIGLIP),
    _next(_QWEN2, vision_feature_layer=-3),
)
