"""Arrays of strings in a header, by NumPy at once where their form allows.

Each string stands behind its length in 8 bytes.  Of lengths below 65,536 the last six are zero, and text has no run of
six zeros, so all lengths are found by their zeros; whether every string then ends where the next length begins is
checked.  What does not pass is left to whoever reads string by string, and reports what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

    from bestiary_quant.gguf.cursor import Buffer

FEW = 64
"""Strings below which one by one is as fast."""
WINDOW = 1 << 13
"""Bytes looked at together when strings are stepped over: enough to be fast, and little memory."""


def span(data: Buffer, start: int, count: int) -> int | None:
    """The bytes that `count` strings from `start` on take; None: look at them one by one."""
    import numpy

    if count < FEW:
        return None
    at = start
    while count:
        starts, lengths = _lengths(numpy.frombuffer(data, numpy.uint8, min(WINDOW, len(data) - at), at), count)
        if not len(starts):
            return None
        at += int(starts[-1] + 8 + lengths[-1])
        count -= len(starts)
    return at - start


def texts(raw: bytes, count: int) -> list[str] | None:
    """The strings, which are all that is in `raw`; None: look at them one by one."""
    found = _parted(raw, count)
    if found is None:
        return None
    parted, starts, _ = found
    return _split(parted, starts)


def halves(raw: bytes, count: int) -> list[tuple[str, str]] | None:
    """Strings like `texts`, each parted at its one space; None: of one that has no space inside, or several."""
    found = _parted(raw, count)
    if found is None:
        return None
    parted, starts, lengths = found
    spaces = (parted == ord(" ")).nonzero()[0]
    if len(spaces) != count or (spaces <= starts + 8).any() or (spaces >= starts + 7 + lengths).any():
        return None
    parted[spaces] = 0
    words = _split(parted, starts)
    return None if words is None else list(zip(words[::2], words[1::2], strict=True))


def _parted(raw: bytes, count: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray] | None:
    """The bytes with zeros for lengths and nowhere else, where lengths lie and what they are."""
    import numpy

    if count < FEW:
        return None
    bytes = numpy.frombuffer(raw, numpy.uint8)
    starts, lengths = _lengths(bytes, count)
    if len(starts) < count:
        return None
    parted = bytes.copy()
    for place in range(8):
        parted[starts + place] = 0
    return None if len(parted) - numpy.count_nonzero(parted) != 8 * count else (parted, starts, lengths)


def _split(parted: numpy.ndarray, starts: numpy.ndarray) -> list[str] | None:
    """The texts between zeros, of which lengths become one; None: where they are not UTF-8."""
    import numpy

    kept = numpy.ones(len(parted), bool)
    for place in range(7):
        kept[starts + place] = False
    try:
        return parted[kept].tobytes().decode().split("\0")[1:]
    except UnicodeDecodeError:
        return None


def _lengths(window: numpy.ndarray, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Where lengths lie and what they are: of the first strings, up to `count`, that are whole and in order."""
    import numpy

    zeros = window == 0
    for step in (1, 2, 2):  # runs of 2, of 4, of 6
        zeros = zeros[:-step] & zeros[step:]
    # Lengths below 256 have seven zeros, and so two such runs: the last is the one that counts.
    last = zeros.copy()
    last[:-1] &= ~zeros[1:]
    starts = last.nonzero()[0][:count] - 2
    lengths = window[starts].astype(numpy.int64) + 256 * window[starts + 1].astype(numpy.int64)
    ends = starts + 8 + lengths
    fit = ends <= len(window)
    fit[:1] &= starts[:1] == 0
    fit[1:] &= starts[1:] == ends[:-1]
    sound = len(fit) if fit.all() else int(fit.argmin())
    return starts[:sound], lengths[:sound]
