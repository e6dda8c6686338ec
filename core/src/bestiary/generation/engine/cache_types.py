"""The names of what keys and values may be kept as; free of torch, as the options that are checked before a load."""

from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean

CACHE_TYPES = ("auto", "float16", "bfloat16", "fp8", "int8", "int4")
"""The model's own type, two types narrower than float32, and what `packed_memory` packs into."""


def check_cache_type(name: object) -> None:
    """Raises OptionError, with the nearest name, for what is none of `CACHE_TYPES`."""
    if not isinstance(name, str) or name not in CACHE_TYPES:
        near = did_you_mean(name, CACHE_TYPES) if isinstance(name, str) else ""
        raise OptionError(f"cache_type is {shown(name)}.", fix=near or f"use one of {', '.join(CACHE_TYPES)}")
