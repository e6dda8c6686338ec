"""Where Pillow keeps the pixels of a picture, by the C data interface of Apache Arrow: nothing is copied."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from PIL import Image


class NotShared(Exception):
    """Says why there is no one piece of memory to look at."""


@dataclass(frozen=True)
class Pixels:
    """Rows of pixels of 4 bytes."""

    address: int
    rows: int
    columns: int
    stride: int
    """Bytes from a row to the next."""
    owner: object
    """What keeps the memory."""


class _Array(ctypes.Structure):
    """https://arrow.apache.org/docs/format/CDataInterface.html, ArrowArray, as far as it is looked at."""


_Array._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
]

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_pointer.restype = ctypes.c_void_p


def shared(image: Image.Image) -> Pixels:
    """The memory of an RGB picture itself; who writes there changes it.  Raises NotShared."""
    try:
        _, capsule = image.__arrow_c_array__()
    except AttributeError as error:
        raise NotShared("Pillow before 11.2.1 does not show where pixels are") from error
    except ValueError as error:
        raise NotShared(str(error)) from error
    array = _Array.from_address(_pointer(capsule, b"arrow_array"))
    width, height = image.size
    if array.length != width * height or array.n_children != 1:
        raise NotShared(f"Pillow shows {array.length} pixels of a picture of {width} x {height}")
    numbers = array.children[0].contents
    if numbers.length != 4 * array.length or numbers.n_buffers != 2 or not numbers.buffers[1]:
        raise NotShared("Pillow shows pixels of other than 4 bytes")
    start = numbers.buffers[1] + 4 * array.offset + numbers.offset
    return Pixels(start, height, width, 4 * width, capsule)
