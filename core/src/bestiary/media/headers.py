"""What is known of a file before a decoder touches it, where Pillow would tell too late.

GIF: each frame may enlarge the picture, and Pillow finds out one frame at a time, between decoding them.
JPEG: a progressive picture has any number of scans, of a few bytes each, and each costs a walk over all pixels
(libjpeg-turbo, doc/security: "progressive bombs").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(rb"[!,;]")
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_SCAN, _END = 0xDA, 0xD9


@dataclass(frozen=True)
class Extent:
    """The frames of a GIF, and the canvas that holds them all."""

    frames: int
    width: int
    height: int


def gif_extent(data: bytes, most: int) -> Extent:
    """Of the first `most` frames, walked as Pillow's reader walks, oddities included, so that both see the same."""
    width, height = _u16(data, 6), _u16(data, 8)
    at = 13 + _table(data, 10)
    frames = 0
    while frames < most and (found := _BLOCK.search(data, at)) is not None:
        at = found.end()
        if found.group() == b";":
            break
        if found.group() == b"!":
            label, first = data[at : at + 1], data[at + 1 : at + 2]
            at = _after_blocks(data, at + 1)
            if first in (b"", b"\0") and label != b"\xfe":  # Pillow then reads one more run of blocks
                at = _after_blocks(data, at)
            continue
        if at + 9 > len(data):
            break
        width = max(width, _u16(data, at) + _u16(data, at + 4))
        height = max(height, _u16(data, at + 2) + _u16(data, at + 6))
        at = _after_blocks(data, at + 9 + _table(data, at + 8) + 1)
        frames += 1
    return Extent(frames, width, height)


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _table(data: bytes, at: int) -> int:
    """Bytes of the colour table that the flags at this place announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _after_blocks(data: bytes, at: int) -> int:
    """The place after a run of blocks, each led by its length, the last empty."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def jpeg_scans(data: bytes, most: int) -> int:
    """The scans of a JPEG's first picture, counted up to `most`."""
    at, scans = 2, 0
    while scans < most and (found := _MARKER.search(data, at)) is not None:
        at, marker = found.end(), found.group()[1]
        if marker == _END:
            break
        scans += marker == _SCAN
        # Lengths count their own two bytes; where one lies, the search goes on from the marker itself.
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans
