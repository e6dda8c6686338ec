"""A model on the Hugging Face hub, or on a server that speaks its API.

A revision is resolved to a commit once; everything is then listed and fetched by that commit, so a branch that moves
meanwhile cannot mix two versions.  huggingface_hub moves the bytes and keeps the cache that other programs share; it
does not check what arrives, so here every file is hashed against the commit's listing before it is used, however it
came: over HTTP or through Xet.  Xet therefore stays on (it is the only way to a file above 50 GB; HF_HUB_DISABLE_XET=1
turns it off).  A cut transfer goes on where it was while the process lives; huggingface_hub starts anew after a kill.
"""

import logging
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bestiary.errors import CorruptDownload, HubUnavailable, ModelNotFound, SourceError, UnsafeName
from bestiary.nearest import did_you_mean
from bestiary.records import Progress, SourceOptions
from bestiary.sources import hub_client
from bestiary.sources.folder import unreadable
from bestiary.sources.hub_cache import HubCache
from bestiary.sources.hub_errors import Place
from bestiary.sources.names import check_name, check_revision, hub_id
from bestiary.sources.transfer import Transfer, progress_bar

log = logging.getLogger(__name__)


def claims_hub(id: str) -> bool:
    """Whether `id` reads `name` or `org/name`, with or without `hf://`; nothing is asked of the network."""
    return hub_id(id) is not None


def open_hub(id: str, options: SourceOptions, *, endpoint: str | None = None) -> "HubRepository":
    """The repository `id` at one commit; of its files nothing is fetched yet.

    Offline (`options.offline`, HF_HUB_OFFLINE=1), or where the hub does not answer, it is what the cache holds.
    Raises UnsafeName, ModelNotFound, AccessDenied or HubUnavailable.
    """
    repository = hub_id(id)
    if repository is None:
        raise UnsafeName(
            f"{id[:200]!a} is not the id of a model on the hub.",
            fix='ids read "name" or "org/name": letters, digits, "-", "_" and ".", at most 96 characters each',
        )
    revision = check_revision(options.revision or "main")
    cache = HubCache(hub_client.cache_folder(options.cache_dir), repository)
    client = hub_client.HubClient(
        Place(repository, revision, hub_client.endpoint(endpoint), str(cache.folder)), options.token, cache.cache
    )
    cached = cache.resolve(revision)
    if options.offline or hub_client.is_offline():
        if cached is None:
            raise _not_cached(client.place, cache)
        return HubRepository(id, cached, client, cache, None, "offline mode is on", options.progress)
    try:
        commit, entries = client.listing()
    except HubUnavailable as error:
        if cached is None:
            raise
        log.warning("%s Using the files of %s in the cache, at %s.", error.what, repository, cached[:12])
        return HubRepository(id, cached, client, cache, None, error.what, options.progress)
    return HubRepository(id, commit, client, cache, entries, None, options.progress)


def _not_cached(place: Place, cache: HubCache) -> HubUnavailable:
    revisions = cache.revisions()
    found = f"; cached are: {', '.join(revisions)}" if revisions else ""
    return HubUnavailable(
        f"Offline mode is on, and {place.repository} at {place.revision!r} is not in the cache{found}.",
        where=cache.folder,
        fix=f"with a network, once: hf download {place.repository} --revision {place.revision}",
    )


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
        client: hub_client.HubClient,
        cache: HubCache,
        entries: Mapping[str, hub_client.Entry] | None,
        reason: str | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.id, self.commit = id, commit
        self.origin = f"{client.place.repository}@{commit[:12]}"
        self._revision = client.place.revision
        self._client = client.at(commit)
        self._cache, self._reason, self._progress = cache, reason, progress
        sizes = cache.files(commit) if entries is None else {name: entry.size for name, entry in entries.items()}
        self._files: Mapping[str, int] = MappingProxyType(dict(sizes))
        self._entries = entries or {}
        self._cleaned = entries is None
        self.local = entries is None or not self.missing(self._files)

    def files(self) -> Mapping[str, int]:
        """Every file of the commit with its size; offline, those in the cache."""
        return self._files

    def path(self, name: str) -> Path:
        """The verified file in the cache, fetched if need be.  Raises ModelNotFound, CorruptDownload, HubUnavailable."""
        self.fetch([name])
        return self._cache.pointer(self.commit, name)

    def head(self, name: str, length: int) -> bytes:
        """The first bytes: of the verified file if it is cached or this short, else by a range request.

        What a range request brings cannot be verified: use it to tell what a file is, and read the rest from `path`.
        """
        self._check([name])
        if length <= 0:
            return b""
        if length >= self._files[name] or self._cache.pointer(self.commit, name).exists():
            with open(self.path(name), "rb") as file:
                return file.read(length)
        return self._client.head(name, length)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        """Those that are not in the cache, with their sizes."""
        names = self._check(names)
        return {name: self._files[name] for name in names if not self._cache.pointer(self.commit, name).exists()}

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        """Fetch and verify, up to four files at once; what is here and verified costs a look at its size and time.

        Progress is told in two stages, "download" and "verify", each over all files.
        """
        wanted = {want.name: want for want in map(self._look, self._check(names)) if want is not None}
        if not wanted:
            return
        absent = {name: want.size for name, want in wanted.items() if not want.present}
        self._prepare(absent)
        transfer = Transfer(progress or self._progress)
        if absent:
            transfer.expect("download", absent)
        transfer.expect("verify", {name: want.size for name, want in wanted.items()})
        # The largest first: it decides when all is done.
        order = sorted(wanted, key=lambda name: -wanted[name].size)
        transfer.run(lambda name: self._obtain(wanted[name], transfer), order)
        self._cache.remember(self._revision, self.commit)
        self.local = self.local or not self.missing(self._files)

    def _check(self, names: Iterable[str]) -> list[str]:
        """The names without repetitions.  Raises UnsafeName or, for those that are not in the listing, what is right."""
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

    def _look(self, name: str) -> _Wanted | None:
        """None where the file is here and verified."""
        pointer = self._cache.pointer(self.commit, name)
        try:
            expected = self._expected(name, pointer)
            present = pointer.exists()
            if present and (expected is None or self._cache.is_verified(pointer, expected)):
                return None
        except FileNotFoundError:
            present = False
        return _Wanted(name, pointer, self._files[name], present)

    def _expected(self, name: str, pointer: Path) -> str | None:
        """The hash of the listing; without one the blob's name states it; a cache without links states none."""
        entry = self._entries.get(name)
        return (entry.hash if entry else None) or self._cache.stated_hash(pointer)

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
            advance = lambda count: transfer.advance("download", want.name, count)
            fault = self._client.download(want.name, progress_bar(advance), afresh=again) or ""
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
            size = want.size if want.name in self._entries else None
            advance = lambda count: transfer.advance("verify", want.name, count)
            try:
                fault = self._cache.verify(want.pointer, expected, size, advance)
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
