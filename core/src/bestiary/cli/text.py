"""Plain text for terminals."""

from collections.abc import Sequence


def size(count: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def quantity(count: float) -> str:
    """Counts for people: 1.2 billion."""
    for word, value in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if count >= value:
            return f"{count / value:.1f} {word}"
    return str(int(count))


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows in columns as wide as their widest cell."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]) - 1)] if rows else []
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append((indent + "  ".join([*cells, row[-1]])).rstrip())
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text from a model for a terminal: control characters, which could move its cursor, are shown."""
    return "".join(
        character
        if character in "\n\t" or character.isprintable() or ord(character) > 0x9F
        else f"\\x{ord(character):02x}"
        for character in text
    )
