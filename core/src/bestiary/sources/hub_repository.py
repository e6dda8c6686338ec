"""The files of one commit on the hub.

A revision is resolved to a commit once; everything is then listed and fetched by that commit, so a branch that moves
meanwhile cannot mix two versions.  huggingface_hub moves the bytes and keeps the cache that other programs share; it
does not check what arrives, so here every file is hashed against the commit's listing before it is used, however it
came: over HTTP or through Xet.  Xet therefore stays on (it is the only way to a file above 50 GB; HF_HUB_DISABLE_XET=1
turns it off).  A cut transfer goes on where it was while the process lives; huggingface_hub starts anew after a kill.
"""

# ruff: noqa: PTH110 - os.path answers False where Path raises: a name too long, a folder not to be read

import logging
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from bestiary.errors import CorruptDownload, HubUnavailable, ModelNotFound, SourceError
from bestiary.nearest import did_you_mean
from bestiary.records import Progress
from bestiary.sources.folder import unreadable
from bestiary.sources.hub_cache import HubCache
from bestiary.sources.hub_client import Entry, HubClient
from bestiary.sources.names import check_name
from bestiary.sources.transfer import Transfer, progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """One file that has to be fetched, or only hashed, before it may be used."""

    name: str
    pointer: Path
    size: int
    present: bool


