"""Pickled weights are recognised, by name and by first bytes, and never loaded: unpickling runs code from the file.

There is no switch for it.  `weights_only` loading was bypassed more than once (CVE-2025-32434) and still builds
tensors that read outside of their memory.
"""

from collections.abc import Iterable

from bestiary.errors import CheckpointError

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".npy", ".joblib", ".mar")
"""Endings of files that hold pickles, or may."""

FIX = (
    "use a revision of the repository that has .safetensors files, or the same model from a repository that has them; "
    "else convert the file once, in a sandbox, with `from safetensors.torch import save_file`"
)


def is_pickle(name: str, head: bytes = b"") -> bool:
    """Whether a file is, or by its name may be, pickled; `head` are its first bytes (at least 16, if there are)."""
    if head:
        if looks_like_safetensors(head) or head.startswith(b"GGUF"):
            return False
        if kind_of(head) is not None:
            return True
    return name.lower().endswith(SUFFIXES)


def refuse(names: Iterable[str], origin: object) -> None:
    """Raise CheckpointError if any of these names is of a pickled weight file; say how to convert it."""
    if pickled := [name for name in names if is_pickle(name)]:
        shown = ", ".join(map(repr, pickled[:5])) + (f" and {len(pickled) - 5} more" if len(pickled) > 5 else "")
        raise CheckpointError(
            f"The weights are pickled ({shown}): opening them would run code from the file", where=origin, fix=FIX
        )


def foreign(head: bytes, origin: object) -> CheckpointError | None:
    """The error for a file that is not what its name says, where its first bytes tell what it is instead."""
    if head.startswith(b"version https://git-lfs"):
        return CheckpointError(
            "The file is a pointer of Git LFS, not the weights themselves", where=origin, fix="run `git lfs pull` there"
        )
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        return CheckpointError(
            "The file is a web page, probably the error or login page of a server",
            where=origin,
            fix="fetch the file again, with a token if the model is gated",
        )
    if head.startswith(b"GGUF"):
        return CheckpointError("The file is GGUF, not safetensors", where=origin, fix="rename it to end in .gguf")
    if not looks_like_safetensors(head) and (kind := kind_of(head)) is not None:
        return CheckpointError(f"The file is {kind}: opening it could run code from the file", where=origin, fix=FIX)
    return None


def kind_of(head: bytes) -> str | None:
    """What a pickled file is, by its first bytes; None for anything else."""
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive of pickled tensors" if b"data.pkl" in head else "a zip archive, as torch.save writes"
    if head.startswith(b"\x93NUMPY"):
        return "a NumPy array, which may be pickled"
    # Protocols 2 to 5 begin with 0x80 and their number; then an opcode, and none is zero.
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] != 0:
        return "a pickle"
    return None


def looks_like_safetensors(head: bytes) -> bool:
    """Whether the first nine bytes are those of a safetensors file: a length below 4 GiB, then a brace.

    Asked before the marks of pickle, because the length 640 begins with the bytes 0x80 0x02 as a pickle does.
    """
    return len(head) > 8 and head[4:9] == b"\0\0\0\0{"
