"""Numbers that were rounded to 32 bits when a file was written."""

from __future__ import annotations

import math
import struct


def shortest(value: float | None) -> float | None:
    """The shortest number that is the same as float32, in which files store it: 1e-05 for 9.999999747378752e-06."""
    if value is None or value != _single(value):
        return value
    return next(short for digits in range(1, 18) if _single(short := float(f"{value:.{digits}g}")) == value)


def _single(value: float) -> float:
    try:
        single: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.inf
    return single
