"""`bestiary run` with sounds: speech into files, sounds into text, and what is told before a model is loaded."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary
from bestiary.audio.opening import open_audio
from bestiary.audio.saving import save
from bestiary.audio.waveform import Waveform
from bestiary.cli import invoke
from bestiary.cli.text import escaped
from bestiary.testing.hearing import write_small_files
from bestiary.testing.reference import make_reference
from bestiary.testing.threads import one_thread as one_thread
from bestiary_dac.tiny import FOUR
from bestiary_dia.tiny import DIA
from bestiary_whisper.tiny import WHISPER

pytest.importorskip("soundfile")
Capture = pytest.CaptureFixture[str]
ONCE = ["--temperature", "0"]
"""What random weights write is improbable, and would be tried again at every temperature."""


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recogniser with random weights and a tokenizer of bytes; its windows are of one second."""
    folder = tmp_path_factory.mktemp("whisper")
    make_reference(WHISPER[1], folder)
    write_small_files(folder, WHISPER[1]["vocab_size"])
    return str(folder)


@pytest.fixture(scope="module")
def dac(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dac")
    make_reference(FOUR, folder)
    return str(folder)


@pytest.fixture(scope="module")
def dia(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A speaker with random weights, without its codec."""
    folder = tmp_path_factory.mktemp("dia")
    make_reference(DIA[0], folder)
    return str(folder)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two sounds."""
    monkeypatch.chdir(tmp_path)
    noise = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0)) * 0.1
    save(Waveform(noise, 16000), "talk.wav")
    save(Waveform(noise[:, :4000], 8000), "two words.flac")
    return tmp_path


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(bestiary, "load", load)


def heard(model: str, *sounds: str, **options: Any) -> list[Any]:
    with bestiary.load(model, progress=False) as pipe:
        return [pipe.transcribe(sound, **options) for sound in sounds]


def lines(transcript: Any) -> str:
    return "".join(f"{escaped(segment.text.strip())}\n" for segment in transcript)


def test_a_sound_is_written_down(whisper: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def read(self, *_: Any) -> str:
            raise AssertionError("stdin belongs to the loop in which the command stands")

    monkeypatch.setattr(sys, "stdin", Closed())
    assert invoke(["run", whisper, "--audio", "talk.wav", *ONCE]) == 0
    shown = capsys.readouterr()
    (expected,) = heard(whisper, "talk.wav", temperature=0)
    assert len(expected.segments) > 1 and shown.out == lines(expected)
    assert re.fullmatch(r"\[1\.5 s of sound in \d+\.\d s, x\d+\.\d of real time\]\n", shown.err), shown.err


def test_options_of_a_transcription(whisper: str, capsys: Capture) -> None:
    arguments = ["--language", "de", "--task", "translate", "--temperature", "0.3", "--seed", "3", "--no-stats"]
    assert invoke(["run", whisper, "Ada Lovelace", "--audio", "talk.wav", *arguments]) == 0
    shown = capsys.readouterr()
    options = {"language": "de", "task": "translate", "temperature": 0.3, "seed": 3, "prompt": "Ada Lovelace"}
    assert shown.out == lines(heard(whisper, "talk.wav", **options)[0])
    assert shown.err == ""


def test_transcripts_of_several_sounds(whisper: str, capsys: Capture, here: Path) -> None:
    pytest.importorskip("matplotlib")
    sounds = ["--audio", "talk.wav", "--audio", "two words.flac", *ONCE]
    assert invoke(["run", whisper, *sounds, "-o", ".srt", "--plot", "drawn.png"]) == 0
    shown = capsys.readouterr()
    first, second = heard(whisper, "talk.wav", "two words.flac", temperature=0)
    assert shown.out == f"==> talk.wav <==\n{lines(first)}==> two words.flac <==\n{lines(second)}"
    assert shown.err.startswith("talk.srt\ntwo words.srt\n[2.0 s of sound")
    assert (here / "talk.srt").read_text() == first.srt()
    assert (here / "two words.srt").read_text() == second.srt()
    assert all((here / f"drawn-{number}.png").read_bytes().startswith(b"\x89PNG") for number in (1, 2))
    assert invoke(["run", whisper, "--audio", "talk.wav", "-o", ".srt", *ONCE]) == 0
    assert "talk-2.srt" in capsys.readouterr().err  # nobody asked to write over the first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no sound to write down"),
        (["talk.wav"], "add --audio FILE"),
        (["--audio", "absent.wav"], "There is no file absent.wav"),
        (["--audio", "talk.wav", "-o", "out.wav"], "out.wav has no ending of a transcript"),
        (["--audio", "talk.wav", "-o", "nowhere/out.srt"], "There is no folder nowhere"),
        (["--audio", "talk.wav", "-o", "out.str"], "'.srt'"),
        (["--audio", "talk.wav", "--plot", "out.srt"], "no name of a picture"),
        (["--audio", "talk.wav", "--speed", "2"], "--speed means nothing to a model that writes down"),
        (["--audio", "talk.wav", "--temperature", "-1"], "temperature is -1.0"),
    ],
)
@pytest.mark.usefixtures("unloaded")
def test_mistakes_with_a_recogniser(whisper: str, capsys: Capture, arguments: list[str], message: str) -> None:
    pytest.importorskip("matplotlib")
    assert invoke(["run", whisper, *arguments]) == 1
    shown = capsys.readouterr()
    assert message in shown.err and shown.out == ""


