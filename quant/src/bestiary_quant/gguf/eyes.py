"""From the metadata of a companion (mmproj) to what config.json and preprocessor_config.json say of a model's eyes.

A companion has `general.architecture` "clip", the sizes of a tower, and the kind of its projector, by which the family
is known; what it takes for granted is that of the published models of the family.  The facts are those of llama.cpp
(https://github.com/ggml-org/llama.cpp, conversion/ and tools/mtmd/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from bestiary.errors import CheckpointError, shown
from bestiary_quant.gguf.header import Entry
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf.single import shortest

FIX = 'take the companion that was published with the model, or load the text model alone with mmproj="off"'
_BLOCK = re.compile(r"v\.blk\.([0-9]{1,9})\..+")
_LARGEST = 1 << 20
_MOST_PIXELS = 1 << 14
_MOST_PINPOINTS = 1 << 10
_MOST_TOKENS = 1 << 21


def seeing_config(companion: Companion, text: Mapping[str, Any], words: Metadata) -> dict[str, Any]:
    """The configuration of the text model `text` with these eyes; `words` is the metadata of its own file.

    It is that of the text model with more keys, so that it serves the text model alone too: of the two names in
    `architectures` the first has eyes.  Raises UnknownEyes for a projector that is not known with such a text model,
    CheckpointError for sizes that are not those of the tensors, and for rows that are not as wide as its states.
    """
    family = FAMILIES.get(companion.projector)
    if family is None or words.architecture not in family.texts:
        raise UnknownEyes(
            f'A projector of the kind "{companion.projector[:100]}" is not known for models of {words.architecture}.',
            where=companion.metadata.origin,
            fix=f"known are {', '.join(FAMILIES)}; {FIX}",
        )
    companion.check_tower()
    companion.check_width(family.rows, text.get("hidden_size"))
    name, more = family.describe(companion, text, words)
    return {**text, **more, "architectures": [name, *text["architectures"]]}


class UnknownEyes(CheckpointError):
    """A companion of a family that is not read here."""


@dataclass(frozen=True)
class Companion:
    """The header of a companion."""

    metadata: Metadata
    tensors: Mapping[str, Entry]

    @property
    def projector(self) -> str:
        """By which the family is known; the first files did not say it, and were of LLaVA."""
        keys = ("clip.projector_type", "clip.vision.projector_type")
        return next((text for key in keys if (text := self.metadata.text(key, most=100))), "mlp")

    def whole(self, key: str, default: int | None = None, most: int = _LARGEST) -> int:
        """A number above 0 behind `clip.vision.`."""
        value = self.metadata.whole(f"clip.vision.{key}")
        value = default if value is None else value
        if value is None or not 1 <= value <= most:
            found = "not there" if value is None else shown(value)
            raise self.error(f"The metadata clip.vision.{key} is {found}; a whole number from 1 to {most} is due.")
        return value

    def eps(self, default: float) -> float:
        return shortest(self.metadata.number("clip.vision.attention.layer_norm_epsilon")) or default

    def flag(self, key: str) -> bool:
        return self.metadata.get(key, False) is True

    def wholes(self, key: str, most: int) -> list[int]:
        """An array behind `clip.vision.` of up to so many numbers; empty where it is not there."""
        values = self._array(f"clip.vision.{key}", most)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self.error(f"The metadata clip.vision.{key} is {shown(values)}; whole numbers are due.")
        return values

    def channels(self, key: str) -> list[float] | None:
        values = self._array(f"clip.vision.{key}", 3)
        if not values:
            return None
        if len(values) != 3 or not all(isinstance(value, float) and isfinite(value) for value in values):
            raise self.error(f"The metadata clip.vision.{key} is {shown(values)}; three numbers are due.")
        return [shortest(value) or 0.0 for value in values]

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        entry = self.tensors.get(name)
        if entry is None or len(entry.shape) != dimensions:
            found = "not there" if entry is None else f"of the shape {list(entry.shape)}"
            raise self.error(f"The tensor {name} is {found}; {dimensions} dimensions are due.")
        return entry.shape

    def layers(self) -> int:
        return self.whole("block_count", most=1024)

    def inner(self) -> int:
        """The width within a feed-forward block.  Files of Qwen2-VL state another number, or 0."""
        up, down = (set(self.shape(f"v.blk.0.ffn_{name}.weight", 2)) for name in ("up", "down"))
        width = self.whole("embedding_length")
        (found, *others) = {*up, *down} - {width} or {width}
        if others or (up != down):
            raise self.error("The feed-forward blocks are of several widths.")
        return found

    def check_tower(self) -> None:
        """Raises CheckpointError where the metadata say other sizes than the tensors have, whatever they allocate."""
        blocks = {int(found[1]) for name in self.tensors if (found := _BLOCK.fullmatch(name))}
        if blocks != set(range(self.layers())):
            raise self.error(f"The tower has {self.layers()} layers by its metadata, and {len(blocks)} by its tensors.")
        patch = self.whole("patch_size", most=_MOST_PIXELS)
        due = (self.whole("embedding_length"), 3, patch, patch)
        if self.shape("v.patch_embd.weight", 4) != due:
            stored = list(self.shape("v.patch_embd.weight", 4))
            raise self.error(f"The patches are stored as {stored}; by the metadata {list(due)} are due.")
        side = self.whole("image_size", most=_MOST_PIXELS) // patch
        if "v.position_embd.weight" in self.tensors:
            rows = self.shape("v.position_embd.weight", 2)[0] - ("v.class_embd" in self.tensors)
            if rows != side**2:
                raise self.error(f"The tower has {rows} positions; {side} x {side} patches are those of its pictures.")

    def check_width(self, rows: tuple[str, int], hidden: Any) -> None:
        """Raises CheckpointError unless the projector makes rows as wide as the text model's states."""
        name, axis = rows
        width = self.shape(name, 2)[axis]
        if width != hidden:
            raise self.error(f"The eyes are for a text model {width} numbers wide; this one is {shown(hidden)}.")

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(what, where=self.metadata.origin, fix=FIX)

    def _array(self, key: str, most: int) -> list[Any]:
        if key not in self.metadata:
            return []
        if not 1 <= (count := self.metadata.count(key) or 0) <= most:
            raise self.error(f"The metadata {key} is no array of 1 to {most} items, but of {count}.")
        values = self.metadata[key]
        return values if isinstance(values, list) else values.tolist()  # type: ignore[union-attr]


