"""Kernels for Bestiary: native code on CPUs, Triton on GPUs."""

from collections.abc import Sequence

from bestiary.hookspecs import hookimpl
from bestiary.records import KernelBackend

_TYPES = ("float32", "bfloat16", "float16")
_ROUNDED = 1e-2
"""Of results that are rounded to 8 bits of mantissa."""
_INT8 = 3e-2
"""Of products whose activations are rounded to int8."""


def _native(operation: str, function: str, tolerance: float) -> KernelBackend:
    return KernelBackend(
        operation,
        _TYPES,
        ("cpu",),
        f"bestiary_kernels.cpu.{function}",
        priority=10,
        name="native",
        unavailable="bestiary_kernels.cpu.operations:unavailable",
        tolerance=tolerance,
    )


def _triton(operation: str, function: str, tolerance: float = _ROUNDED) -> KernelBackend:
    return KernelBackend(
        operation,
        _TYPES,
        ("cuda",),
        f"bestiary_kernels.triton.{function}",
        priority=10,
        name="triton",
        unavailable="bestiary_kernels.triton.operations:unavailable",
        tolerance=tolerance,
    )


@hookimpl
def bestiary_kernels() -> Sequence[KernelBackend]:
    return (
        _native("record", "recording:record", 0.0),
        _native("between", "quiet:quiet", 0.0),
        _native("adopt", "weights:adopt", 0.0),
        _native("linear", "operations:linear", _INT8),
        _native("embed", "operations:embed", _ROUNDED),
        _native("rms_norm", "operations:rms_norm", _ROUNDED),
        _native("layer_norm", "operations:layer_norm", _ROUNDED),
        _native("act", "operations:act", _ROUNDED),
        _native("add", "operations:add", _ROUNDED),
        _native("add_rms_norm", "operations:add_rms_norm", _ROUNDED),
        _native("gated", "operations:gated", _ROUNDED),
        _native("rotate", "operations:rotate", _ROUNDED),
        _native("experts", "operations:experts", _INT8),
        _native("attend", "attending:attend", _ROUNDED),
        KernelBackend(
            "resize",
            ("uint8",),
            ("cpu",),
            "bestiary_kernels.cpu.media.resizing:resize",
            priority=10,
            name="native",
            unavailable="bestiary_kernels.cpu.media.resizing:unavailable",
            tolerance=0.0,
        ),
        _triton("adopt", "weights:adopt", 0.0),
        _triton("linear", "operations:linear"),
        _triton("rms_norm", "operations:rms_norm"),
        _triton("add_rms_norm", "operations:add_rms_norm"),
        _triton("gated", "operations:gated"),
        _triton("experts", "operations:experts"),
        _triton("attend", "attending:attend"),
    )
