"""What the tensors of a file say of a CLIP text encoder: image models are published with such files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HEAD = 64
"""The width of a head in every published model."""
_OPENAI = 768
"""The width of OpenAI's largest text encoder; wider ones are OpenCLIP's, which have another activation."""
_END = 49407
_TOKENS = "text_model.embeddings.token_embedding.weight"
_POSITIONS = "text_model.embeddings.position_embedding.weight"
_FIRST = "text_model.encoder.layers.0.mlp.fc1.weight"
_PROJECTION = "text_projection.weight"
_LAYER = re.compile(r"text_model\.encoder\.layers\.([0-9]{1,4})\.")
_BESIDE = ("text_model.embeddings.position_ids", "logit_scale")
_BARE = ("embeddings.", "encoder.", "final_layer_norm.")
_EYES = ("vision_model.", "visual_projection.")


def describe(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The config.json object of a file with these tensors; None where they are not CLIP's text encoder.

    Names are those of transformers, published ("text_model.encoder...") or as version 5 saves them ("encoder..."), and
    may be those of a whole CLIPModel.  What no shape tells is as published: heads of 64, and the activation by width.
    """
    named = {f"text_model.{name}" if name.startswith(_BARE) else name: shape for name, shape in shapes.items()}
    text = {name: tuple(shape) for name, shape in named.items() if not name.startswith(_EYES)}
    table, positions, first = (text.get(name, ()) for name in (_TOKENS, _POSITIONS, _FIRST))
    if not len(table) == len(positions) == len(first) == 2 or table[1] % _HEAD or 0 in (*table, *positions, *first):
        return None
    layers = 1 + max(int(found[1]) for found in map(_LAYER.match, text) if found)
    values = {
        "vocab_size": table[0],
        "hidden_size": table[1],
        "intermediate_size": first[0],
        "num_hidden_layers": layers,
        "num_attention_heads": table[1] // _HEAD,
        "max_position_embeddings": positions[0],
        "hidden_act": "quick_gelu" if table[1] <= _OPENAI else "gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": min(_END, table[0] - 1),
    }
    projection = text.get(_PROJECTION)
    if projection is not None and len(projection) != 2:
        return None
    due = _due(values, None if projection is None else projection[0])
    if {name: shape for name, shape in text.items() if name not in _BESIDE} != due:
        return None
    if projection is not None:
        values["projection_dim"] = projection[0]
    if len(text) < len(named):
        return _whole(values)
    name = "CLIPTextModel" if projection is None else "CLIPTextModelWithProjection"
    return {"architectures": [name], "model_type": "clip_text_model", **values}


def plain(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What `describe` says of a CLIPTextModel; None for anything else."""
    return _only("CLIPTextModel", shapes)


def projected(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What `describe` says of a CLIPTextModelWithProjection; None for anything else."""
    return _only("CLIPTextModelWithProjection", shapes)


def half(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What `describe` says of a CLIPModel; None for anything else."""
    return _only("CLIPModel", shapes)


def _only(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    config = describe(shapes)
    return config if config is not None and config["architectures"] == [name] else None


def _whole(text: dict[str, Any]) -> dict[str, Any] | None:
    """Both halves; without the projection, what stands beside the eyes is no CLIPModel."""
    if "projection_dim" not in text:
        return None
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": text["projection_dim"],
        "text_config": {"model_type": "clip_text_model", **text},
    }


def _due(values: Mapping[str, Any], projection: int | None) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a text encoder with its shape."""
    dim, hidden = values["hidden_size"], values["intermediate_size"]
    layer: dict[str, tuple[int, ...]] = {
        **{f"self_attn.{name}_proj.weight": (dim, dim) for name in ("q", "k", "v", "out")},
        **{f"self_attn.{name}_proj.bias": (dim,) for name in ("q", "k", "v", "out")},
        **{f"layer_norm{number}.{part}": (dim,) for number in (1, 2) for part in ("weight", "bias")},
        "mlp.fc1.weight": (hidden, dim),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (dim, hidden),
        "mlp.fc2.bias": (dim,),
    }
    return {
        _TOKENS: (values["vocab_size"], dim),
        _POSITIONS: (values["max_position_embeddings"], dim),
        **{
            f"text_model.encoder.layers.{number}.{name}": shape
            for number in range(values["num_hidden_layers"])
            for name, shape in layer.items()
        },
        "text_model.final_layer_norm.weight": (dim,),
        "text_model.final_layer_norm.bias": (dim,),
        **({} if projection is None else {_PROJECTION: (projection, dim)}),
    }
