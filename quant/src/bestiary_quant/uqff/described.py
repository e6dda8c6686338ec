"""What a file says of a layer in small tensors, checked against the large ones before any of those is read."""

from __future__ import annotations

from bestiary_quant.checkpoints.stored import Stored

_MOST = 1 << 31


def number(stored: Stored, name: str, kind: str) -> int:
    """A scalar of the type U8 or U32.  Raises CheckpointError for what is no such thing."""
    stored.check(name, (kind,), ())
    return int(stored.small(name, 4))


def dimensions(stored: Stored, name: str) -> tuple[int, ...]:
    """The shape that a file states for a weight: two or three sizes, none of them 0.  Raises CheckpointError."""
    stored.dtype(name, "U32")
    if stored.checkpoint.shape(name) not in ((2,), (3,)):
        raise stored.error(f"{name!r} has the shape {list(stored.checkpoint.shape(name))}; two or three sizes are due.")
    shape = tuple(int(size) for size in stored.small(name, 12).tolist())
    if not all(1 <= size <= _MOST for size in shape):
        raise stored.error(f"{name!r} is {list(shape)}; sizes from 1 to {_MOST} are due.")
    return shape


def check_bytes(stored: Stored, weight: str, due: int, shape: tuple[int, ...], kind: str) -> None:
    """Raises CheckpointError unless the weight is a row of so many bytes."""
    stored.dtype(weight, "U8")
    if tuple(stored.checkpoint.shape(weight)) != (due,):
        raise stored.error(
            f"{weight!r} has the shape {list(stored.checkpoint.shape(weight))}; {list(shape)} numbers of the type "
            f"{kind} take {due} bytes."
        )
