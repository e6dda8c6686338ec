"""Set the one version of every distribution, and the ranges in which they ask for each other.

python scripts/set_version.py 0.2.0
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def projects() -> list[Path]:
    """Every pyproject.toml of the tree."""
    return [ROOT / "pyproject.toml", ROOT / "core/pyproject.toml", *sorted(ROOT.glob("plugins/*/*/pyproject.toml"))]


def rewritten(text: str, version: str) -> str:
    """A pyproject.toml with the version, and with `bestiary-*>=version,<next minor` wherever one is asked for."""
    major, minor, _ = version.split(".", 2)
    wanted = f">={version},<{major}.{int(minor) + 1}"
    text = re.sub(r'(?m)^version = "[^"]*"', f'version = "{version}"', text, count=1)
    return re.sub(r'"(bestiary-[a-z0-9-]+)[<>=~][^"]*"', rf'"\1{wanted}"', text)


def main(version: str) -> None:
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version!r} is not a version such as 1.2.3")
    for path in projects():
        path.write_text(rewritten(path.read_text(), version))
    module = ROOT / "core/src/bestiary/__init__.py"
    module.write_text(re.sub(r'__version__ = "[^"]*"', f'__version__ = "{version}"', module.read_text()))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
