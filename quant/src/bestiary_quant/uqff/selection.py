"""Which files of a repository are one model: `<stem>-0.uqff`, `<stem>-1.uqff`, ... and the residual beside them.

Several models may share a folder and its residual: `q4k-0.uqff`, `afq4-0.uqff`.  Where there is a uqff_report.json, it
says which shards are a model, also under other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.config import read_json
from bestiary.errors import CheckpointError, OptionError, shown
from bestiary.protocols import Repository
from bestiary_quant.labels import says, undecided
from bestiary_quant.making.schemes import find
from bestiary_quant.uqff.form import REPORT, RESIDUAL, SUFFIX

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>0|[1-9][0-9]{0,4})\.uqff")
_Found = tuple[str, tuple[str, ...], tuple[str, ...]]
"""A label, the shards that are there, and those that are not."""
_MOST = 10_000
"""Shards and outputs of a report; no honest one has so many."""


@dataclass(frozen=True)
class Model:
    """One model of a repository: its files in order, the residual last, and what their names say of its type."""

    files: tuple[str, ...]
    label: str
    nbytes: int
    missing: tuple[str, ...] = ()
    """Files without which it is not whole."""

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.endswith(SUFFIX))


def sniff(name: str, head: bytes) -> bool:
    """Whether a file is meant to be UQFF: by its ending, for its bytes are those of a safetensors file."""
    return name.endswith(SUFFIX) and not head.startswith(b"GGUF")


def files(repository: Repository, wanted: str | None = None) -> tuple[str, ...]:
    """The names of the weight files to fetch.

    `wanted` is a file name, a type ("q4k", "Q4_K", "afq4"), a number of bits ("4": Q4_K before AFQ4), or a part of a
    name between its separators.  Without it the repository must hold one model.  Raises CheckpointError with what there
    is.
    """
    return choose(repository.files(), wanted, repository.origin, _report(repository)).files


def chosen(repository: Repository, wanted: str) -> tuple[str, ...] | None:
    """As `files`; None where there is one model and `wanted` is no part of its name: then it is to be packed so."""
    found = of(repository)
    if len(found) == 1 and not _named(found, wanted):
        return None
    return files(repository, wanted)


def of(repository: Repository) -> list[Model]:
    """Every model of a repository.  Raises CheckpointError for a report that contradicts its files."""
    return models(repository.files(), _report(repository), repository.origin)


def choose(sizes: Mapping[str, int], wanted: str | None, origin: str, report: Mapping[str, Any] | None = None) -> Model:
    """As `files`, from names with their sizes in bytes, and uqff_report.json."""
    found = models(sizes, report, origin)
    named = found if wanted is None else _named(found, wanted)
    if len(named) != 1:
        raise _undecided(found, named, wanted, origin)
    if missing := named[0].missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise CheckpointError(
            f"Files of the model are missing: {', '.join(missing[:5])}{more}.",
            where=origin,
            fix="fetch all files into one folder; a .uqff file alone is no model",
        )
    return named[0]


def models(sizes: Mapping[str, int], report: Mapping[str, Any] | None = None, origin: str = "") -> list[Model]:
    """Every model among the names, in their order.  Raises CheckpointError for a report that is no such thing."""
    made = list(_reported(sizes, report or {}, f"{origin}: {REPORT}"))
    taken = {name for _, shards, _ in made for name in shards}
    loose = [name for name in sizes if name.endswith(SUFFIX) and name not in taken]
    stems: dict[str, dict[int, str]] = {}
    for name in loose:
        part = _SHARD.fullmatch(name)
        if part is None:
            made.append((name.removesuffix(SUFFIX), (name,), ()))
        else:
            stems.setdefault(part["stem"], {})[int(part["number"])] = name
    made.extend((stem, *_numbered(stem, here)) for stem, here in stems.items())
    return sorted((_model(sizes, *one) for one in made), key=lambda model: model.files)


def _model(sizes: Mapping[str, int], label: str, shards: tuple[str, ...], missing: tuple[str, ...]) -> Model:
    folder = shards[0].rpartition("/")
    residual = f"{folder[0]}{folder[1]}{RESIDUAL}"
    files = (*shards, residual) if residual in sizes else shards
    absent = missing if residual in sizes else (*missing, residual)
    return Model(files, label.rpartition("/")[2].lower(), sum(sizes[name] for name in files), absent)


def _numbered(stem: str, here: Mapping[int, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The shards that are there, and those that are not though a later one is."""
    gaps = [number for number in range(min(max(here), len(here) + 1000)) if number not in here]
    return tuple(here[number] for number in sorted(here)), tuple(f"{stem}-{number}{SUFFIX}" for number in gaps)


def _report(repository: Repository) -> Mapping[str, Any] | None:
    return read_json(repository.path(REPORT)) if REPORT in repository.files() else None


def _reported(sizes: Mapping[str, int], report: Mapping[str, Any], where: str) -> Iterator[_Found]:
    """The models that the report lists, without those of which no shard is here."""
    outputs = report.get("outputs", [])
    if not isinstance(outputs, list) or len(outputs) > _MOST:
        raise CheckpointError(f'"outputs" is {shown(outputs)}; a list of models is due.', where=where)
    labels: set[str] = set()
    taken: set[str] = set()
    for output in outputs:
        label = output.get("quant") if isinstance(output, dict) else None
        shards = output.get("shards") if isinstance(output, dict) else None
        if not isinstance(label, str) or not label or label.lower() in labels:
            raise CheckpointError(f'"quant" of an output is {shown(label)}; a name of its own is due.', where=where)
        if not isinstance(shards, list) or not 1 <= len(shards) <= _MOST:
            raise CheckpointError(
                f'"shards" of {shown(label)} is {shown(shards)}; a list of files is due.', where=where
            )
        for name in shards:
            if not isinstance(name, str) or not name.endswith(SUFFIX) or name in taken:
                raise CheckpointError(
                    f"{shown(label)} lists the shard {shown(name)}; .uqff files that no other model has are due.",
                    where=where,
                    fix="fetch the report again; or remove it, then the names of the files decide",
                )
            taken.add(name)
        labels.add(label.lower())
        here = tuple(name for name in shards if name in sizes)
        if here:
            yield label, here, tuple(name for name in shards if name not in sizes)


def _named(found: Sequence[Model], wanted: str) -> list[Model]:
    word = wanted.strip().lower()
    for asked in (word, *_spellings(word)):
        named = (
            [model for model in found if wanted in model.files]
            or [model for model in found if model.label == asked]
            or [model for model in found if asked and not asked.isdecimal() and says(model.label, asked)]
        )
        if named:
            return named
    return []


def _spellings(word: str) -> tuple[str, ...]:
    """Types that a user may mean, as mistral.rs spells them: "q4_k" is "q4k", "4" is "q4k" or "afq4"."""
    try:
        name = find(word).name
    except OptionError:
        return ()
    return (name, f"afq{word}") if word.isdecimal() else (name,)


def _undecided(found: list[Model], named: list[Model], wanted: str | None, origin: str) -> CheckpointError:
    if not found:
        return CheckpointError(
            "There is no .uqff file.", where=origin, fix="check the id, and the revision of the model"
        )
    known, meant = ([(model.label, model.nbytes) for model in models] for models in (found, named))
    return undecided(known, meant, wanted, origin)
