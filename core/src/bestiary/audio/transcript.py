"""What was said in a sound, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bestiary.errors import OptionError


@dataclass(frozen=True)
class Segment:
    """A phrase, and how sure the model is of it."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    avg_logprob: float = 0.0
    """The mean log-probability of the tokens of its window."""
    no_speech_prob: float = 0.0
    """How probable it is that nobody spoke in its window."""
    compression_ratio: float = 0.0
    """Bytes of the window's text over those of it compressed: a text that repeats itself has more than two."""
    temperature: float = 0.0
    """At which its window was written in the end."""


@dataclass(frozen=True)
class Transcript:
    """The whole text and its segments."""

    text: str
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    """A code such as "en"; None: the model does not tell."""
    duration: float = 0.0
    """Seconds of the sound."""
    languages: dict[str, float] = field(default_factory=dict)
    """How probable each was, where the language was not given."""

    def txt(self) -> str:
        """Its segments, a line for each."""
        return "".join(f"{_line(segment.text)}\n" for segment in self.segments)

    def srt(self) -> str:
        """Subtitles as SubRip has them."""
        blocks = (
            f"{number}\n{_time(segment.start, ',')} --> {_time(segment.end, ',')}\n{_subtitle(segment.text)}\n"
            for number, segment in enumerate(self.segments, 1)
        )
        return "\n".join(blocks)

    def vtt(self) -> str:
        """Subtitles as WebVTT (W3C) has them."""
        blocks = (
            f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}\n{_cue(segment.text)}\n"
            for segment in self.segments
        )
        return "\n".join(("WEBVTT\n", *blocks))

    def json(self) -> str:
        """All of it, as an object with the fields of this class."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"

    def save(self, path: str | Path) -> None:
        """Write it in the format of the path's ending: txt, srt, vtt or json.  Raises OptionError."""
        place = Path(path)
        writers = {"txt": self.txt, "srt": self.srt, "vtt": self.vtt, "json": self.json}
        ending = place.suffix.removeprefix(".").lower()
        if ending not in writers:
            fix = f"let it end in one of {', '.join(writers)}"
            raise OptionError(f"{place.name} is no name of a transcript.", fix=fix)
        try:
            place.write_text(writers[ending](), encoding="utf-8")
        except OSError as error:
            what = f"The transcript cannot be written: {error.strerror or error}."
            raise OptionError(what, where=place, fix="choose another place for it") from error

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __str__(self) -> str:
        return self.text


def _time(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and thousandths."""
    thousandths = max(0, round(seconds * 1000))
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _line(text: str) -> str:
    """Without breaks, of which an empty line would end a subtitle."""
    return " ".join(text.split())


def _subtitle(text: str) -> str:
    return _line(text).replace("-->", "->")


def _cue(text: str) -> str:
    return _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
