"""Which files of a repository are one model: the only one, or the one that a name or a type chooses.

Publishers put many quantizations of a model into one repository, and say which is which in the names of the files:
`Qwen3-0.6B-Q4_K_M.gguf`, `UD-Q4_K_XL/model-UD-Q4_K_XL-00001-of-00002.gguf`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from bestiary.errors import CheckpointError
from bestiary.protocols import Repository
from bestiary_quant.labels import by_bits, says, undecided

SUFFIX = ".gguf"
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_TYPE = re.compile(
    r"(?<![a-z0-9_])(?:ud-)?(?:i?q\d+_[a-z0-9_]+|tq\d_\d|mxfp4(?:_moe)?|nvfp4|bf16|f16|fp16|f32|fp32)(?![a-z0-9_])"
)
_COMPANION = re.compile(r"(?P<imatrix>imatrix.*)|(?P<mmproj>(?:.*[^a-z0-9])?mmproj.*)")
"""Names of files that are no models: what sees for one (a projector), and statistics for quantizing."""


@dataclass(frozen=True)
class Model:
    """One model of a repository: its files in order, their size in bytes, and what their names say of its type."""

    files: tuple[str, ...]
    label: str
    nbytes: int
    missing: tuple[str, ...] = ()
    """Parts of a split model that are not there."""


def files(repository: Repository, wanted: str | None = None) -> tuple[str, ...]:
    """The names of the weight files to fetch.

    `wanted` is a file name (of a split model any part), or a part of one between its separators, in any case: "q4_k_m".
    Without it the repository must hold one model.  Raises CheckpointError with what there is.
    """
    return choose(repository.files(), wanted, repository.origin).files


def chosen(repository: Repository, wanted: str) -> tuple[str, ...] | None:
    """As `files`, also by a number of bits; None where there is one model and `wanted` is no part of its name.

    Then it is to be packed so.
    """
    found = [model for model in models(repository.files()) if not _is_companion(model)]
    if len(found) == 1 and wanted not in found[0].files and not says(found[0].files[0], wanted):
        return None
    place = by_bits(wanted, [model.label.removeprefix("ud-") for model in found])
    return files(repository, wanted if place is None else found[place].files[0])


def choose(sizes: Mapping[str, int], wanted: str | None, origin: str) -> Model:
    """As `files`, from names with their sizes in bytes."""
    found = models(sizes)
    if wanted is None:
        named = [model for model in found if not _is_companion(model)]
    else:
        named = (
            [model for model in found if wanted in model.files]
            or [model for model in found if model.label == wanted.lower()]
            or [model for model in found if says(model.files[0], wanted)]
        )
    if len(named) != 1:
        raise _undecided(found, named, wanted, origin)
    if missing := named[0].missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise CheckpointError(
            f"Parts of a split model are missing: {', '.join(missing[:5])}{more}.",
            where=origin,
            fix="fetch all parts into one folder",
        )
    return named[0]


def models(sizes: Mapping[str, int]) -> list[Model]:
    """Every model among the names, in their order."""
    made: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        ((name,), ()) for name in sizes if name.endswith(SUFFIX) and not _SPLIT.fullmatch(name)
    ]
    made.extend(_split_models(sizes))
    made.sort()
    stems = [_stem(names[0]) for names, _ in made]
    types = [found[-1] if (found := _TYPE.findall(stem.lower())) else stem for stem in stems]
    labels = [kind if types.count(kind) == 1 else stem for kind, stem in zip(types, stems, strict=True)]
    return [
        Model(names, label, sum(sizes[name] for name in names), missing)
        for (names, missing), label in zip(made, labels, strict=True)
    ]


def companions(sizes: Mapping[str, int]) -> list[str]:
    """The names among them of files that see for a model (mmproj), in order."""
    return [name for name in sorted(sizes) if name.endswith(SUFFIX) and _companion(name) == "mmproj"]


def _split_models(names: Collection[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The parts that are there, and those that are not, of each split model."""
    stems = {(part["stem"], part["count"]) for name in names if (part := _SPLIT.fullmatch(name))}
    for stem, count in stems:
        due = [f"{stem}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1)]
        here = tuple(name for name in due if name in names)
        if here:
            yield here, tuple(name for name in due if name not in names)


def _undecided(found: list[Model], named: list[Model], wanted: str | None, origin: str) -> CheckpointError:
    if not found:
        return CheckpointError(
            "There is no .gguf file.", where=origin, fix="check the id, and the revision of the model"
        )
    if wanted is None and not named:
        listed = ", ".join(model.label for model in found)
        what = f"No model lies here, only what goes with one: {listed}."
        return CheckpointError(what, where=origin, fix="take the file of the model itself")
    known, meant = ([(model.label, model.nbytes) for model in models] for models in (found, named))
    return undecided(known, meant, wanted, origin)


def _stem(name: str) -> str:
    part = _SPLIT.fullmatch(name)
    return part["stem"] if part else name.removesuffix(SUFFIX)


def _is_companion(model: Model) -> bool:
    return _companion(model.files[0]) is not None


def _companion(name: str) -> str | None:
    """What kind of companion a file is by its name; None: it is a model."""
    found = _COMPANION.fullmatch(name.rpartition("/")[2].lower())
    return found and found.lastgroup
