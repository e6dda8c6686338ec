"""What starting costs: processor time of `import bestiary` and of the command, beside an import of typer and of torch.

    python benchmarks/startup.py

Processor time of a child, the least of several runs, less that of an empty interpreter.
"""

from __future__ import annotations

import resource
import subprocess
import sys

TRIES = 7
STARTS = {
    "import bestiary": ("-c", "import bestiary"),
    "bestiary --version": ("-m", "bestiary", "--version"),
    "bestiary plugins": ("-m", "bestiary", "plugins"),
    "import typer's command": ("-c", "import typer.main, typer._adapters"),
    "import torch": ("-c", "import torch"),
}


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    spent = []
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


if __name__ == "__main__":
    empty = cpu_seconds(("-c", ""))
    for name, arguments in STARTS.items():
        print(f"{name:24}{cpu_seconds(arguments) - empty:7.3f} s")