Description = tuple[str, dict[str, Any]]
"""The name of an architecture, and the keys of its configuration beside those of the text model."""


def _gemma3(eyes: Companion, text: Mapping[str, Any], words: Metadata) -> Description:
    vision = _vit(eyes, "siglip_vision_model", "gelu_pytorch_tanh")
    side, scale = vision["image_size"] // vision["patch_size"], eyes.whole("projector.scale_factor", 4)
    rows = side // scale
    if not rows or side // rows != scale:
        raise eyes.error(f"Squares of {scale} patches a side are not averaged from {side} x {side}.")
    made = {
        "mm_tokens_per_image": rows**2,
        "vision_config": vision,
        "preprocessor_config": _pictures(eyes, size=_square(vision["image_size"])),
    }
    return "Gemma3ForConditionalGeneration", made


def _idefics3(eyes: Companion, text: Mapping[str, Any], words: Metadata) -> Description:
    titles = [each.text(f"general.{key}") or "" for each in (eyes.metadata, words) for key in ("name", "basename")]
    # The file of a SmolVLM 2 is like that of a SmolVLM but for its name; it alone takes videos.
    second = any(re.search(r"smolvlm[\W_]?2", title.lower()) for title in titles)
    size = eyes.whole("image_size")
    edge = eyes.whole("preproc_image_size", 4 * size, most=1 << 16)
    videos = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": size}}
    pictures = _pictures(eyes, size={"longest_edge": edge}, max_image_size={"longest_edge": size})
    made = {
        "scale_factor": eyes.whole("projector.scale_factor", 2),
        "vision_config": _vit(eyes, "smolvlm_vision" if second else "idefics3_vision", "gelu_pytorch_tanh"),
        "preprocessor_config": {**pictures, "video_sampling": videos} if second else pictures,
    }
    return "SmolVLMForConditionalGeneration" if second else "Idefics3ForConditionalGeneration", made


def _qwen2_vl(eyes: Companion, text: Mapping[str, Any], words: Metadata) -> Description:
    width, inner = eyes.whole("embedding_length"), eyes.inner()
    # A number of which the reader takes the whole part of its product with the width.
    ratio: float = inner // width if inner % width == 0 else (inner + 0.5) / width
    vision = {"embed_dim": width, "mlp_ratio": ratio, "hidden_size": text["hidden_size"], **_patches(eyes)}
    vision["hidden_act"] = _activation(eyes, "gelu", "quick_gelu")
    return "Qwen2VLForConditionalGeneration", {"vision_config": vision, "preprocessor_config": _any_size(eyes)}


def _qwen2_5_vl(eyes: Companion, text: Mapping[str, Any], words: Metadata) -> Description:
    period = eyes.whole("n_wa_pattern")
    vision = {
        "hidden_size": eyes.whole("embedding_length"),
        "intermediate_size": eyes.inner(),
        "out_hidden_size": text["hidden_size"],
        **_patches(eyes),
        "hidden_act": _activation(eyes, "gelu", "silu"),
        "window_size": eyes.whole("window_size", 112),
        "fullatt_block_indexes": list(range(period - 1, eyes.layers(), period)),
        "tokens_per_second": 2,
    }
    return "Qwen2_5_VLForConditionalGeneration", {"vision_config": vision, "preprocessor_config": _any_size(eyes)}


