"""One repository's folder in the Hugging Face cache: what lies there, and which of it was verified.

    models--org--name/refs/<revision>              the commit that a branch or tag last meant
    models--org--name/snapshots/<commit>/<name>    a link to ../../blobs/<hash>
    models--org--name/blobs/<hash>                 sha256 of a large file, git's blob sha1 of a small one
    models--org--name/.bestiary/<key>.json         ours: the file of this size, time and inode had this hash

The layout is shared with every other program that uses huggingface_hub, so a file found here may be anything: it counts
only once its hash was seen to be right.  The marks spare later loads the hashing of gigabytes; they guard against
accidents, not against somebody who may write to the cache and so could forge them.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH114 - os.path answers False where Path raises (a folder not to be read)

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from bestiary.sources.names import check_name, name_fault

STALE_SECONDS = 24 * 3600
"""Age after which a partial file is nobody's: a download that lives writes at least once a minute."""
COMMIT = re.compile(r"[0-9a-f]{40}")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_BLOCK = 4 << 20

log = logging.getLogger(__name__)


class HubCache:
    """The cache folder of one repository.  Reading never writes; writing failures of marks and refs are no errors."""

    def __init__(self, cache: Path, repository: str) -> None:
        self.cache = cache
        self.folder = cache / ("models--" + repository.replace("/", "--"))
        self._seen: set[tuple[str, int, int, int, str]] = set()

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def pointer(self, commit: str, name: str) -> Path:
        """Where a file of a commit lies, or would lie."""
        return self.snapshot(commit) / check_name(name)

    def holds(self, commit: str, name: str, expected: str | None) -> bool:
        """Whether the content of a file is here: for this commit, or for another one that shares it."""
        if os.path.exists(self.pointer(commit, name)):
            return True
        return expected is not None and os.path.exists(self.folder / "blobs" / expected)

    # Revisions

    def resolve(self, revision: str) -> str | None:
        """The commit that `revision` last meant, if something of it is cached."""
        commit = revision
        if not COMMIT.fullmatch(revision):
            try:
                commit = (self.folder / "refs" / revision).read_text().strip()
            except (OSError, ValueError):
                return None
        return commit if COMMIT.fullmatch(commit) and os.path.isdir(self.snapshot(commit)) else None

    def remember(self, revision: str, commit: str) -> None:
        """Note what a revision means, for later loads without a network.  huggingface_hub leaves that out where it is
        asked for a commit, as it always is here."""
        path = self.folder / "refs" / revision
        try:
            if revision != commit and (not os.path.exists(path) or path.read_text() != commit):
                _write(path, commit)
        except (OSError, ValueError) as error:
            log.debug("could not write %s: %s", path, error)

    def revisions(self) -> list[str]:
        """Names of the revisions that are cached, for messages."""
        refs = self.folder / "refs"
        return sorted(str(path.relative_to(refs)) for path in refs.rglob("*") if os.path.isfile(path))

    # Files

    def files(self, commit: str) -> Mapping[str, int]:
        """The files of a commit that are here, with their sizes; partial snapshots are common."""
        root = self.snapshot(commit)
        found: dict[str, int] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                relative = path.relative_to(root).as_posix()
                if name_fault(relative) is None and os.path.isfile(path):  # not a link whose blob was deleted
                    found[relative] = path.stat().st_size
        return dict(sorted(found.items()))

    def stated_hash(self, pointer: Path) -> str | None:
        """The hash that the blob's own name states; None where links are not supported and the file itself lies here.

        Only the first link counts: a blob may itself link into the store that repositories share, where names are
        hashes of another kind.
        """
        try:
            name = pointer.readlink().name
        except OSError:
            return None
        return name if HASH.fullmatch(name) else None

    def discard(self, pointer: Path) -> None:
        """Delete a file together with its blob, so that no other program takes it for good."""
        blob = pointer.parent / pointer.readlink() if os.path.islink(pointer) else pointer
        for path in (Path(os.path.realpath(pointer)), blob, pointer):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("could not delete the corrupt file %s: %s", path, error)

    def clean(self) -> None:
        """Delete partial files that a killed process left: huggingface_hub neither continues nor deletes them."""
        for path in (self.folder / "blobs").glob("*.incomplete"):
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
                    log.info("deleted the stale partial download %s", path)
            except OSError:
                continue

    def room(self) -> int:
        """Bytes free where the cache lies, with what downloads in progress have already taken."""
        place = self.folder
        while not os.path.exists(place) and place != place.parent:
            place = place.parent
        partial = 0
        for path in (self.folder / "blobs").glob("*.incomplete"):
            try:
                partial += path.stat().st_size
            except OSError:
                continue
        return shutil.disk_usage(place).free + partial

    # Verification

    def is_verified(self, pointer: Path, expected: str) -> bool:
        """Whether this very file, unchanged since, had the hash."""
        try:
            state = self._state(pointer, expected)
        except OSError:
            return False
        if state in self._seen:
            return True
        try:
            mark = json.loads(self._mark(state[0]).read_text())
        except (OSError, ValueError):
            return False
        if mark != list(state):
            return False
        self._seen.add(state)
        return True

    def forget(self, pointer: Path) -> None:
        """Let the next `is_verified` of a file say no."""
        place = os.path.relpath(os.path.realpath(pointer), os.path.realpath(self.cache))
        self._seen = {state for state in self._seen if state[0] != place}
        with suppress(OSError):
            self._mark(place).unlink(missing_ok=True)

    def verify(self, pointer: Path, expected: str, size: int | None, advance: Callable[[int], None]) -> str | None:
        """Hash a file and remember it if it is right; otherwise say in words what is wrong.

        `advance` gets the bytes hashed so far, piece by piece, and may raise to stop.  Raises FileNotFoundError.
        """
        before = self._state(pointer, expected)
        if size is not None and before[1] != size:
            return f"has {before[1]:,} bytes instead of {size:,}"
        actual = file_hash(pointer, len(expected), advance)
        if actual != expected:
            return f"has the hash {actual} instead of {expected}"
        if self._state(pointer, expected) != before:
            return "changed while it was read"
        self._seen.add(before)
        try:
            _write(self._mark(before[0]), json.dumps(before))
        except OSError as error:  # a read-only cache: this process remembers, the next one hashes again
            log.debug("could not remember the verification of %s: %s", pointer, error)
        return None

    def _state(self, pointer: Path, expected: str) -> tuple[str, int, int, int, str]:
        real = os.path.realpath(pointer)
        status = Path(real).stat()
        # Relative to the cache, so that a cache under another path keeps its marks.
        place = os.path.relpath(real, os.path.realpath(self.cache))
        return place, status.st_size, status.st_mtime_ns, status.st_ino, expected

    def _mark(self, place: str) -> Path:
        return self.folder / ".bestiary" / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"


def file_hash(path: Path, length: int, advance: Callable[[int], None]) -> str:
    """sha256 (`length` 64) or git's blob sha1 (`length` 40) of a file, in hexadecimal digits."""
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        digest = hashlib.sha256() if length == 64 else hashlib.sha1(usedforsecurity=False)
        if length == 40:
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while count := file.readinto(block):
            digest.update(block[:count])
            advance(count)
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    """Replace a small file in one step: two processes may write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
