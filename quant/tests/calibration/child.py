"""What runs in a process of its own, because it may hang or eat the memory: `python child.py FOLDER`.

Reads every case of the corpus, and every beginning of the sound files, under a limit of address space, and writes the
outcomes with the seconds of the processor as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import corpus

from bestiary_quant.calibration.files import read_importance


def attempt(path: Path, content: bytes) -> tuple[str, float]:
    path.write_bytes(content)
    start = time.process_time()
    try:
        read = read_importance(path)
        seconds = time.process_time() - start
        for name in read.values:
            assert read.mean(name).isfinite().all()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}", time.process_time() - start
    return "read", seconds


def main(folder: Path) -> None:
    attempt(folder / "first.gguf", corpus.NEWER)  # what is imported at the first use
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (200 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    cases = [attempt(folder / case.file, case.content) for case in corpus.cases()]
    beginnings = []
    for name, content in (("a.dat", corpus.SOUND), ("a.cimatrix", corpus.KEYED), ("a.gguf", corpus.NEWER)):
        beginnings += [[name, length, *attempt(folder / name, content[:length])] for length in range(len(content))]
    sys.stdout.write(json.dumps({"cases": cases, "beginnings": beginnings}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
