"""Pictures into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bestiary.errors import OptionError


def save(image: Image.Image, path: Path) -> None:
    """Write a picture in the format of the path's ending; a PNG file also has the texts in its `info`.

    Raises OptionError where that is not possible, and leaves no half of a file.
    """
    how: dict[str, Any] = {}
    if path.suffix.lower() == ".png":
        how["pnginfo"] = PngInfo()
        for name, value in image.info.items():
            how["pnginfo"].add_itxt(str(name), str(value))
    try:
        image.save(path, **how)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise OptionError(
            f"The picture cannot be written: {reason or error}.", where=path, fix="choose another place for it"
        ) from error
