"""Which files of a repository are its safetensors weights: one file, or the shards that an index names."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.checkpoints import refuse
from bestiary.errors import CheckpointError, UnsafeName
from bestiary.protocols import Repository

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"
PREFERRED = ("model", "diffusion_pytorch_model")
"""What transformers and diffusers call their weights; where a folder holds several sets, these are the model."""
MAX_INDEX = 100_000_000
"""Bytes; the largest known index, of a million tensors, would have about this."""
MAX_ENTRIES = 1_000_000

_SHARD = re.compile(r"(.+)-(\d{5,6})-of-(\d{5,6})\.safetensors")
_AGAIN = "fetch the file again, or delete it and keep the shards alone"


@dataclass(frozen=True)
class Index:
    """Where each tensor of a sharded model lies: `places` from tensor name to file name."""

    name: str
    places: Mapping[str, str]

    def shards(self) -> tuple[str, ...]:
        """The files, in order of their names, which is the order of the layers."""
        return tuple(sorted(set(self.places.values())))


def files(repository: Repository) -> tuple[str, ...]:
    """The names of the weight files to fetch; reads at most one small index.

    In this order: `model.safetensors` (or diffusers' `diffusion_pytorch_model.safetensors`), with what its index adds;
    the shards of the index; a complete set `NAME-00001-of-0000N.safetensors`; the only file that ends in .safetensors.
    Mistral's `consolidated*.safetensors` holds the same model under other names, and is taken only where nothing else
    is.  Raises CheckpointError where that does not decide, UnsafeName where an index leads out of the folder.
    """
    names = [name for name in repository.files() if "/" not in name and "\\" not in name]
    own = [name for name in names if not name.startswith("consolidated")]
    for candidates in (own, names):
        for stem in PREFERRED:
            single = (stem + SUFFIX,) if stem + SUFFIX in candidates else ()
            if stem + INDEX in candidates:
                index = read_index(repository, stem + INDEX)
                # An index that was left behind when the shards were merged does not count.
                if not single or single[0] in index.shards():
                    return _present(repository, index)
            if single:
                return single
        indexes = sorted(name for name in candidates if name.endswith(INDEX))
        if len(indexes) == 1:
            return _present(repository, read_index(repository, indexes[0]))
        weights = [name for name in candidates if name.endswith(SUFFIX)]
        if len(indexes) > 1:
            raise _undecided(repository, indexes)
        if weights:
            return _without_index(repository, weights)
    if inside := sorted({name.rpartition("/")[0] for name in repository.files() if name.endswith(SUFFIX)}):
        raise CheckpointError(
            f"The weights lie in folders of the model only: {_list(inside)}",
            where=repository.origin,
            fix="name the folder that is meant",
        )
    refuse.refuse(names, repository.origin)
    raise CheckpointError(
        "There is no .safetensors file", where=repository.origin, fix="check the id, and the revision of the model"
    )


def index_of(repository: Repository, names: tuple[str, ...]) -> Index | None:
    """The index that describes exactly these files, if there is one."""
    for name in sorted(repository.files()):
        stem = name.removesuffix(INDEX)
        if stem != name and "/" not in name and all(file.startswith(stem) for file in names):
            index = read_index(repository, name)
            if set(index.places.values()) == set(names):
                return index
    return None


def read_index(repository: Repository, name: str) -> Index:
    """Parse an index.  Raises UnsafeName for a shard outside of the folder, CheckpointError for all else."""
    origin = f"{repository.origin}: {name}"
    sizes = repository.files()
    if sizes[name] > MAX_INDEX:
        raise CheckpointError(f"The index has {sizes[name]} bytes; the limit is {MAX_INDEX}", where=origin, fix=_AGAIN)
    try:
        raw = repository.path(name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"The index cannot be read: {error.strerror}", where=origin) from error
    # Counted before parsing, because each bracket or comma costs a JSON parser a hundred times its own size.
    if raw.count(b"{") + raw.count(b"[") > 10_000 or raw.count(b",") > MAX_ENTRIES:
        raise CheckpointError(f"The index has over {MAX_ENTRIES} entries, or is nested", where=origin, fix=_AGAIN)
    try:
        content = json.loads(raw, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"The index is not valid JSON: {str(error)[:200]}", where=origin, fix=_AGAIN) from None
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError('the index has no "weight_map" of tensors to files', where=origin, fix=_AGAIN)
    for tensor, shard in places.items():
        if not isinstance(shard, str):
            raise CheckpointError(f"The index gives {tensor[:200]!r} no file name", where=origin, fix=_AGAIN)
    shards = set(places.values())
    for shard in shards:
        _check_inside(shard, origin)
    refuse.refuse(sorted(shards), origin)
    if others := sorted(shard for shard in shards if not shard.endswith(SUFFIX)):
        raise CheckpointError(f"The index names {_list(others)}, not .safetensors files", where=origin, fix=_AGAIN)
    return Index(name, places)


def _present(repository: Repository, index: Index) -> tuple[str, ...]:
    shards = index.shards()
    if absent := sorted(set(shards) - repository.files().keys()):
        raise CheckpointError(
            f"The index names files that are not there: {_list(absent)}",
            where=f"{repository.origin}: {index.name}",
            fix="finish the download or the upload of all shards",
        )
    return shards


def _check_inside(shard: str, origin: str) -> None:
    parts = shard.split("/")
    if (
        not shard.isprintable()
        or "\\" in shard
        or ":" in shard
        or len(shard) > 255
        or any(part in ("", ".", "..") for part in parts)
        or parts[0].startswith("~")
    ):
        raise UnsafeName(
            f"The index names {shard[:200]!r}, which is no plain file name within the folder",
            where=origin,
            fix="do not use this model: an honest index names files beside itself",
        )


def _without_index(repository: Repository, weights: list[str]) -> tuple[str, ...]:
    sets: dict[str, dict[int, list[str]]] = {}
    for name in weights:
        if match := _SHARD.fullmatch(name):
            sets.setdefault(match[1], {}).setdefault(int(match[3]), []).append(name)
    stems = _prefer(list(sets))
    single = [name for name in weights if not _SHARD.fullmatch(name)]
    if len(stems) == 1 and len(sets[stems[0]]) == 1 and (not single or stems[0] in PREFERRED):
        [(total, shards)] = sets[stems[0]].items()
        found = {int(name.removesuffix(SUFFIX).split("-")[-3]) for name in shards}
        if lacking := sorted(set(range(1, min(total, 10_000) + 1)) - found):
            raise CheckpointError(
                f"Of the {total} shards of {stems[0]!r}, {len(lacking)} are not there: number "
                + _list(list(map(str, lacking))),
                where=repository.origin,
                fix="finish the download or the upload of all shards",
            )
        if len(found) == len(shards) == total:
            return tuple(sorted(shards))
    elif not sets and len(single) == 1:
        return (single[0],)
    raise _undecided(repository, weights)


def _prefer(stems: list[str]) -> list[str]:
    for stem in PREFERRED:
        if stem in stems:
            return [stem]
    return sorted(stems)


def _undecided(repository: Repository, names: list[str]) -> CheckpointError:
    return CheckpointError(
        f"Several sets of weights lie side by side, and no name tells which is the model: {_list(sorted(names))}",
        where=repository.origin,
        fix="give the path of the file that is meant, or keep only its files in the folder",
    )


def _list(names: list[str]) -> str:
    return ", ".join(name[:200] for name in names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"key {twice[:200]!r} appears twice")
    return result
