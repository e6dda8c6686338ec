"""A folder that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bestiary.errors import CheckpointError, OptionError


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to be filled; its files move there when the block ends, and vanish if it fails.

    A folder that is not there, or is empty, appears at once, with all its files.  Into any other the files move one by
    one, each of them whole.  Raises CheckpointError where the disk is full or cannot be written to.
    """
    target = Path(os.path.realpath(folder))
    made: Path | None = None
    try:
        if target.exists() and not target.is_dir():
            raise OptionError("This is a file; a folder is due.", where=folder, fix="name a folder that does not exist")
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        yield made
        made.chmod(0o777 & ~_umask())
        _publish(made, target)
    except OSError as error:
        raise _refused(error, folder) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _publish(made: Path, target: Path) -> None:
    for path in made.iterdir():
        _flush(path)
    if target.exists() and any(target.iterdir()):
        for path in sorted(made.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
            path.replace(target / path.name)  # what lists the others comes last
    else:
        made.replace(target)  # also over an empty folder
    for place in (target, target.parent):
        _flush(place)


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _refused(error: OSError, folder: Path) -> CheckpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CheckpointError(
        "The disk is full; nothing was left behind."
        if full
        else f"The folder cannot be written: {error.strerror or error}; nothing was left behind.",
        where=folder,
        fix="make room, or choose a folder on another disk" if full else "choose a folder that may be written to",
    )
