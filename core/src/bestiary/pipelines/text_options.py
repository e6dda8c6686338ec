"""What `bestiary.load` may be told about a text pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.adapters.anymoe_config import AnyMoeConfig
from bestiary.amount import as_bytes
from bestiary.errors import OptionError, shown
from bestiary.generation.engine.cache_types import check_cache_type
from bestiary.media.limits import MediaLimits

OWN = "default"
"""The alias of the adapter whose id was loaded; requests that name none have it."""


@dataclass(frozen=True)
class TextOptions:
    """Raises OptionError for a value out of its bounds."""

    tok_model_id: str | None = None
    """Another repository, by id or folder, whose tokenizer and chat template serve in place of the model's own."""
    tokenizer_json: str | None = None
    """The path of a tokenizer.json that serves in place of the repository's."""
    draft: Any = None
    """What guesses tokens ahead, which changes the speed and nothing else: "ngram" (from the text itself), the id of a
    smaller model with the same vocabulary."""
    draft_tokens: int = 4
    """Tokens that are guessed for each step."""
    adapters: Mapping[str, str] | None = None
    """PEFT adapters by the alias under which requests ask for them: an id or a folder each."""
    xlora: str | None = None
    """An X-LoRA model, which mixes adapters for every token: its id or folder."""
    xlora_order: str | Mapping[str, Any] | None = None
    """The ordering file of an X-LoRA model, as mistral.rs has it: its path or its content."""
    anymoe: AnyMoeConfig | None = None
    """Feed-forward blocks of several models as the experts of this one."""
    cache_memory: int | float | str | None = None
    """What the cache of keys and values may take, in place of `cache_tokens`: bytes, a text as "4 GiB", or a share of
    the free memory, as 0.5."""
    cache_type: str = "auto"
    """What keys and values are kept as: "auto", the model's own type, but "float16" where fast kernels compute packed
    weights in float32; "float16", "bfloat16"; "fp8", "int8" and "int4", which hold about twice, twice and three times
    the tokens of a 16-bit type in the same memory, and lose a little."""
    block_size: int = 16
    """Tokens of a block of the cache, 16 or 32: the unit in which beginnings are shared."""
    max_requests: int = 64
    """Requests that run at once; the others wait."""
    max_waiting: int = 1024
    """Requests that may wait; more are refused with Overloaded."""
    media_limits: MediaLimits | None = None
    """How large pictures and videos of requests may be, how many, and where they may come from."""
    compile: bool = False
    """Whether torch.compile compiles the layers, at the first requests."""
    replay: bool = True
    """Whether decoding steps are recorded once and replayed, where the kernels of the device can."""

    def __post_init__(self) -> None:
        for name, most in (("draft_tokens", 32), ("max_requests", 4096), ("max_waiting", 1 << 20)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise OptionError(f"{name} is {shown(value)}; a whole number from 1 to {most} is due.")
        if self.block_size not in (16, 32):
            raise OptionError(f"block_size is {shown(self.block_size)}; 16 or 32 is due.")
        cache_bytes(self.cache_memory)
        check_cache_type(self.cache_type)
        for name in ("compile", "replay"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} is {shown(getattr(self, name))}; True or False is due.")
        named = self.adapters
        if named is not None and not (
            isinstance(named, Mapping)
            and all(isinstance(alias, str) and isinstance(source, str) for alias, source in named.items())
        ):
            raise OptionError("adapters is a mapping of aliases to ids or folders.")
        if self.anymoe is not None and not isinstance(self.anymoe, AnyMoeConfig):
            raise OptionError(f"anymoe is {shown(self.anymoe)}; an AnyMoeConfig is due.")
        if self.media_limits is not None and not isinstance(self.media_limits, MediaLimits):
            raise OptionError(
                f"media_limits is {shown(self.media_limits)}; a bestiary.media.limits.MediaLimits is due."
            )
        if sum(option is not None for option in (self.xlora, self.anymoe, named)) > 1:
            raise OptionError("adapters, xlora and anymoe do not go together.", fix="choose one of them")

    @property
    def cache_bytes(self) -> int | float | None:
        """`cache_memory` as bytes, or as a share below 1."""
        return cache_bytes(self.cache_memory)


def cache_bytes(memory: int | float | str | None) -> int | float | None:
    """A `cache_memory` as bytes, or as a share below 1.  Raises OptionError."""
    if memory is None:
        return None
    if not isinstance(memory, float):
        return as_bytes("cache_memory", memory)
    if not 0 < memory < 1:
        raise OptionError(f"cache_memory is {shown(memory)}; a share is between 0 and 1.")
    return memory
