"""What runs in a process of its own, because it may hang or eat the memory: `python child.py FOLDER`.

Opens and reads every case of the corpus, and beginnings of a sound shard, under a limit of address space, and writes
the outcomes, with the longest time of one, as JSON.
"""

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import corpus
import torch  # noqa: F401  (before the limit)

from bestiary.errors import CheckpointError
from bestiary.sources.folder import Folder
from bestiary_quant.uqff import checkpoint, selection
from bestiary_quant.uqff.report import report

LIMIT = 200 << 20


def attempt(folder: Path) -> str:
    """The error that choosing, opening and reading everything gives, or "opened"."""
    try:
        repository = Folder(folder, "case")
        names = selection.files(repository)
        ahead(repository, names)
        opened = checkpoint.open(repository, names)
        for name in opened.names():
            opened.read(name).clone()
            opened.packed(name)
            opened.release()
        opened.close()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return "opened"


def ahead(repository: Folder, names: tuple[str, ...]) -> None:
    """The beginnings of the files alone may open or be refused."""
    with suppress(CheckpointError):
        checkpoint.open_header(repository, names)


def main(folder: Path) -> None:
    shard, residual = folder / "case-0.uqff", folder / "residual.safetensors"
    cases = list(corpus.cases())
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    shard.write_bytes(corpus.VALID)
    residual.write_bytes(corpus.RESIDUAL)
    attempt(folder)  # what is imported and made once is no cost of a case
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes, longest = [], (0.0, "")
    for case in cases:
        shard.write_bytes(case.shard)
        residual.write_bytes(case.residual)
        start = time.process_time()
        outcomes.append(attempt(folder))
        longest = max(longest, (time.process_time() - start, case.name))
        assert bool(report(folder).problems) == (outcomes[-1] != "opened")
    residual.write_bytes(corpus.RESIDUAL)
    beginnings = []
    for length in range(0, len(corpus.VALID), 7):
        shard.write_bytes(corpus.VALID[:length])
        beginnings.append(attempt(folder).partition(":")[0])
    json.dump({"cases": outcomes, "beginnings": beginnings, "longest": longest}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
