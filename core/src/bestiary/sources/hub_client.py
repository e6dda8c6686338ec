"""The four requests that a hub repository needs, over huggingface_hub: the listing of a commit, the start of a file, a
whole file into the cache, and names like a wrong one.

huggingface_hub is imported inside the functions: listing plugins or opening a folder should not pay for it.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from bestiary.errors import HubUnavailable
from bestiary.sources.hub_cache import COMMIT, HASH
from bestiary.sources.hub_errors import Place, translated
from bestiary.sources.names import check_name

LISTING_TIMEOUT = 15.0
NEAR_TIMEOUT = 3.0
RETRY_WAIT = 0.5
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One file of a listing: its size, and its sha256 or git blob sha1.  Mirrors of the hub may leave out both."""

    size: int | None
    hash: str | None


def cache_folder(given: str | None) -> Path:
    """The folder of the cache: as given, or huggingface_hub's (HF_HUB_CACHE, HF_HOME)."""
    from huggingface_hub import constants

    return Path(given or constants.HF_HUB_CACHE).expanduser().absolute()


def endpoint(given: str | None) -> str:
    """The address of the hub: as given, HF_ENDPOINT as it is now, or what huggingface_hub read at its import."""
    from huggingface_hub import constants

    return (given or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the environment says so now, or said so when huggingface_hub was imported (it then refuses to send)."""
    from huggingface_hub import constants

    stated = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return stated.upper() in _TRUE or bool(constants.HF_HUB_OFFLINE)


class HubClient:
    """Requests about one repository.  Every method raises only SourceError and its subclasses."""

    def __init__(self, place: Place, token: str | bool | None, cache: Path) -> None:
        self.place = replace(place, near=self._near)
        self._token, self._cache = token, cache

    def at(self, commit: str) -> "HubClient":
        """The same client, asking for a commit."""
        return HubClient(replace(self.place, revision=commit), self._token, self._cache)

    def listing(self) -> tuple[str, Mapping[str, Entry]]:
        """The commit that the revision means now, and its files.  A listing with an unsafe name is refused whole."""
        from huggingface_hub import HfApi

        with translated(self.place, "listing the files"):
            api = HfApi(endpoint=self.place.endpoint, token=self._token, library_name="bestiary")
            info = api.model_info(
                self.place.repository, revision=self.place.revision, files_metadata=True, timeout=LISTING_TIMEOUT
            )
            commit, siblings = info.sha, info.siblings
            if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or siblings is None:
                raise ValueError("the answer names no commit or no files")
            entries = {check_name(sibling.rfilename, self.place): _entry(sibling) for sibling in siblings}
        return commit, dict(sorted(entries.items()))

    def head(self, name: str, length: int) -> bytes:
        """The first `length` bytes, also from a server that ignores ranges; nothing more is read."""
        from huggingface_hub import hf_hub_url

        utils = import_module("huggingface_hub.utils")  # these are public there, but not declared to type checkers
        place = self.place
        with translated(place, f"reading the start of {name}"):
            url = hf_hub_url(place.repository, name, revision=place.revision, endpoint=place.endpoint)
            headers = utils.build_hf_headers(token=self._token, library_name="bestiary")
            headers |= {"Range": f"bytes=0-{length - 1}", "Accept-Encoding": "identity"}
            found = bytearray()
            # 429 is not repeated: its waiting time may be minutes, and the caller should hear it.
            with utils.http_stream_backoff(
                "GET",
                url,
                headers=headers,
                timeout=LISTING_TIMEOUT,
                follow_redirects=True,
                max_retries=2,
                base_wait_time=RETRY_WAIT,
                retry_on_status_codes=(500, 502, 503, 504),
            ) as response:
                utils.hf_raise_for_status(response)
                for piece in response.iter_bytes():
                    found += piece
                    if len(found) >= length:
                        break
        if len(found) < length:
            raise HubUnavailable(f"The hub sent {len(found)} of the first {length} bytes of {name}.", where=place)
        return bytes(found[:length])

    def download(self, name: str, bar: type, *, afresh: bool) -> str | None:
        """Bring one file into the cache; says in words what is wrong where less or more than the file arrived.

        `afresh` replaces what is there, also in the store that repositories share.
        """
        from huggingface_hub import hf_hub_download

        place = self.place
        with translated(place, f"fetching {name}"):
            try:
                hf_hub_download(
                    place.repository,
                    name,
                    revision=place.revision,
                    cache_dir=self._cache,
                    token=self._token,
                    endpoint=place.endpoint,
                    library_name="bestiary",
                    tqdm_class=bar,
                    force_download=afresh,
                )
            except OSError as error:
                if error.errno is None and str(error).startswith("Consistency check failed"):
                    return "has the wrong size"
                raise
        return None

    def _near(self) -> Sequence[str]:
        """Names of models like this one, or none: by the name, else by the organization.  Never raises."""
        organization, _, name = self.place.repository.rpartition("/")
        searches: list[dict[str, Any]] = [{"search": name, "limit": 5}]
        if organization:
            searches.append({"author": organization, "limit": 200})
        for search in searches:
            if found := self._search(search):
                return found
        return ()

    def _search(self, parameters: dict[str, Any]) -> list[str]:
        from huggingface_hub import get_session

        try:  # HfApi.list_models takes no time limit, and an error message should not wait
            answer = get_session().get(f"{self.place.endpoint}/api/models", params=parameters, timeout=NEAR_TIMEOUT)
            return [str(model["id"]) for model in answer.json()] if answer.status_code == 200 else []
        except Exception as error:  # a hint must not hide the error that it belongs to
            log.debug("no near names: %s", error)
            return []


def _entry(sibling: Any) -> Entry:
    stated = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    size = sibling.lfs.size if sibling.lfs else sibling.size
    return Entry(
        size if isinstance(size, int) and size >= 0 else None,
        stated if isinstance(stated, str) and HASH.fullmatch(stated) else None,
    )
