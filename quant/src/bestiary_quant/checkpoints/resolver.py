"""Which quantisation a checkpoint has: what its configuration states, what its tensors show and what the user asks.

The tensors decide how a weight is unpacked; the configuration decides which reader looks at them; and an argument that
asks for the same scheme, or for a layout of it that only kernels care about, changes nothing.  All else is a conflict.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bestiary.errors import CheckpointError, ConfigError, OptionError, shown
from bestiary.nearest import did_you_mean

READERS: Mapping[str, str] = {
    **dict.fromkeys(("gptq", "gptq_marlin"), "gptq"),
    "marlin": "marlin",
    "awq": "awq",
    **dict.fromkeys(("fp8", "fbgemm_fp8"), "fp8"),
    **dict.fromkeys(("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"), "bitsandbytes"),
    **dict.fromkeys(("compressed-tensors", "compressed_tensors"), "compressed_tensors"),
    "hqq": "hqq",
    **dict.fromkeys(("mlx", "afq", "metal"), "mlx"),
    "mxfp4": "mxfp4",
    **dict.fromkeys(("modelopt", "modelopt_fp4", "nvfp4"), "modelopt"),
}
"""Values of `quant_method`, with the module of this package that reads them."""

_SAME: Mapping[str, tuple[str, ...]] = {
    "gptq": ("gptq", "marlin", "gptq_marlin"),
    "marlin": ("gptq", "marlin", "gptq_marlin"),
    "awq": ("awq", "marlin", "awq_marlin"),
    "fp8": ("fp8", "fbgemm_fp8", "float8"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "bnb"),
    "compressed_tensors": ("compressed-tensors", "compressed_tensors"),
    "hqq": ("hqq",),
    "mlx": ("mlx", "afq", "metal"),
    "mxfp4": ("mxfp4",),
    "modelopt": ("modelopt", "modelopt_fp4", "nvfp4"),
}
"""What a user may ask for, by reader, and get the checkpoint as it is, besides the one kind of all its weights."""

_MARKS = {
    ".qweight": "gptq or awq",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
    ".weight_scale_inv": "fp8",
    ".W_q": "hqq",
    "_blocks": "mxfp4",
    ".weight_scale_2": "modelopt",
}
"""Endings of names that only packed tensors have."""


def recognise(values: Mapping[str, Any]) -> bool:
    """Whether a configuration without `quant_method` is one that is read here all the same."""
    return _unnamed(values) is not None


def _unnamed(values: Mapping[str, Any]) -> str | None:
    producer = values.get("producer")
    if isinstance(producer, Mapping) and producer.get("name") == "modelopt":
        return "modelopt"
    signs = (("desc_act", "gptq"), ("w_bit", "awq"), ("bits", "mlx"))
    return next((method for key, method in signs if key in values), None)


def stated_method(values: Mapping[str, Any], where: str) -> str:
    """The `quant_method` of a configuration, where it has none by what only one method writes.

    MLX states bits and group_size alone; the older files beside config.json, quantize_config.json of AutoGPTQ,
    quant_config.json of AutoAWQ and hf_quant_config.json of ModelOpt, have no method either.  Raises ConfigError.
    """
    method = values.get("quant_method")
    if method is None:
        method = _unnamed(values)
    if not isinstance(method, str):
        raise ConfigError(f'"quant_method" is {shown(method)}; a name is due.', where=where)
    method = method.lower()
    if method not in READERS:
        raise ConfigError(
            f'The quant_method "{method[:100]}" is not read here.',
            where=where,
            fix=did_you_mean(method[:100], READERS) or f"those that are: {', '.join(READERS)}",
        )
    return method


def check_asked(asked: str | None, method: str, kinds: Collection[str], where: str) -> None:
    """Raises OptionError where `quant=` asks for another scheme than the checkpoint is packed in.

    `kinds` are those of its weights, such as "NF4" or "AFQ4".
    """
    if asked is None or asked.lower() in _SAME[READERS[method]] or {asked.upper()} == set(kinds):
        return
    raise OptionError(
        f"The checkpoint is already packed as {method} ({', '.join(sorted(kinds)[:5]) or 'nothing'}), "
        f"and quant={shown(asked)} asks for another scheme.",
        where=f'{where} ("quant_method": "{method}") and the argument quant',
        fix="leave quant away, or load the model from a checkpoint that is not quantised",
    )


def check_left(left: Sequence[tuple[str, str, int]], method: str, where: str, origin: str) -> None:
    """Raises CheckpointError where a tensor that no weight took, (name, type, dimensions), is packed after all."""
    for name, _, _ in left:
        other = next((other for mark, other in _MARKS.items() if name.endswith(mark)), None)
        if other is not None:
            raise CheckpointError(
                f'{where} says that the weights are packed as {method}, and the tensor "{name}" is one of {other}.',
                where=origin,
                fix="check that config.json and the weights are of one model",
            )
    for name, kind, dimensions in left:
        if dimensions > 1 and (kind.startswith(("F8", "F6", "F4")) or kind in ("I8", "U8", "U32")):
            raise CheckpointError(
                f'The tensor "{name}" of type {kind} is packed, and has no scale that {method} would have.',
                where=origin,
                fix=f"fetch the files again, or check the quant_method of {where}",
            )
