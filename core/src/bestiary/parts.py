"""The parts of a pipeline: in which repository each lies, and what it is, before any weight.

A part is looked for in what the user gave for it, then in the repository of the model, then in the one that the user
gave for all that is left.  In each it is the folder of its name, as diffusers lays a pipeline out, or else the
repository itself, where it holds nothing but that part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bestiary.errors import CheckpointError, ModelNotFound, OptionError, shown
from bestiary.identified import Identified, identify_part
from bestiary.nearest import did_you_mean
from bestiary.protocols import Repository
from bestiary.records import Architecture, PackingRequest, Part
from bestiary.sources.within import Within

Given = str | Mapping[str, str | None]
"""The option `parts`: by part a model id, a folder or a file, or None for one that is to be left out; or one
repository that has all that the model lacks."""

SMALL = 0.1
"""Of the largest network of a pipeline: smaller ones stay in memory where the others come and go."""


@dataclass(frozen=True)
class FoundPart:
    """A part, and where it lies."""

    part: Part
    repository: Repository
    network: Identified | None = None
    """What it is; None of a folder of small files."""


def find_parts(whole: Identified, given: Given | None = None) -> dict[str, FoundPart]:
    """The parts of a pipeline that are there.

    Raises OptionError for a part that the pipeline does not have, CheckpointError for a repository that is something
    else, ModelNotFound for a required part that is nowhere.
    """
    own, rest = _given(whole.architecture, given)
    absent = {name for name, id in own.items() if id is None} | _left_out(whole, own)
    opened = {name: whole.repository_of(id) for name, id in own.items() if id is not None}
    elsewhere = whole.repository_of(rest) if rest is not None else None
    found: dict[str, FoundPart] = {}
    for part in whole.architecture.parts:
        if part.name in absent:
            continue
        made = _find(part, whole, opened.get(part.name), elsewhere, found)
        if made is not None:
            found[part.name] = made
        elif part.required:
            raise missing_part(whole, part)
    return found


def packing_of(part: Part, request: PackingRequest) -> PackingRequest:
    """What a request for a whole pipeline means for one of its parts."""
    if isinstance(request.quant, Mapping):
        own = replace(request, quant=request.quant.get(part.name))
        return own if part.packs or own.quant is None else PackingRequest(own.quant)
    return request if part.packs else PackingRequest()


def check_quant(architecture: Architecture, quant: Any) -> None:
    """Raises OptionError where `quant` is by part and names one that cannot be packed."""
    known = [part.name for part in architecture.parts if part.architectures]
    for name in quant if isinstance(quant, Mapping) else ():
        if name not in known:
            raise OptionError(f"quant names the part {shown(name)}.", fix=f"parts are {', '.join(known)}")


def missing_part(whole: Identified, part: Part) -> ModelNotFound:
    """The error for a part that is nowhere."""
    usual = part.usual or "..."
    return ModelNotFound(
        f"{whole.architecture.name} needs the part {part.name}"
        + (f" ({' or '.join(part.architectures)})" if part.architectures else "")
        + ", which is not here, and nothing is fetched from elsewhere unasked.",
        where=whole.repository.origin,
        fix=f'give it: bestiary.load(..., parts={{"{part.name}": "{usual}"}}), a hub id or a path; '
        "parts=ID takes all that is missing from one repository",
    )


def _find(
    part: Part, whole: Identified, own: Repository | None, rest: Repository | None, found: Mapping[str, FoundPart]
) -> FoundPart | None:
    if own is not None:
        made = _in_folder(part, own, whole) or _itself(part, own, whole)
        if made is None:
            raise CheckpointError(
                f"What was given as the part {part.name} is something else.",
                where=own.origin,
                fix=f"give {' or '.join(part.architectures) or 'a folder with its files'}",
            )
        return made
    if whole.part is not None and whole.part.name in part.architectures:
        return _itself(part, whole.repository, whole)
    places = [repository for repository in (whole.repository, rest) if repository is not None]
    for repository in places:
        if made := _in_folder(part, repository, whole):
            return made
        if part.architectures and not whole.evidence.model_index and (made := _itself(part, repository, whole)):
            return made
    beside = found.get(part.beside)
    return None if beside is None else FoundPart(part, _around(beside.repository))


def _in_folder(part: Part, repository: Repository, whole: Identified) -> FoundPart | None:
    inside = Within(repository, part.name)
    return _itself(part, inside, whole) if inside.files() else None


def _itself(part: Part, repository: Repository, whole: Identified) -> FoundPart | None:
    if not part.architectures:
        return FoundPart(part, repository)
    network = identify_part(part, repository, replace(whole.source, revision=None, told={}), whole.registry)
    return None if network is None else FoundPart(part, network.repository, network)


def _around(repository: Repository) -> Repository:
    """The repository of a network, with the files that are no weights of it."""
    return getattr(repository, "whole", repository)


def _given(architecture: Architecture, given: Any) -> tuple[dict[str, str | None], str | None]:
    if given is None or isinstance(given, str):
        return {}, given
    if not isinstance(given, Mapping) or not all(isinstance(id, str | None) for id in given.values()):
        raise OptionError(
            f"parts is {shown(given)}; a repository, or a mapping from parts to repositories, is due.",
            fix='parts={"vae": "path/to/ae.safetensors"}',
        )
    known = [part.name for part in architecture.parts]
    for name in given:
        if name not in known:
            raise OptionError(
                f"{architecture.name} has no part {shown(name)}.",
                fix=f"{did_you_mean(str(name), known)} Its parts are {', '.join(known)}".strip(),
            )
    return dict(given), None


def _left_out(whole: Identified, own: Iterable[str]) -> set[str]:
    """Parts that model_index.json says the pipeline was saved without."""
    return {name for name in _empty(whole.evidence.model_index) if name not in own}


def _empty(index: Mapping[str, Any]) -> Iterator[str]:
    for name, value in index.items():
        if isinstance(value, list) and value and all(each is None for each in value):
            yield name
