"""What each kind of model takes on the command line, and where results go."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.models import OptionInfo

from bestiary.audio.transcript import Segment, Transcript
from bestiary.audio.waveform import Waveform
from bestiary.cli import ask, paint, speak, transcribe
from bestiary.cli.files import ENDINGS, check_inputs, check_output, destination, name_of, words_of
from bestiary.cli.kinds import Kind, chosen, refuse
from bestiary.cli.parts import parts_of
from bestiary.cli.run import KINDS, LOADING, TEXT, WHERE, run
from bestiary.cli.sounds import speed
from bestiary.errors import OptionError
from bestiary.records import resolve
from bestiary.speech.result import Speech

ALL = [resolve(each) for each in (*KINDS.values(), TEXT)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_option_is_of_every_model_or_means_something_to_a_kind() -> None:
    declared = {
        name
        for name, parameter in inspect.signature(run, eval_str=True).parameters.items()
        if any(isinstance(each, OptionInfo) for each in getattr(parameter.annotation, "__metadata__", ()))
    }
    taken = {name for kind in ALL for name in kind.takes}
    every = {*WHERE, *LOADING, "plugin", "stats"}
    assert taken.isdisjoint(every)
    assert declared == taken | every


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_kind_with_an_output_makes_something(kind: Kind) -> None:
    assert ("output" in kind.takes) == (kind.makes in ENDINGS)


def test_what_means_nothing_is_refused_with_its_name() -> None:
    refuse({"audio": ["a.wav"], "audio_text": "Hello."}, speak.KIND)
    with pytest.raises(OptionError, match="--audio-text means nothing to a model that writes down what it hears"):
        refuse({"audio": ["a.wav"], "audio_text": "Hello."}, transcribe.KIND)
    assert chosen({"seed": 0, "speed": 2.0}, "seed", "top_p") == {"seed": 0}


def test_every_ending_is_written(here: Path) -> None:
    speech = Speech(Waveform(torch.zeros(1, 4410), 44100), 1, True)
    for ending in ENDINGS["a sound"]:
        speech.save(here / f"out{ending}")
    for ending in ENDINGS["a transcript"]:
        Transcript("").save(here / f"out{ending}")
    assert len(list(here.iterdir())) == 9


def test_outputs_are_judged_by_their_ending_and_their_folder(here: Path) -> None:
    (here / "made.wav").mkdir()
    check_output("out.FLAC", "a sound")
    check_output(".srt", "a sound", "a transcript")
    check_output("~/out.mp3", "a sound")
    for output, message in {
        "out.txt": "out.txt has no ending of a sound",
        "out": "no ending",
        "srt": "no ending",
        "absent/out.wav": "There is no folder absent",
        "made.wav": "is a folder",
    }.items():
        with pytest.raises(OptionError, match=message):
            check_output(output, "a sound")
    with pytest.raises(OptionError) as raised:
        check_output("out.fla", "a picture", "a sound")
    assert raised.value.what == "out.fla has no ending of a picture or a sound."
    assert raised.value.fix == "Did you mean '.flac'?"


def test_a_destination_that_was_named_is_that(here: Path) -> None:
    (here / "out.wav").touch()
    assert destination("out.wav", "hello", ".wav") == Path("out.wav")
    assert destination("a/out.png", "hello", ".png", 2, 3) == Path("a/out-2.png")


def test_what_nobody_named_is_not_written_over(here: Path) -> None:
    (here / "sub").mkdir()
    for name in ("hello.wav", "hello-2.wav", "sub/talk.srt"):
        (here / name).touch()
    assert destination(None, "hello", ".wav") == Path("hello-3.wav")
    assert destination(None, "hello", ".png") == Path("hello.png")
    assert destination(".flac", "hello", ".wav") == Path("hello.flac")
    assert destination("sub/.srt", "talk", ".txt", 1, 2) == Path("sub/talk-2.srt")
    assert destination("sub/.srt", "v1.2", ".txt", 2, 2) == Path("sub/v1.2.srt")


def test_inputs_are_there_or_left_to_who_opens_them(here: Path) -> None:
    (here / "a: b.wav").touch()
    check_inputs(["a: b.wav", "https://example.com/a.wav", "data:audio/wav;base64,AAAA", "file:///a.wav", "s3://x"])
    check_inputs(["a" * 5000])
    with pytest.raises(OptionError, match=r"There is no file absent\.wav"):
        check_inputs(["a: b.wav", "absent.wav"])


def test_names_of_results() -> None:
    assert words_of("[S1] Hello, world!", "speech") == "s1-hello-world"
    assert words_of("?!", "speech") == "speech"
    assert len(words_of("word " * 50, "speech")) <= 60
    assert name_of("some/talk.v2.mp3", "sound") == "talk.v2"
    assert name_of("https://example.com/a/two%20words.mp3?size=1", "sound") == "two words"
    assert name_of("https://example.com", "sound") == "sound"
    assert name_of("data:audio/wav;base64,AAAA", "sound") == "sound"


def test_a_prompt_of_pictures_and_speech_is_checked() -> None:
    with pytest.raises(OptionError, match="one --image"):
        paint.check("a fox", {"image": ["a.png", "b.png"]})
    for prompt in (None, " \n"):
        with pytest.raises(OptionError, match="nothing to say"):
            speak.check(prompt, {})
    with pytest.raises(OptionError, match="one --audio"):
        speak.check("Hello.", {"audio": ["a.wav", "b.wav"]})
    with pytest.raises(OptionError, match="add --audio"):
        speak.check("Hello.", {"audio_text": "Hi."})
    with pytest.raises(OptionError, match=r"speed is 9\.0"):
        speak.check("Hello.", {"speed": 9.0})
    with pytest.raises(OptionError, match="no sound to write down"):
        transcribe.check("names", {"seed": 1})
    with pytest.raises(OptionError, match="go with a question"):
        ask.check(None, {"video": ["a.gif"]})


def test_sounds_without_their_library_are_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    for check in (speak.check, transcribe.check):
        with pytest.raises(OptionError, match=r"bestiary-core\[audio\]"):
            check("Hello.", {"audio": ["a.wav"]})


def test_a_picture_of_a_sound_is_checked() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(OptionError, match="no name of a picture"):
        transcribe.check(None, {"audio": ["a.wav"], "plot": "a.wav"})
    with pytest.raises(OptionError, match="cannot be written there"):
        transcribe.check(None, {"audio": ["a.wav"], "plot": "absent/a.png"})


def test_parts_by_name_or_all_of_one_repository() -> None:
    assert parts_of(()) is None
    assert parts_of(["org/whole"]) == "org/whole"
    assert parts_of(["vae=a=b", "unet=c"]) == {"vae": "a=b", "unet": "c"}
    with pytest.raises(OptionError, match="NAME=ID"):
        parts_of(["vae=a", "b"])


def test_segments_are_printed_while_the_rest_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    class Pipe:
        def transcribe(self, source: str, heard: Any, **options: Any) -> Transcript:
            assert (source, options) == ("a.wav", {"language": "en", "prompt": "names"})
            heard(Segment(0.0, 1.0, " Once upon\x1b a time "))
            assert capsys.readouterr().out == "Once upon\\x1b a time\n"
            return Transcript("", duration=3.0)

    pipe: Any = Pipe()
    transcribe.transcribe(pipe, "names", {"audio": ["a.wav"], "language": "en"}, True)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("[3.0 s of sound in 0.0 s")


def test_speech_that_was_cut_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Pipe:
        nbytes = 2_000_000

        def __call__(self, text: str, **options: Any) -> Speech:
            assert (text, options) == ("Hello.", {"seed": 7, "audio_prompt": "a.wav"})
            return Speech(Waveform(torch.zeros(1, 4410), 44100), 7, finished)

    pipe: Any = Pipe()
    for finished in (True, False):
        speak.speak(pipe, " Hello.\n", {"seed": 7, "audio": ["a.wav"], "output": ".ogg"}, True)
        shown = capsys.readouterr()
        assert shown.err.endswith("weights 2.0 MB]\n" if finished else "weights 2.0 MB, cut before its end]\n")
    assert shown.out == "hello-7-2.ogg\n" and (here / "hello-7.ogg").exists()


def test_speed_is_in_times_of_listening() -> None:
    assert speed(63.0, 4.0) == "63.0 s of sound in 4.0 s, x15.8 of real time"
    assert "x0.0 of real time" in speed(0.0, 0.0)
