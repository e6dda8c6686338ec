"""The metadata of a GGUF file from a configuration: the opposite of `bestiary_quant.gguf.config`.

Keys as llama.cpp's converter writes them (conversion/base.py, llama.py, qwen.py, gemma.py, set_gguf_parameters).
llama.cpp itself gives no window to Llama and Qwen; Bestiary reads the one that stands in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bestiary.config import FULL, SLIDING, Config
from bestiary.errors import ConfigError, OptionError, shown
from bestiary_quant.gguf.config import ARCHITECTURES, NUMBERS, WHOLE
from bestiary_quant.writing.rope import rope_pairs
from bestiary_quant.writing.values import Pairs, f32, flags, text, u32

WRITTEN: Mapping[str, str] = MappingProxyType(
    {family.name: name for name, family in reversed([*ARCHITECTURES.items()])}
    | dict.fromkeys(("MistralForCausalLM", "MinistralForCausalLM", "MixtralForCausalLM"), "llama")
)
"""`general.architecture` of every architecture that can be written; of several with one name the first."""
_SIZES = ("pooling_type", "vocab_size", "head_dim", "sliding_window")
"""What is written elsewhere, or not by this list."""
_PERIODS = {"gemma2": 2, "gemma3": 6}
"""Every how many layers one sees everything, where a file says nothing."""


def gguf_architecture(name: str) -> str:
    """Raises OptionError, which lists those that can be written."""
    if name not in WRITTEN:
        raise OptionError(
            f"Models of the architecture {name} cannot be written as GGUF.", fix=f"one of {', '.join(sorted(WRITTEN))}"
        )
    return WRITTEN[name]


def config_pairs(config: Config, architecture: str) -> Pairs:
    """What a file says of its network.  Raises OptionError for what files of the architecture cannot say."""
    _check(config, architecture)
    pairs: Pairs = {}
    sparse = bool(config.get("num_experts"))
    for key, name in WHOLE.items():
        value = config.get(name)
        if value is None or name in _SIZES or ("expert" in key and not sparse):
            continue
        pairs[f"{architecture}.{key}"] = u32(_whole(config, name))
    for key, name in NUMBERS.items():
        if not name.startswith("rope") and config.get(name) is not None:
            pairs[f"{architecture}.{key}"] = f32(_number(config, name))
    for key in ("key_length", "value_length"):
        pairs[f"{architecture}.attention.{key}"] = u32(config.head_dim)
    rope = config.rope()
    turning = int(config.head_dim * (rope.get("partial_rotary_factor") or 1.0))
    if architecture == "llama" or turning != config.head_dim:
        pairs[f"{architecture}.rope.dimension_count"] = u32(turning)
    pairs.update(rope_pairs(rope, architecture))
    local = config.rope_parameters.get(SLIDING)
    if architecture == "gemma3" and local is not None:
        pairs[f"{architecture}.rope.freq_base_swa"] = f32(local["rope_theta"])
    if architecture == "llama":
        pairs[f"{architecture}.vocab_size"] = u32(config.vocab_size)
    pairs.update(_windows(config, architecture))
    return pairs


def general_pairs(architecture: str, name: str) -> Pairs:
    """What every file begins with."""
    return {"general.architecture": text(architecture), "general.type": text("model"), "general.name": text(name)}


def _windows(config: Config, architecture: str) -> Pairs:
    kinds = tuple(config.layer_types)
    unknown = set(kinds) - {FULL, SLIDING}
    if unknown:
        raise OptionError(f"GGUF files do not know layers of the kind {shown(min(unknown))}.")
    limited = [kind == SLIDING for kind in kinds]
    period = _PERIODS.get(architecture)
    if period is None and not any(limited):
        return {}
    prefix = f"{architecture}.attention.sliding_window"
    pairs = {prefix: u32(config.get("sliding_window") or 0)}
    usual = [period is not None and (layer + 1) % period != 0 for layer in range(len(limited))]
    if limited != usual:
        pairs[f"{prefix}_pattern"] = flags(limited)
    return pairs


def _whole(config: Config, name: str) -> int:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise ConfigError(f'"{name}" is {shown(value)}; a whole number is due.', where=config.origin)
    return value


def _number(config: Config, name: str) -> float:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise ConfigError(f'"{name}" is {shown(value)}; a number is due.', where=config.origin)
    return float(value)


def _check(config: Config, architecture: str) -> None:
    """What a reader takes for granted must be so."""
    family = ARCHITECTURES[architecture]
    assumed: dict[str, Any] = dict(family.constants)
    stated: Mapping[str, Any] = {
        "hidden_act": config.get("hidden_act", "silu"),
        "decoder_sparse_step": config.get("decoder_sparse_step", 1),
        "mlp_only_layers": list(config.get("mlp_only_layers") or ()),
        "norm_topk_prob": config.get("norm_topk_prob", False),
    }
    if architecture.startswith("gemma") and stated["hidden_act"] == "gelu":  # which has always meant the same there
        stated = {**stated, "hidden_act": "gelu_pytorch_tanh"}
    if family.largest is not None:
        heads = config.hidden_size // config.num_attention_heads
        assumed["query_pre_attn_scalar"] = heads if config.num_hidden_layers == family.largest else config.head_dim
        stated = {**stated, "query_pre_attn_scalar": config.get("query_pre_attn_scalar", config.head_dim)}
    if architecture == "gemma2" and not all(config.get(f"{part}_logit_softcapping") for part in ("attn", "final")):
        raise OptionError("GGUF files of the architecture gemma2 always have soft caps, and here is none.")
    for key, value in stated.items():
        if key in assumed and value != assumed[key]:
            raise OptionError(
                f"Readers of GGUF files of the architecture {architecture} take {key} for {shown(assumed[key])}, and "
                f"here it is {shown(value)}.",
                where=config.origin,
                fix="write the model as safetensors, with --to safetensors:SCHEME",
            )
