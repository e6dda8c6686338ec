"""Where the parts of a pipeline come from, as the command line says it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bestiary.errors import OptionError


def parts_of(given: Sequence[str]) -> str | dict[str, str] | None:
    """What `--part` says: NAME=ID for a part, or one ID for all that is missing.  Raises OptionError."""
    if not given:
        return None
    named = dict(each.split("=", 1) for each in given if re.match(r"[a-z0-9_]+=", each))
    if not named and len(given) == 1:
        return given[0]
    if len(named) < len(given):
        raise OptionError("--part is NAME=ID for each part, or one ID alone.", fix="--part vae=ae.safetensors")
    return named
