"""Writing companions (mmproj) with the gguf package, as llama.cpp's converters do it: their outside writer here.

Those of CLIP under LLaVA come from the older of them (tools/mtmd/legacy-models), which has names of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers

from bestiary.testing.reference import Reference

PIXELS = ([0.5, 0.25, 0.5], [0.5, 0.5, 0.75])
"""Mean and deviation, which no family has as its default."""
PUBLISHED = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.visual.", "visual."),
)
Tensors = Iterator[tuple[str, torch.Tensor]]


def text_part(reference: Reference, folder: Path) -> Reference:
    """The text model of one that sees, as a model of its own."""
    whole = reference.model
    config = whole.config.text_config
    inner = getattr(whole.model, "text_model", None) or whole.model.language_model
    kind = {"gemma3_text": "Gemma3", "llama": "Llama"}.get(config.model_type, "Qwen2")
    if kind == "Qwen2":
        values = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "vision_config")}
        config = transformers.Qwen2Config(**values)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().float()
    model.model.load_state_dict(inner.state_dict())
    model.lm_head.weight = torch.nn.Parameter(whole.lm_head.weight.clone())
    model.save_pretrained(folder)
    return Reference(folder, model)


def write_companion(reference: Reference, path: Path, **changes: Any) -> Path:
    """The tower and the projector in float32.  `changes` are metadata; None leaves one out."""
    family = FAMILIES[reference.model.config.model_type]
    writer = gguf.GGUFWriter(path, "clip")
    for key, value in {**family[0](reference.model.config), **changes}.items():
        _add(writer, key, value)
    for name, tensor in family[1](reference.model):
        writer.add_tensor(name, tensor.contiguous().numpy())
    return write(writer, path)


def write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    getattr(writer, f"add_{kinds[type(value)]}")(key if "." in key else f"clip.vision.{key}", value)


def _common(config: Any, projector: str) -> dict[str, Any]:
    vision = config.vision_config
    return {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": projector,
        "projection_dim": config.text_config.hidden_size,
        "patch_size": vision.patch_size,
        "image_mean": PIXELS[0],
        "image_std": PIXELS[1],
    }


def _vit(config: Any, projector: str) -> dict[str, Any]:
    vision = config.vision_config
    return {
        **_common(config, projector),
        "image_size": vision.image_size,
        "embedding_length": vision.hidden_size,
        "feed_forward_length": vision.intermediate_size,
        "block_count": vision.num_hidden_layers,
        "clip.vision.attention.head_count": vision.num_attention_heads,
        "clip.vision.attention.layer_norm_epsilon": vision.layer_norm_eps,
        "clip.use_gelu": True,
    }


def _siglip(config: Any) -> dict[str, Any]:
    if config.model_type == "gemma3":
        side = config.vision_config.image_size // config.vision_config.patch_size
        scale = side // int(config.mm_tokens_per_image**0.5)
        return {**_vit(config, "gemma3"), "clip.vision.projector.scale_factor": scale}
    made = {**_vit(config, "idefics3"), "clip.vision.projector.scale_factor": config.scale_factor}
    return {**made, "preproc_image_size": 2 * config.vision_config.image_size}


def _qwen(config: Any) -> dict[str, Any]:
    vision, modern = config.vision_config, config.model_type == "qwen2_5_vl"
    width = vision.hidden_size if modern else vision.embed_dim
    made = {
        **_common(config, "qwen2.5vl_merger" if modern else "qwen2vl_merger"),
        "image_size": 560,
        "embedding_length": width,
        "feed_forward_length": vision.intermediate_size if modern else vision.hidden_size,  # sic
        "block_count": vision.depth,
        "clip.vision.attention.head_count": vision.num_heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
    }
    if modern:
        made |= {"clip.use_silu": True, "n_wa_pattern": vision.fullatt_block_indexes[0] + 1}
        made |= {"window_size": vision.window_size}
    return made


def _llava(config: Any) -> dict[str, Any]:
    vision, made = config.vision_config, _vit(config, "mlp")
    layer = vision.num_hidden_layers + 1 + config.vision_feature_layer
    made |= {"block_count": layer, "feature_layer": [layer], "projection_dim": 768, "clip.has_llava_projector": True}
    made |= {"clip.use_gelu": False}
    if config.model_type == "llava_next":
        flat = [edge for pair in config.image_grid_pinpoints for edge in pair]
        made |= {"image_grid_pinpoints": flat, "mm_patch_merge_type": "spatial_unpad"}
    return made


def _mapped(model: Any) -> Tensors:
    """By the tables of the gguf package, from the names under which checkpoints are published."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 64)
    for name, tensor in _eyes(model):
        for old, new in PUBLISHED:
            name = new + name.removeprefix(old) if name.startswith(old) else name
        if "patch_embed.proj.weight" in name and tensor.ndim == 5:
            yield "v.patch_embd.weight", tensor[:, :, 0]
            yield "v.patch_embd.weight.1", tensor[:, :, 1]
            continue
        parts = zip("qkv", tensor.chunk(3), strict=True) if ".qkv." in name else [("qkv", tensor)]
        for letter, part in parts:
            stored = _stored(table, name.replace("qkv", letter).replace("_weight", ".weight"))
            yield stored, part + 1 if "soft_emb_norm" in stored else part


def _stored(table: gguf.TensorNameMap, name: str) -> str:
    if name.startswith("visual.merger.mlp."):  # the table knows the first of a projector's matrices
        return name.replace("visual.merger.mlp", "mm")
    stored = table.get_name(name, try_suffixes=(".weight", ".bias"))
    assert stored is not None, name
    return stored


LEGACY = (
    ("model.multi_modal_projector.linear_1", "mm.0"),
    ("model.multi_modal_projector.linear_2", "mm.2"),
    ("model.image_newline", "model.image_newline"),
    ("model.vision_tower.", "v."),
    ("encoder.layers", "blk"),
    ("embeddings.", ""),
    ("_proj", ""),
    ("self_attn.", "attn_"),
    ("layer_norm", "ln"),
    ("mlp.fc1", "ffn_down"),  # sic
    ("mlp.fc2", "ffn_up"),
    ("embedding", "embd"),
    ("layrnorm", "ln"),
)


def _clip(model: Any) -> Tensors:
    config = model.config
    layers = config.vision_config.num_hidden_layers + 1 + config.vision_feature_layer
    for name, tensor in _eyes(model):
        number = re.search(r"encoder\.layers\.(\d+)", name)
        if "post_layernorm" in name or (number and int(number[1]) >= layers):
            continue
        for old, new in LEGACY:
            name = name.replace(old, new)
        yield name, tensor


def _eyes(model: Any) -> Tensors:
    for name, tensor in model.state_dict().items():
        if not name.startswith(("model.language_model.", "model.text_model.", "lm_head.")):
            yield name, tensor.float()


FAMILIES: Mapping[str, tuple[Callable[[Any], dict[str, Any]], Callable[[Any], Tensors]]] = {
    "gemma3": (_siglip, _mapped),
    "idefics3": (_siglip, _mapped),
    "smolvlm": (_siglip, _mapped),
    "qwen2_vl": (_qwen, _mapped),
    "qwen2_5_vl": (_qwen, _mapped),
    "llava": (_llava, _clip),
    "llava_next": (_llava, _clip),
}
