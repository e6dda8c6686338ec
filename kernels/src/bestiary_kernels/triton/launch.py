"""What every launch of a kernel has in common."""

from collections.abc import Mapping

OPTIONS: Mapping[str, bool] = {"enable_fp_fusion": True}
"""Products and sums may be one operation: said, because Triton's default differs between its versions."""


def power_of_two(number: int) -> int:
    """The least power of two that is not less, and at least 1."""
    return 1 << max(number - 1, 0).bit_length()


def tiles(number: int, size: int) -> int:
    """How many tiles of a size cover a number."""
    return -(-number // size)
