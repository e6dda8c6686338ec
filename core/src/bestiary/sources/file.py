"""A model in a single weight file, such as a .gguf, with the small files that lie next to it."""

# ruff: noqa: PTH111, PTH113, PTH118, PTH119, PTH120 - os.path answers False where Path raises: a name too long, a folder not to be read

import os
import re
from pathlib import Path, PurePath

from bestiary.errors import ModelNotFound, UnsafeName
from bestiary.records import SourceOptions
from bestiary.sources.folder import Folder, refuse_revision

# fmt: off
WEIGHT_SUFFIXES = frozenset({
    ".safetensors", ".gguf", ".ggml", ".uqff", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".npy", ".h5",
    ".msgpack", ".onnx", ".pb", ".tflite", ".mlmodel",
})
# fmt: on
"""Endings under which weights are published.  That of the chosen file is added, so a plugin's format needs none."""

_COMPANIONS = frozenset({".json", ".jinja", ".model", ".txt", ".tiktoken", ".yaml", ".yml", ".vocab", ".spm"})
_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.[^.]+)")


def claims_file(id: str) -> bool:
    """Whether `id` is the path of a file."""
    return os.path.isfile(os.path.expanduser(id))


def open_file(id: str, options: SourceOptions) -> Folder:
    """The folder around the file at `id`, in which no other weights are seen.

    A part of a split model (`name-00001-of-00003.gguf`) stands for all its parts.  config.json and the files of the
    tokenizer, which lie next to it, stay visible, and so does a file that an option of its format names (`told`), such
    as that of its eyes; folders below do not.
    """
    refuse_revision(id, options)
    try:
        path = Path(id).expanduser()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError):
        raise UnsafeName(f"{id[:80]!a} cannot be a path.", fix="give the path of a weight file") from None
    if not found:
        raise ModelNotFound(f"There is no file {str(path)!r}.", where=path.parent)
    named = _named(path, options)
    keep = lambda name: name in named or _belongs(name, path.name)  # noqa: E731
    folder = Folder(path.parent, id, keep=keep, depth=1, trusted=[*_parts(path), *named])
    folder.origin = str(folder.root / path.name)
    return folder


def _named(path: Path, options: SourceOptions) -> frozenset[str]:
    """The files beside `path` that the user named, by a path or by the name alone."""
    given = [os.path.expanduser(value) for value in options.told.values() if isinstance(value, str)]
    beside = os.path.realpath(path.parent)
    near = (each for each in given if os.path.dirname(each) == "" or os.path.realpath(os.path.dirname(each)) == beside)
    return frozenset(
        os.path.basename(each) for each in near if os.path.isfile(os.path.join(beside, os.path.basename(each)))
    )


def _belongs(name: str, chosen: str) -> bool:
    if name == chosen or _same_split(name, chosen):
        return True
    suffix = PurePath(name).suffix.lower()
    if suffix in WEIGHT_SUFFIXES or suffix == PurePath(chosen).suffix.lower():
        return False
    if name.endswith(".index.json"):  # it would name the shards of another model, except for the chosen one's own
        split = _SPLIT.fullmatch(chosen)
        return split is not None and name == f"{split['stem']}{split['suffix']}.index.json"
    return suffix in _COMPANIONS


def _same_split(name: str, chosen: str) -> bool:
    one, other = _SPLIT.fullmatch(name), _SPLIT.fullmatch(chosen)
    return (
        one is not None
        and other is not None
        and one.group("stem", "count", "suffix") == other.group("stem", "count", "suffix")
    )


def _parts(path: Path) -> list[str]:
    """The names that the user asked for by giving `path`: their links may lead anywhere."""
    if not _SPLIT.fullmatch(path.name):
        return [path.name]
    return [entry.name for entry in path.parent.iterdir() if _same_split(entry.name, path.name)]