def test_what_is_no_sound_is_told(whisper: str, capsys: Capture, here: Path) -> None:
    (here / "text.wav").write_text("Once upon a time")
    assert invoke(["run", whisper, "--audio", "text.wav"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and "text.wav" in shown
    assert invoke(["run", whisper, "--audio", "talk.wav", "--task", "sing"]) == 2
    assert "'sing'" in capsys.readouterr().err


def test_speech_goes_into_a_file_of_the_working_folder(dia: str, dac: str, capsys: Capture) -> None:
    short = ["--dac-model-id", dac, "--seed", "1", "--max-tokens", "20"]
    assert invoke(["run", dia, "[S1] Hello!", *short]) == 0
    shown = capsys.readouterr()
    assert shown.out == "s1-hello-1.wav\n"
    told = r"\[\d\.\d s of sound in \d+\.\d s, x\d+\.\d of real time, weights [^,]*(, cut before its end)?\]\n"
    assert re.fullmatch(told, shown.err), shown.err
    with bestiary.load(dia, dac_model_id=dac, progress=False) as pipe:
        speech = pipe("[S1] Hello!", seed=1, max_tokens=20)
    assert (", cut before its end" in shown.err) != speech.finished
    written = open_audio("s1-hello-1.wav")
    assert written.rate == 44100
    assert torch.allclose(written.samples, speech.samples.clamp(-1, 1), atol=2 / 32768)
    assert invoke(["run", dia, "[S1] Hello!", *short]) == 0
    assert capsys.readouterr().out == "s1-hello-1-2.wav\n"


def test_options_of_speech(dia: str, dac: str, capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "stdin", io.StringIO("[S1] Hello!\n"))
    options = {"seed": 2, "max_tokens": 30, "temperature": 0.9, "top_p": 0.8, "guidance": 2.0, "speed": 1.5}
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    voice = ["--audio", "talk.wav", "--audio-text", "[S1] Noise."]
    places = ["-o", "out.flac", "--plot", "drawn.png", "--no-stats", "--part", f"audio_tokenizer={dac}"]
    assert invoke(["run", dia, *arguments, *voice, *places]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("out.flac\n", "")
    assert (here / "drawn.png").read_bytes().startswith(b"\x89PNG")
    with bestiary.load(dia, parts={"audio_tokenizer": dac}, progress=False) as pipe:
        said = {"audio_prompt": "talk.wav", "audio_prompt_text": "[S1] Noise."}
        speech = pipe("[S1] Hello!", **options, **said)
    assert torch.allclose(open_audio("out.flac").samples, speech.samples.clamp(-1, 1), atol=2 / 32768)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to say"),
        (["Hi", "-o", "out.srt"], "out.srt has no ending of a sound"),
        (["Hi", "--audio", "absent.wav"], "There is no file absent.wav"),
        (["Hi", "--audio", "talk.wav", "--audio", "talk.wav"], "one --audio"),
        (["Hi", "--audio-text", "Ho"], "add --audio"),
        (["Hi", "--speed", "9"], "speed is 9.0"),
        (["Hi", "--language", "de"], "--language means nothing to a speech model"),
        (["Hi", "--count", "1"], "--count means nothing to a speech model"),
    ],
)
@pytest.mark.usefixtures("unloaded")
def test_mistakes_with_a_speaker(
    dia: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert invoke(["run", dia, *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("unloaded")
def test_sounds_mean_nothing_to_a_text_model(capsys: Capture) -> None:
    for option, value in {"--audio": "talk.wav", "--plot": "drawn.png", "-o": "out.wav"}.items():
        assert invoke(["run", "demo", "Hello!", option, value]) == 1
        assert "means nothing to a text model" in capsys.readouterr().err
