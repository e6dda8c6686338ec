"""What runs in a process of its own, because it may hang or eat the memory: `python child.py FOLDER`.

Opens and reads every case of the corpus, and every beginning of a sound file, under a limit of address space, and
writes the outcomes as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import corpus
import torch  # noqa: F401  (before the limit)

from bestiary.sources.folder import Folder
from bestiary_quant.gguf import checkpoint
from bestiary_quant.gguf.identity import identify


def attempt(folder: Path) -> str:
    """The error that identifying, opening and reading everything gives, or "opened"."""
    try:
        repository = Folder(folder, "case")
        identify(repository, "case.gguf")
    except Exception as error:
        identified = f"{type(error).__module__}.{type(error).__name__}"
    else:
        identified = ""
    try:
        opened = checkpoint.open(Folder(folder, "case"), ("case.gguf",))
        for name in opened.names():
            opened.read(name).clone()
            opened.release()
        for key in opened.config:
            assert opened.config[key] is not None
        opened.close()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return "opened" if identified in ("", "bestiary.errors.CheckpointError") else identified


def main(folder: Path) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (200 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    path = folder / "case.gguf"
    path.write_bytes(corpus.VALID)
    attempt(folder)  # what is imported and made once is no cost of a case
    outcomes, longest = [], (0.0, "")
    for case in corpus.cases():
        path.write_bytes(case.content)
        start = time.process_time()
        outcomes.append(attempt(folder))
        longest = max(longest, (time.process_time() - start, case.name))
    prefixes = []
    for length in range(len(corpus.VALID) - 16):  # the last tensor is followed by 16 bytes that no tensor needs
        path.write_bytes(corpus.VALID[:length])
        prefixes.append(attempt(folder).partition(":")[0])
    sys.stdout.write(json.dumps({"cases": outcomes, "prefixes": prefixes, "longest": longest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
