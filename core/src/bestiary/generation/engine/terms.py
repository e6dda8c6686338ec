"""How a request is treated; what its text should be is `Sampling`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bestiary.errors import OptionError, shown


@dataclass(frozen=True)
class Terms:
    """Raises OptionError for a value out of its bounds."""

    priority: int = 0
    """Lower numbers run first; of equal ones the earlier arrival."""
    timeout: float | None = None
    """Seconds from its arrival after which the request fails with RequestTimeout."""
    cache_salt: str = ""
    """Requests with different salts never share what was computed for a prompt, and so cannot learn of each other's."""
    speculate: bool = True
    """Whether drafts may be made, where the model was loaded with some way to make them; they change no token."""

    def __post_init__(self) -> None:
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or abs(self.priority) > 1 << 31:
            raise OptionError(f"priority is {shown(self.priority)}; a whole number is due.")
        seconds = self.timeout
        if seconds is not None and (
            isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9
        ):
            raise OptionError(f"timeout is {shown(seconds)}; a positive number of seconds is due.")
        if not isinstance(self.cache_salt, str) or len(self.cache_salt) > 1024:
            raise OptionError("cache_salt is a text of up to 1024 characters.")
        if not isinstance(self.speculate, bool):
            raise OptionError(f"speculate is {shown(self.speculate)}; True or False is due.")

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Terms, dict[str, Any]]:
        """The terms among a request's options, and the others."""
        names = {field.name for field in fields(cls)}
        stated = {name: value for name, value in options.items() if name in names}
        return cls(**stated), {name: value for name, value in options.items() if name not in names}
