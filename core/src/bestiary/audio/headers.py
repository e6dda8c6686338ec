"""What the first bytes of a sound file tell: its format, and of WAV its sizes, which libsndfile mends in silence."""

from __future__ import annotations

import struct

from bestiary.errors import MediaError

_MOST_CHUNKS = 1024
"""Before the samples of a WAV file; honest ones have less than ten."""
_OPEN, _OPEN_SOX = 0xFFFFFFFF, 0x7FFFF000
"""What ffmpeg, and SoX in whole samples (`wav.c`), write as the size of the samples into a pipe, where they cannot go
back to it: they are all that follows."""
_FIX = "convert it: ffmpeg -i sound.{} sound.flac"
_FOREIGN = (
    (4, b"ftyp", "M4A or MP4", "m4a"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska", "webm"),
    (0, b"FORM", "AIFF", "aiff"),
    (0, b"RF64", "RF64", "rf64"),
    (0, b".snd", "AU", "au"),
    (0, b"caff", "CAF", "caf"),
    (0, b"\x30\x26\xb2\x75", "WMA", "wma"),
    (0, b"#!AMR", "AMR", "amr"),
)


def sniff(data: bytes, where: str) -> str:
    """ "WAV", "FLAC", "OGG" or "MP3", as libsndfile calls them.  Raises MediaError for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] == b"fLaC":
        return "FLAC"
    if data[:4] == b"OggS":
        return "OGG"
    # A frame of MPEG 1, 2 or 2.5, layer III: eleven ones, then a version and a layer that are not reserved.
    if data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2 and data[1] & 0x18 != 8):
        return "MP3"
    if not data:
        raise MediaError("The sound is empty.", where=where)
    for place, sign, name, ending in _FOREIGN:
        if data[place : place + len(sign)] == sign:
            raise MediaError(f"Sounds in {name} are not read.", where=where, fix=_FIX.format(ending))
    raise MediaError("This is no WAV, FLAC, OGG or MP3.", where=where, fix=_FIX.format("xyz"))


def wav_sizes(data: bytes, where: str) -> tuple[int, int, int]:
    """Channels, rate and samples of each channel that a WAV file states, or has where it leaves their number open.

    Raises MediaError where the file ends before the samples that it announces, and for a header that is none.
    """
    place, channels, rate, align = 12, 0, 0, 0
    for _ in range(_MOST_CHUNKS):
        if place + 8 > len(data):
            break
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"fmt ":
            if size < 16 or place + size > len(data):
                raise MediaError("The header of the WAV file is damaged.", where=where)
            channels, rate, _, align = struct.unpack_from("<HIIH", data, place + 2)
        elif name == b"data":
            if not channels or not rate or not align:
                raise MediaError("The WAV file states no channels, or no rate.", where=where)
            left = len(data) - place
            if size in (_OPEN, _OPEN_SOX // align * align):
                size = left
            if size > left:
                raise MediaError(
                    f"The WAV file announces {size} bytes of samples and has {left}.",
                    where=where,
                    fix="fetch it again, or write its header anew: ffmpeg -i sound.wav whole.wav",
                )
            return channels, rate, size // align
        place += size + size % 2
    raise MediaError("The WAV file has no samples.", where=where)