class HubRepository:
    """Repository over one commit.  With `entries` None it is offline, for `reason`, and has what the cache has."""

    def __init__(
        self,
        id: str,
        commit: str,
        client: HubClient,
        cache: HubCache,
        entries: Mapping[str, Entry] | None,
        reason: str | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.id, self.commit = id, commit
        self.origin = f"{client.place.repository}@{commit[:12]}"
        self._revision = client.place.revision
        self._client = client.at(commit)
        self._cache, self._reason, self._progress = cache, reason, progress
        sizes = cache.files(commit) if entries is None else {name: entry.size or 0 for name, entry in entries.items()}
        self._files: Mapping[str, int] = MappingProxyType(dict(sizes))
        self._entries = entries or {}
        self._cleaned = self._remembered = entries is None
        self.local = entries is None or not self.missing(self._files)

    def files(self) -> Mapping[str, int]:
        """Every file of the commit with its size; offline, those in the cache."""
        return self._files

    def path(self, name: str) -> Path:
        """The verified file in the cache, fetched if need be.  Raises what `fetch` raises."""
        self.fetch([name])
        return self._cache.pointer(self.commit, name)

    def head(self, name: str, length: int) -> bytes:
        """The first bytes: of the verified file if it is cached or this short, else by a range request.

        What a range request brings cannot be verified: use it to tell what a file is, and read the rest from `path`.
        """
        self._check([name])
        if length <= 0:
            return b""
        entry = self._entries.get(name)
        short = entry is not None and entry.size is not None and entry.size <= length
        if short or not self.missing([name]):
            path = self.path(name)
            try:
                with path.open("rb") as file:
                    return file.read(length)
            except OSError as error:
                raise unreadable(path, error) from error
        return self._client.head(name, length)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        """Those that are not in the cache, with their sizes."""
        return {
            name: self._files[name]
            for name in self._check(names)
            if not self._cache.holds(self.commit, name, self._listed(name))
        }

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        """Fetch and verify, up to four files at once; what is here and verified costs a look at its size and time.

        Progress is told in two stages, "download" and "verify", each over all files.  Raises ModelNotFound,
        AccessDenied, HubUnavailable, CorruptDownload, or SourceError for the disk.
        """
        wanted = {want.name: want for want in map(self._look, self._check(names)) if want is not None}
        if wanted:
            self._bring(wanted, progress or self._progress)
            self.local = self.local or not self.missing(self._files)
        if not self._remembered:  # only now: a revision should not come to mean a commit of which nothing is here
            self._cache.remember(self._revision, self.commit)
            self._remembered = True

    def _bring(self, wanted: Mapping[str, _Wanted], progress: Callable[[Progress], None] | None) -> None:
        absent = self.missing(wanted)
        self._prepare(absent)
        transfer = Transfer(progress)
        if absent:
            transfer.expect("download", absent)
        transfer.expect("verify", {name: want.size for name, want in wanted.items()})
        # The largest first: it decides when all is done.
        order = sorted(wanted, key=lambda name: -wanted[name].size)
        transfer.run(lambda name: self._obtain(wanted[name], transfer), order)

    def verify(self, names: Iterable[str]) -> Mapping[str, str]:
        """Hash files that are here, even those that were verified before; those that are not here are left out.

        All are hashed before CorruptDownload is raised for the first that is wrong.
        """
        found: dict[str, str] = {}
        wrong: list[CorruptDownload] = []
        wanted = {name: self._want(name) for name in self._check(names)}
        wanted = {name: want for name, want in wanted.items() if want.present and self._expected(name, want.pointer)}
        transfer = Transfer(self._progress)

        def rehash(name: str) -> None:
            if fault := self._verify(wanted[name], transfer):
                wrong.append(self._edited(wanted[name], fault))
            else:
                expected = self._expected(name, wanted[name].pointer) or ""
                found[name] = f"{'sha256' if len(expected) == 64 else 'git-sha1'}:{expected}"

        transfer.expect("verify", {name: want.size for name, want in wanted.items()})
        for want in wanted.values():
            self._cache.forget(want.pointer)
        transfer.run(rehash, list(wanted))
        if wrong:
            raise min(wrong, key=str)
        return dict(sorted(found.items()))

    def _check(self, names: Iterable[str]) -> list[str]:
        """The names without repetitions.  Raises UnsafeName, ModelNotFound, or HubUnavailable when offline."""
        names = list(dict.fromkeys(names))
        for name in names:
            check_name(name, self.origin)
        unknown = [name for name in names if name not in self._files]
        if not unknown:
            return names
        if self._reason is not None:
            place = self._client.place
            raise HubUnavailable(
                f"Not in the cache: {', '.join(unknown)}; and nothing can be fetched, because {_lowered(self._reason)}",
                where=self.origin,
                fix=f"with a network: hf download {place.repository} {' '.join(unknown)} --revision {self.commit}",
            )
        hint = did_you_mean(unknown[0], self._files)
        raise ModelNotFound(
            f"{self._client.place.repository} has no file {unknown[0]!r}. {hint}".rstrip(), where=self.origin
        )

    def _want(self, name: str) -> _Wanted:
        pointer = self._cache.pointer(self.commit, name)
        return _Wanted(name, pointer, self._files[name], os.path.exists(pointer))

    def _look(self, name: str) -> _Wanted | None:
        """None where the file is here and verified."""
        want = self._want(name)
        if not want.present:
            return want
        expected = self._expected(name, want.pointer)
        return None if expected is None or self._cache.is_verified(want.pointer, expected) else want

    def _expected(self, name: str, pointer: Path) -> str | None:
        """The hash of the listing; without one the blob's name states it; a cache without links states none."""
        return self._listed(name) or self._cache.stated_hash(pointer)

    def _listed(self, name: str) -> str | None:
        entry = self._entries.get(name)
        return entry.hash if entry else None

    def _prepare(self, absent: Mapping[str, int]) -> None:
        """Before the first byte moves: old partial files go, and what will not fit is refused."""
        if not absent:
            return
        if not self._cleaned:
            self._cache.clean()
            self._cleaned = True
        needed = sum(absent.values())
        try:
            room = self._cache.room()
        except OSError:
            return  # a disk that cannot be asked; the download will tell
        if needed > room:
            raise SourceError(
                f"{self.origin} needs {needed / 1e9:,.2f} GB more, and the disk has {room / 1e9:,.2f} GB free.",
                where=self._cache.folder,
                fix="free some space (hf cache ls shows what is cached), or set HF_HOME to a folder on a larger disk",
            )

    def _obtain(self, want: _Wanted, transfer: Transfer) -> None:
        """Fetch and verify one file: a corrupt download is deleted and tried once more, a corrupt file that lay here
        before is reported and left, for it may be somebody's edit."""
        if want.present:
            try:
                fault = self._verify(want, transfer)
            except FileNotFoundError:  # another process found it corrupt meanwhile, and deleted it
                transfer.expect("download", {want.name: want.size})
            else:
                if fault is not None:
                    raise self._edited(want, fault)
                return
        fault = "did not arrive"
        for again in (False, True):
            if again:
                transfer.expect("download", {want.name: want.size})
                transfer.expect("verify", {want.name: want.size})
            bar = progress_bar(partial(transfer.advance, "download", want.name))
            fault = self._client.download(want.name, bar, afresh=again) or ""
            if not fault:
                transfer.finish("download", want.name)
                try:
                    fault = self._verify(want, transfer) or ""
                except FileNotFoundError:
                    fault = "was deleted while it was verified"
            if not fault:
                return
            log.warning("%s of %s %s", want.name, self.origin, fault, extra={"attempt": 1 + again})
            self._cache.discard(want.pointer)
        raise CorruptDownload(
            f"{want.name} arrived corrupt twice: it {fault}. Both copies were deleted.",
            where=f"{self._client.place.endpoint}, {self.origin}",
            fix="something between here and the hub alters the file; without the proxy or mirror, run: "
            + self._again(want.name),
        )

    def _verify(self, want: _Wanted, transfer: Transfer) -> str | None:
        expected = self._expected(want.name, want.pointer)
        fault = None
        if expected is not None:
            entry = self._entries.get(want.name)
            advance = partial(transfer.advance, "verify", want.name)
            try:
                if not self._cache.is_verified(want.pointer, expected):
                    fault = self._cache.verify(want.pointer, expected, entry.size if entry else None, advance)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise unreadable(want.pointer, error) from error
        transfer.finish("verify", want.name)
        return fault

    def _edited(self, want: _Wanted, fault: str) -> CorruptDownload:
        return CorruptDownload(
            f"{want.name} in the cache is not the file of the hub: it {fault}.",
            where=os.path.realpath(want.pointer),
            fix=f"{self._again(want.name)}   (if the change is yours, load the folder "
            f"{self._cache.snapshot(self.commit)} instead)",
        )

    def _again(self, name: str) -> str:
        command = ["hf", "download", self._client.place.repository, name, "--revision", self.commit]
        return shlex.join([*command, "--force-download", "--cache-dir", str(self._cache.cache)])


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".") + "."
