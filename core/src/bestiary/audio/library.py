"""libsndfile, which reads and writes the files: an extra, loaded where it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bestiary.errors import OptionError


def soundfile() -> Any:
    """The module.  Raises OptionError where it, or its library, is not installed."""
    try:
        return import_module("soundfile")
    except (ImportError, OSError) as error:  # the second: there is no libsndfile for this machine
        raise OptionError(f"Sound files need soundfile: {error}.", fix='pip install "bestiary-core[audio]"') from error
