"""Transcripts as text, as subtitles and as JSON."""

import json
from pathlib import Path

import pytest

from bestiary.audio.transcript import Segment, Transcript
from bestiary.errors import OptionError

TRANSCRIPT = Transcript(
    "Hello <there>. A --> B & C",
    (
        Segment(0.0, 1.5, " Hello\n\n<there>.", (1, 2), -0.25, 0.01, 1.1, 0.2),
        Segment(1.5, 3725.0456, " A --> B & C"),
    ),
    "en",
    3726.0,
)


def test_txt() -> None:
    assert TRANSCRIPT.txt() == "Hello <there>.\nA --> B & C\n"
    assert str(TRANSCRIPT) == TRANSCRIPT.text
    assert list(TRANSCRIPT) == list(TRANSCRIPT.segments)


def test_srt() -> None:
    assert TRANSCRIPT.srt() == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello <there>.\n\n2\n00:00:01,500 --> 01:02:05,046\nA -> B & C\n"
    )


def test_vtt() -> None:
    assert TRANSCRIPT.vtt() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello &lt;there&gt;.\n\n"
        "00:00:01.500 --> 01:02:05.046\nA --&gt; B &amp; C\n"
    )


def test_json() -> None:
    read = json.loads(TRANSCRIPT.json())
    assert read["language"] == "en"
    assert read["segments"][0]["tokens"] == [1, 2]
    assert read["segments"][0]["avg_logprob"] == -0.25
    assert Transcript(**{**read, "segments": tuple(Segment(**each) for each in read["segments"])}).srt()


def test_nothing_was_said() -> None:
    empty = Transcript("")
    assert (empty.txt(), empty.srt(), empty.vtt()) == ("", "", "WEBVTT\n")


def test_files(tmp_path: Path) -> None:
    for ending in ("txt", "srt", "vtt", "json"):
        TRANSCRIPT.save(tmp_path / f"a.{ending}")
        assert (tmp_path / f"a.{ending}").read_text() == getattr(TRANSCRIPT, ending)()
    with pytest.raises(OptionError, match="no name of a transcript"):
        TRANSCRIPT.save(tmp_path / "a.doc")
    with pytest.raises(OptionError, match="cannot be written"):
        TRANSCRIPT.save(tmp_path / "absent" / "a.txt")
