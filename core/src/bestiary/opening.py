"""The weights of a repository, opened: in which format they are, which files hold them, and who reads them."""

from __future__ import annotations

from collections.abc import Callable

from bestiary.checkpoints.refuse import refuse
from bestiary.errors import CheckpointError
from bestiary.identified import Identified
from bestiary.identity import best_loader
from bestiary.packing import stated_quantization
from bestiary.protocols import Checkpoint, Repository
from bestiary.records import Loader, Progress, resolve
from bestiary.registry import Registry


def choose_loader(repository: Repository, registry: Registry) -> tuple[Loader, tuple[str, ...]]:
    """The weight format of a repository, and the files of it to fetch.  Raises CheckpointError."""
    loader = best_loader(repository, registry)
    if loader is not None:
        return loader, tuple(resolve(loader.files)(repository))
    refuse(repository.files(), repository.origin)
    endings = ", ".join(suffix for loader, _ in registry.records(Loader) for suffix in loader.suffixes)
    raise CheckpointError(
        "There are no weights here in a format that an installed plugin opens.",
        where=repository.origin,
        fix=f"formats that are installed: {endings or 'none'}",
    )


def open_checkpoint(
    identified: Identified,
    registry: Registry,
    progress: Callable[[Progress], None] | None = None,
    asked: str | None = None,
) -> Checkpoint:
    """Fetch the weight files and open them, through the quantizer that the configuration names, if any.

    `asked` is what a user calls the packing that the checkpoint has already.
    """
    stated = stated_quantization(identified.config, identified.repository, registry)
    loader, names = choose_loader(identified.repository, registry)
    identified.repository.fetch(names, progress)
    checkpoint: Checkpoint = resolve(loader.open)(identified.repository, names)
    if stated is None or stated[0].load is None:
        return checkpoint
    try:
        packed: Checkpoint = resolve(stated[0].load)(checkpoint, stated[1], asked)
    except BaseException:
        checkpoint.close()
        raise
    return packed


def weight_headers(identified: Identified, registry: Registry) -> Checkpoint:
    """Names and shapes of the weights; where the format allows, without fetching the files.  `read` may fail."""
    loader, names = choose_loader(identified.repository, registry)
    stated = stated_quantization(identified.config, identified.repository, registry)
    # Packed tensors have their meaning only through the quantizer; and what is here need not be read in part.
    if loader.headers is None or stated is not None or not identified.repository.missing(names):
        return open_checkpoint(identified, registry)
    checkpoint: Checkpoint = resolve(loader.headers)(identified.repository, names)
    return checkpoint
