"""The files that docs/writing-a-plugin.md shows, taken from the page."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "writing-a-plugin.md"


def files() -> dict[str, str]:
    """By path: each fenced block that stands under a line with nothing but its path in backquotes."""
    found = re.findall(r"(?m)^`([^`\n]+)`\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.DOTALL)
    return dict(found)


def write(folder: Path) -> Path:
    """Write them below `folder` and return it."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
