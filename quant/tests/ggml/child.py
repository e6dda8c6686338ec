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

from bestiary.errors import BestiaryError
from bestiary.sources.folder import Folder
from bestiary_quant.ggml import checkpoint
from bestiary_quant.ggml.carried import carried_text
from bestiary_quant.ggml.identity import identify


def attempt(folder: Path) -> str:
    """As `opened`; what the file says of its model and of its tokenizer must be known, or fail as the project does."""
    for ask in (identify, carried_text):
        try:
            ask(Folder(folder, "case"), "case.bin")
        except BestiaryError:
            pass
        except Exception as error:
            return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return opened(folder)


def opened(folder: Path) -> str:
    """The error that opening and reading everything gives, or "opened"."""
    try:
        found = checkpoint.open(Folder(folder, "case"), ("case.bin",))
        for name in found.names():
            found.read(name).clone()
            found.release()
        found.close()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return "opened"


def main(folder: Path) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (200 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    path = folder / "case.bin"
    path.write_bytes(corpus.VALID[corpus.JT3])
    attempt(folder)  # what is imported and made once is no cost of a case
    outcomes, longest = [], (0.0, "")
    for case in corpus.cases():
        path.write_bytes(case.content)
        start = time.process_time()
        outcomes.append(attempt(folder))
        longest = max(longest, (time.process_time() - start, case.name))
    prefixes = []
    sound = corpus.VALID[corpus.JT3]
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        prefixes.append(opened(folder).partition(":")[0])
    sys.stdout.write(json.dumps({"cases": outcomes, "prefixes": prefixes, "longest": longest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
