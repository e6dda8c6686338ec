"""A model on the Hugging Face hub, or on a server that speaks its API: from an id to a repository at one commit."""

import logging

from bestiary.errors import AccessDenied, HubUnavailable, ModelNotFound, UnsafeName
from bestiary.records import SourceOptions
from bestiary.sources import hub_client
from bestiary.sources.hub_cache import HubCache
from bestiary.sources.hub_errors import Place
from bestiary.sources.hub_repository import HubRepository
from bestiary.sources.names import check_revision, hub_id

log = logging.getLogger(__name__)


def claims_hub(id: str) -> bool:
    """Whether `id` reads `name` or `org/name`, with or without `hf://`; nothing is asked of the network."""
    return hub_id(id) is not None


def open_hub(id: str, options: SourceOptions, *, endpoint: str | None = None) -> HubRepository:
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
    revision = check_revision("main" if options.revision is None else options.revision)
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
    except (AccessDenied, ModelNotFound) as error:
        if cached is not None:  # a logged-out machine, a model withdrawn since: using it is the user's choice
            error.fix = f"{error.fix}; the files in the cache serve with HF_HUB_OFFLINE=1"
        raise
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
