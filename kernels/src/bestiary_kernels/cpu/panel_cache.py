"""Panels on disk, so that a model that was loaded before is mapped and not packed again.

A file holds the panels of one weight.  Its name is a hash of where the weight came from, so a changed model file has
other names; the folder is that of BESTIARY_PANELS ("off": none), by default one in the user's cache.  What was not used
for the longest time is removed when more than BESTIARY_PANELS_GB (by default 40) lie there, and nothing is written to a
disk that it would fill.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch

from bestiary_kernels.cpu.panels import Panels
from bestiary_kernels.cpu.types import PANEL, PanelType

log = logging.getLogger("bestiary.kernels")

LEAST = 1 << 16
"""Bytes of a weight below which packing costs less than a file."""

_LAYOUT = 1
"""Counts changes of the layout of panels."""


def folder() -> Path | None:
    """Where panels are kept; None: nowhere."""
    named = os.environ.get("BESTIARY_PANELS")
    if named == "off":
        return None
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bestiary" / "panels"


def cached(source: str, type: PanelType, rows: int, width: int, make: Callable[[], Panels]) -> Panels:
    """The panels of `rows` of `width` bytes that `source` names, from disk where they are, else made and put there."""
    columns = width // type.nbytes * type.columns
    shape = (-(-rows // PANEL), type.panel(columns))
    place = folder()
    if place is None or shape[0] * shape[1] < LEAST:
        return make()
    model, _, name = source.partition("/")
    key = sha256(f"{name} {type.name} {rows} {columns} {_LAYOUT}".encode()).hexdigest()[:32]
    path = place / sha256(model.encode()).hexdigest()[:32] / f"{key}.panels"
    found = _mapped(path, shape)
    if found is not None:
        return Panels(found, type, rows, columns)
    made = make()
    _write(path, made.data)
    # The file's pages can be given back to the system, and memory of our own cannot.
    found = _mapped(path, shape)
    return made if found is None else Panels(found, type, rows, columns)


def _mapped(path: Path, shape: tuple[int, int]) -> torch.Tensor | None:
    size = shape[0] * shape[1]
    try:
        if path.stat().st_size != size:
            return None
        os.utime(path.parent)  # when the model was last used
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
    except (OSError, RuntimeError):
        return None


def _write(path: Path, data: torch.Tensor) -> None:
    """Whole or not at all; what fails is said, and does no harm."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent.parent, path.parent, data.numel())
        with unfinished.open("wb") as file:
            data.numpy().tofile(file)
        unfinished.replace(path)
    except OSError as error:
        log.info("panels are not kept at %s: %s", path.parent, error)
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _make_room(place: Path, model: Path, needed: int) -> None:
    """Remove the models that were not used for the longest time.  Raises OSError where there is no room even so."""
    most = float(os.environ.get("BESTIARY_PANELS_GB") or 40) * 1e9
    models = sorted((path for path in place.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in models}
    for path in models:
        if sum(sizes.values()) + needed <= most:
            break
        if path != model:
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]
    if sum(sizes.values()) + needed > most:
        raise OSError("they would take more than BESTIARY_PANELS_GB")
    if shutil.disk_usage(place).free < 4 * needed:
        raise OSError("the disk is nearly full")
