"""A model in a local folder."""

# ruff: noqa: PTH110, PTH111, PTH112 - os.path answers False where Path raises: a name too long, a folder not to be read

import logging
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from bestiary.errors import ModelNotFound, OptionError, SourceError, UnsafeName
from bestiary.nearest import did_you_mean
from bestiary.records import Progress, SourceOptions
from bestiary.sources.names import check_name, name_fault

MAX_ENTRIES = 10_000
"""Files and folders looked at before a folder is taken for something else than a model."""
MAX_DEPTH = 8

log = logging.getLogger(__name__)


def claims_folder(id: str) -> bool:
    """Whether `id` is a folder, or has the form of a path where nothing lies: then the error should say just that."""
    path = os.path.expanduser(id)
    return os.path.isdir(path) or (has_path_form(id) and not os.path.exists(path))


def has_path_form(id: str) -> bool:
    """Whether `id` can only be meant as a local path."""
    return id in (".", "..") or id.startswith(("./", "../", "/", "~", ".\\", "..\\")) or id[1:3] in (":\\", ":/")


def open_folder(id: str, options: SourceOptions) -> "Folder":
    """The folder at `id`.  Raises ModelNotFound, or OptionError where a revision is asked of it."""
    refuse_revision(id, options)
    try:
        root = Path(id).expanduser()
        found = root.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, the home of an unknown user
        raise UnsafeName(f"{id[:80]!a} cannot be a path.", fix="give the path of a model's folder") from None
    if not found:
        parent = root.parent if root.parent.is_dir() else Path()
        hint = did_you_mean(root.name, _listing(parent))
        raise ModelNotFound(
            f"There is no folder or file {str(root)!r}.",
            where=parent.resolve(),
            fix=hint or 'give an existing folder or weight file, a hub id such as "org/name", or "demo"',
        )
    return Folder(root, id)


def refuse_revision(id: str, options: SourceOptions) -> None:
    """Raises OptionError: what lies in a folder is its only revision, and an option is never dropped in silence."""
    if options.revision is not None:
        raise OptionError(
            f"revision={options.revision!r} was asked of a local path, which has no revisions.",
            where=id,
            fix="leave the revision out, or give the id of a hub repository",
        )


class Folder:
    """Repository over a local folder; it reads nothing outside, follows no link that leads outside, and sends nothing.

    The list of files is read once, at its first use.  `keep` says which names of the folder belong to the model;
    `trusted` are names whose links the user asked for by name, so they may lead anywhere.
    """

    local = True

    def __init__(
        self,
        root: Path,
        id: str,
        *,
        keep: Callable[[str], bool] = lambda name: True,
        depth: int = MAX_DEPTH,
        trusted: Collection[str] = (),
    ) -> None:
        self.id = id
        self.root = Path(os.path.realpath(root))
        self.origin = str(self.root)
        self._keep, self._depth, self._trusted = keep, depth, frozenset(trusted)
        self._roots = (str(self.root), *_blob_folders(self.root))
        self._files: Mapping[str, int] | None = None

    def files(self) -> Mapping[str, int]:
        """Every file with its size in bytes; hidden ones are left out, and, with a warning, links that lead outside."""
        if self._files is None:
            self._files = MappingProxyType(dict(sorted(self._scan())))
        return self._files

    def path(self, name: str) -> Path:
        """The path of one file.  Raises ModelNotFound with near names, or UnsafeName for a link that leads outside."""
        check_name(name, self.origin)
        path = self.root / name
        if name in self.files() and path.is_file():
            return path
        if path.is_symlink() and path.exists() and not self._inside(path):
            raise UnsafeName(
                f"{name!r} is a link that leads out of the folder, to {str(os.path.realpath(path))!r}.",
                where=self.origin,
                fix="put the file itself in the folder, or load the folder in which it lies",
            )
        raise ModelNotFound(
            f"There is no file {name!r}. {did_you_mean(name, self.files())}".rstrip(), where=self.origin
        )

    def head(self, name: str, length: int) -> bytes:
        """The first `length` bytes of a file."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                return file.read(max(length, 0))
        except OSError as error:
            raise unreadable(path, error) from error

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        """Nothing to bring; raises for a name that is absent, as every source does."""
        for name in names:
            self.path(name)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        """Always empty: what is not here cannot be fetched."""
        self.fetch(names)
        return {}

    def verify(self, names: Iterable[str]) -> Mapping[str, str]:
        """Always empty: a folder states no hashes to compare with."""
        self.fetch(names)
        return {}

    def _scan(self) -> Iterator[tuple[str, int]]:
        seen = 0
        # A stack of our own, each entry with the real folders above it, so that a link to a parent is no endless way.
        stack: list[tuple[str, frozenset[str]]] = [("", frozenset({str(self.root)}))]
        while stack:
            prefix, above = stack.pop()
            for entry in self._entries(prefix):
                name = f"{prefix}{entry.name}"
                if entry.name.startswith(".") or not self._is_ours(name, entry):
                    continue
                seen += 1
                if seen > MAX_ENTRIES:
                    raise SourceError(
                        f"The folder has more than {MAX_ENTRIES:,} entries: it does not look like one model.",
                        where=self.origin,
                        fix="give the folder of one model",
                    )
                try:
                    status = entry.stat()
                except OSError:  # a broken link, or gone since
                    continue
                if stat.S_ISDIR(status.st_mode):
                    real = os.path.realpath(entry.path)
                    if name.count("/") + 1 < self._depth and real not in above:
                        stack.append((f"{name}/", above | {real}))
                elif stat.S_ISREG(status.st_mode):  # a pipe or a device would block the reader
                    yield name, status.st_size

    def _entries(self, prefix: str) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(self.root / prefix) as entries:
                return list(entries)
        except OSError as error:
            raise unreadable(self.root / prefix, error) from error

    def _is_ours(self, name: str, entry: "os.DirEntry[str]") -> bool:
        if not self._keep(name):
            return False
        if entry.is_symlink() and name not in self._trusted and not self._inside(Path(entry.path)):
            if os.path.exists(entry.path):
                log.warning("left out %s: its link leads out of %s", name, self.root, extra={"file": name})
            return False
        if fault := name_fault(name):
            log.warning("left out a file of %s: its name %a %s", self.root, name, fault, extra={"file": name})
            return False
        return True

    def _inside(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return any(real == root or real.startswith(f"{root.rstrip(os.sep)}{os.sep}") for root in self._roots)


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error for a file or folder that the system does not let us read."""
    return SourceError(
        f"{str(path)!r} cannot be read: {error.strerror or error}.", where=path, fix="check its permissions"
    )


def _blob_folders(root: Path) -> tuple[str, ...]:
    """Where the links of a Hugging Face cache snapshot may lead, if `root` is one or lies in one.

    `models--org--name/snapshots/<commit>/file` links to `../../blobs/<hash>` of the same repository; a blob may in turn
    link to `<cache>/blobs/<xx>/<hash>`, the store that huggingface_hub 2 shares between repositories.
    """
    for folder in root.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            shared = folder.parent.parent / "blobs"
            blobs = folder.parent / "blobs"
            return str(blobs), *((str(shared),) if (shared / ".huggingface-shared-blobs").is_file() else ())
    return ()


def _listing(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for _, entry in zip(range(1000), entries, strict=False)]
    except OSError:
        return []