def _llava(eyes: Companion, text: Mapping[str, Any], words: Metadata) -> Description:
    clip, size, layers = "v.class_embd" in eyes.tensors, eyes.whole("image_size"), eyes.layers()
    vision = (
        _vit(eyes, "clip_vision_model", _activation(eyes, "gelu", "quick_gelu"))
        if clip
        else _vit(eyes, "siglip_vision_model", "gelu_pytorch_tanh")
    )
    vision["post_layernorm"] = "v.post_ln.weight" in eyes.tensors  # which is not used, and mostly left out
    flat = eyes.wholes("image_grid_pinpoints", 2 * _MOST_PINPOINTS)
    tiled = bool(flat) or eyes.metadata.text("clip.vision.mm_patch_merge_type", most=100) == "spatial_unpad"
    sizes = {"size": {"shortest_edge": size}, "crop_size": _square(size)} if clip else {"size": _square(size)}
    made: dict[str, Any] = {
        "vision_config": vision,
        # Layers behind the one that is read are not in the file.
        "vision_feature_layer": eyes.wholes("feature_layer", 1024) or layers,
        "vision_feature_select_strategy": "default" if clip else "full",
        "multimodal_projector_bias": "mm.0.bias" in eyes.tensors,
        "image_token_index": _token(words, "<image>"),
    }
    if not tiled:
        kind = "CLIPImageProcessor" if clip else "SiglipImageProcessor"
        made["preprocessor_config"] = _pictures(eyes, image_processor_type=kind, **sizes)
        return "LlavaForConditionalGeneration", made
    pairs = [list(pair) for pair in zip(flat[::2], flat[1::2], strict=False)]
    points = {"image_grid_pinpoints": pairs} if pairs else {}
    pictures = _pictures(eyes, image_processor_type="LlavaNextImageProcessor", **sizes)
    return "LlavaNextForConditionalGeneration", {**made, **points, "preprocessor_config": {**pictures, **points}}


def _vit(eyes: Companion, model_type: str, act: str) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": eyes.whole("embedding_length"),
        "intermediate_size": eyes.inner(),
        "num_hidden_layers": eyes.layers(),
        "num_attention_heads": eyes.whole("attention.head_count"),
        "image_size": eyes.whole("image_size"),
        "patch_size": eyes.whole("patch_size"),
        "hidden_act": act,
        "layer_norm_eps": eyes.eps(1e-6),
    }


def _patches(eyes: Companion) -> dict[str, Any]:
    return {
        "depth": eyes.layers(),
        "num_heads": eyes.whole("attention.head_count"),
        "patch_size": eyes.whole("patch_size"),
        "spatial_merge_size": eyes.whole("spatial_merge_size", 2),
        "temporal_patch_size": 2,
    }


def _any_size(eyes: Companion) -> dict[str, Any]:
    """From 4 to 16384 rows of a picture, as the published models have it, where the file does not say."""
    sizes = _patches(eyes)
    row = (sizes["patch_size"] * sizes["spatial_merge_size"]) ** 2
    return _pictures(
        eyes,
        min_pixels=eyes.whole("image_min_pixels", 4 * row, most=1 << 26),
        max_pixels=eyes.whole("image_max_pixels", 16384 * row, most=1 << 26),
        patch_size=sizes["patch_size"],
        merge_size=sizes["spatial_merge_size"],
        temporal_patch_size=sizes["temporal_patch_size"],
    )


def _pictures(eyes: Companion, **more: Any) -> dict[str, Any]:
    """A preprocessor_config.json."""
    known = {key: values for key in ("image_mean", "image_std") if (values := eyes.channels(key)) is not None}
    return {**known, **more}


def _activation(eyes: Companion, gelu: str, otherwise: str) -> str:
    if eyes.flag("clip.use_silu"):
        return "silu"
    return gelu if eyes.flag("clip.use_gelu") else otherwise


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _token(words: Metadata, text: str) -> int | None:
    """The id of a token, by its text; None where there is none."""
    if not 0 < (words.count("tokenizer.ggml.tokens") or 0) <= _MOST_TOKENS:
        return None
    tokens = words["tokenizer.ggml.tokens"]
    return tokens.index(text) if isinstance(tokens, list) and text in tokens else None


@dataclass(frozen=True)
class Family:
    """What is known of the companions of one kind of projector."""

    texts: tuple[str, ...]
    """`general.architecture` of the text models that they see for."""
    rows: tuple[str, int]
    """The tensor that makes rows for the text model, and its dimension that is as wide as they are."""
    describe: Callable[[Companion, Mapping[str, Any], Metadata], Description]


FAMILIES: Mapping[str, Family] = {
    "gemma3": Family(("gemma3",), ("mm.input_projection.weight", 1), _gemma3),
    "idefics3": Family(("llama",), ("mm.model.fc.weight", 0), _idefics3),
    "qwen2vl_merger": Family(("qwen2vl",), ("mm.2.weight", 0), _qwen2_vl),
    "qwen2.5vl_merger": Family(("qwen2vl",), ("mm.2.weight", 0), _qwen2_5_vl),
    "mlp": Family(("llama", "qwen2"), ("mm.2.weight", 0), _llava),
}
"""By `clip.projector_type`."""
