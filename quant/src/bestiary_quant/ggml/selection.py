"""Which files of a repository are of the format, and which of them is the model.

Names end in `.bin`, as pickles do, so that the first bytes decide: `llama-2-7b-chat.ggmlv3.q4_K_M.bin`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bestiary.checkpoints.refuse import refuse
from bestiary.errors import CheckpointError
from bestiary.protocols import Repository
from bestiary_quant.ggml.header import sniff
from bestiary_quant.labels import by_bits, says, undecided

SUFFIXES = (".bin", ".ggml")
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.bin")
"""Names of pickles of several files; this format never had such."""
_ADAPTER = b"algg"
_TYPE = re.compile(r"(?<![a-z0-9_])(?:q\d_[a-z0-9_]+|f16|fp16|f32|fp32)(?![a-z0-9_])")


def files(repository: Repository, wanted: str | None = None) -> tuple[str, ...]:
    """The name of the weight file, alone in a tuple.

    `wanted` is a file name, or a part of one between its separators, in any case: "q4_k_m".  Without it the repository
    must hold one model.  Raises CheckpointError with what there is, or with what to do about pickles.
    """
    named = found = models(repository)
    if wanted is not None:
        named = [name for name in found if name == wanted] or [name for name in found if says(name, wanted)]
    if len(named) == 1:
        return (named[0],)
    raise _nothing(repository) if not found else _undecided(repository, found, named, wanted)


def chosen(repository: Repository, wanted: str) -> tuple[str, ...] | None:
    """As `files`, also by a number of bits; None where there is one model and `wanted` is no part of its name.

    Then it is to be packed so.
    """
    found = models(repository)
    if len(found) == 1 and wanted != found[0] and not says(found[0], wanted):
        return None
    place = by_bits(wanted, [_label(name) for name in found])
    return files(repository, wanted if place is None else found[place])


def models(repository: Repository) -> list[str]:
    """Every file that begins with a mark of the format, by name; the only question is asked of its first bytes."""
    return [name for name, head in _heads(repository) if sniff(name, head)]


def _heads(repository: Repository) -> Iterator[tuple[str, bytes]]:
    for name in sorted(repository.files()):
        if name.endswith(SUFFIXES) and not _SHARD.fullmatch(name):
            yield name, repository.head(name, 16)


def _label(name: str) -> str:
    found = _TYPE.findall(name.lower())
    return found[-1] if found else name


def _nothing(repository: Repository) -> CheckpointError:
    if adapters := [name for name, head in _heads(repository) if head.startswith(_ADAPTER)]:
        return CheckpointError(
            f"{adapters[0]!r} is an adapter that llama.cpp made of a LoRA, not a model.",
            where=repository.origin,
            fix="load the adapter itself, in the format of PEFT, beside its base",
        )
    refuse((name for name in repository.files() if not name.endswith(".ggml")), repository.origin)
    return CheckpointError(
        "There is no file of llama.cpp from before GGUF.",
        where=repository.origin,
        fix="check the id, and the revision of the model",
    )


def _undecided(repository: Repository, found: list[str], named: list[str], wanted: str | None) -> CheckpointError:
    sizes = repository.files()
    known, meant = ([(_label(name), sizes[name]) for name in names] for names in (found, named))
    return undecided(known, meant, wanted, repository.origin)
