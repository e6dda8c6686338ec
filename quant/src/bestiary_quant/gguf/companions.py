"""Which companion (mmproj) of a repository sees for its text model: the one that a user names, or the best.

Publishers put it beside the model, in one or several plain types: `mmproj-F16.gguf`, `mmproj-BF16.gguf`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from bestiary.errors import CheckpointError, OptionError, shown
from bestiary.protocols import Repository
from bestiary.sources.chosen import Chosen
from bestiary_quant.gguf.selection import SUFFIX, companions, files
from bestiary_quant.labels import says

OFF = "off"
_BEST = ("bf16", "f16", "fp16", "f32", "fp32")
"""Types in names, the best first: eyes lose more by fewer bits than a text model does, and gain nothing by 32."""


def weight_files(repository: Repository) -> tuple[str, ...]:
    """The files of the model, and its companion where the repository was narrowed to both (`Evidence.weights`)."""
    text = files(repository)
    return (*text, *companions(repository.files())) if isinstance(repository, Chosen) else text


def choose_companion(sizes: Mapping[str, int], wanted: Any, origin: str) -> str | None:
    """Of files with their sizes, by the load option `mmproj`; None: there is none, or none is wanted.

    True or None: the best that is there; False or "off": none; a text: the name of one, a path that ends in it, or a
    part of it between its separators.  Raises CheckpointError for a name that none has, OptionError for other values.
    """
    if wanted is False or wanted == OFF:
        return None
    found = companions(sizes)
    if wanted is None or wanted is True:
        if wanted and not found:
            raise _absent("There is no companion (mmproj*.gguf) here.", found, origin)
        return min(found, key=_rank, default=None)
    if not isinstance(wanted, str) or not wanted:
        raise OptionError(
            f"mmproj={shown(wanted)} is no name.",
            fix='give the name of a .gguf file, or "off" for the text model alone',
        )
    tail = os.path.basename(wanted)  # noqa: PTH119 - a name, which need be no path of this machine
    named = [name for name in found if name == wanted] or [name for name in found if name.rpartition("/")[2] == tail]
    if not wanted.endswith(SUFFIX):
        named = named or [name for name in found if says(name, wanted)]
    if len(named) != 1:
        what = "No companion" if not named else f"{len(named)} companions"
        raise _absent(f'{what} here (mmproj*.gguf) may be meant by "{wanted[:200]}".', found, origin)
    return named[0]


def _rank(name: str) -> tuple[int, str]:
    kinds = re.findall(r"(?<![a-z0-9])(?:bf16|fp?16|fp?32)(?![a-z0-9])", name.lower().removesuffix(SUFFIX))
    return _BEST.index(kinds[-1]) if kinds else len(_BEST), name


def _absent(what: str, found: list[str], origin: str) -> CheckpointError:
    listed = ", ".join(found[:20])
    fix = (
        f"there are {listed}"
        if found
        else "put it beside the file of the model, with mmproj in its name, or leave mmproj= out"
    )
    return CheckpointError(what, where=origin, fix=fix)
