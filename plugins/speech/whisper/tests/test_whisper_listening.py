"""Whole sounds: windows, languages, prompts, options, and the pipeline around them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bestiary
from bestiary.audio.limits import AudioLimits
from bestiary.audio.transcript import Segment, Transcript
from bestiary.errors import ConfigError, MediaError, OptionError, RequestError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.pipelines.transcription import TranscriptionPipeline
from bestiary.sources.folder import Folder
from bestiary.testing.native import need_native_kernels
from bestiary.testing.reference import Reference
from bestiary_whisper.listener import Listener
from bestiary_whisper.options import Options
from bestiary_whisper.tiny import WHISPER
from bestiary_whisper.tokens import tokens_of
from bestiary_whisper.window import Written

PLAIN: dict[str, Any] = {
    "temperature": 0.0,
    "compression_ratio_threshold": None,
    "logprob_threshold": None,
    "no_speech_threshold": None,
}


def pipeline_of(reference: Reference, **options: Any) -> TranscriptionPipeline:
    pipe = bestiary.load(str(reference.folder), dtype="float32", device="cpu", progress=False, **options)
    assert isinstance(pipe, TranscriptionPipeline)
    return pipe


@pytest.fixture(scope="module")
def reference(checkpoint: Callable[..., Reference]) -> Reference:
    return checkpoint(WHISPER[1])


@pytest.fixture(scope="module")
def pipe(reference: Reference) -> TranscriptionPipeline:
    return pipeline_of(reference)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Different from second to second."""
    random = np.random.default_rng(seed)
    samples = random.standard_normal(int(16000 * seconds)).astype(np.float32) * 0.1
    samples *= np.repeat(random.random(len(samples) // 800 + 1), 800)[: len(samples)].astype(np.float32)
    return samples


@pytest.mark.parametrize("seed", range(2))
@torch.inference_mode()
def test_long_sounds_against_transformers(pipe: TranscriptionPipeline, reference: Reference, seed: int) -> None:
    from transformers import GenerationConfig

    samples = noise(3.5, seed)
    transcript = pipe.transcribe(samples, rate=16000, language="en", condition_on_previous_text=False, **PLAIN)
    listener: Any = pipe._listener
    mel, frames = listener._spectrogram(torch.from_numpy(samples))
    assert mel.shape[1] == frames
    model = reference.model
    model.generation_config = GenerationConfig.from_pretrained(reference.folder)
    wanted = model.generate(
        mel[None],
        language="en",
        task="transcribe",
        return_timestamps=True,
        return_segments=True,
        attention_mask=torch.ones(1, frames, dtype=torch.long),
        max_new_tokens=48,
    )["segments"][0]
    # Theirs keep the timestamp behind a phrase, phrases without words, and what begins behind the end of the sound.
    kept = [segment for segment in wanted if float(segment["start"]) < 3.5]
    theirs = [(round(float(s["start"]), 2), [t for t in s["tokens"].tolist() if t < 257]) for s in kept]
    ours = [(round(s.start, 2), [t for t in s.tokens if t < 257]) for s in transcript.segments]
    assert len(ours) > 3
    assert ours == [each for each in theirs if pipe.tokenizer.decode(each[1]).strip()]


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"temperature": 0.7, "best_of": 4, "seed": 5}])
def test_native_code_writes_the_same(
    pipe: TranscriptionPipeline, reference: Reference, options: dict[str, Any]
) -> None:
    """Recorded steps, over several windows, of answers that are written side by side and go on from each other."""
    need_native_kernels()
    asked = {"rate": 16000, "language": "en", **PLAIN, **options}
    with pipeline_of(reference, kernels="native") as native:
        for seed in range(2):
            made, due = (each.transcribe(noise(2.5, seed), **asked) for each in (native, pipe))
            assert [segment.tokens for segment in made.segments] == [segment.tokens for segment in due.segments]
            assert len(due.segments) > 2


@torch.inference_mode()
def test_windows_follow_each_other(pipe: TranscriptionPipeline) -> None:
    seen: list[Segment] = []
    transcript = pipe.transcribe(noise(2.7), rate=16000, language="german", heard=seen.append, **PLAIN)
    assert transcript.language == "de"
    assert transcript.duration == pytest.approx(2.7)
    assert tuple(seen) == transcript.segments
    assert [segment.start for segment in seen] == sorted(segment.start for segment in seen)
    assert all(0 <= segment.start < segment.end <= 2.72 for segment in seen)
    assert transcript.text == "".join(segment.text for segment in seen).strip()


def test_without_timestamps_a_segment_is_a_window(pipe: TranscriptionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from bestiary_whisper import listener

    # A timestamp that a model wrote all the same means nothing.
    monkeypatch.setattr(listener, "write_window", lambda *_: Written((72, 270, 270, 105), -0.1, 0.0, 1.0, 0.0))
    transcript = pipe.transcribe(noise(2.5), rate=16000, language="en", timestamps=False)
    assert [(segment.start, segment.end) for segment in transcript.segments] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]
    assert transcript.text == 3 * pipe.tokenizer.decode([72, 105])


def test_languages_are_heard(pipe: TranscriptionPipeline) -> None:
    found = pipe.detect_language(noise(1.0), rate=16000)
    assert set(found) == {"en", "de"}
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    transcript = pipe.transcribe(noise(1.0), rate=16000, **PLAIN)
    assert transcript.language == next(iter(found))
    assert transcript.languages == found


def test_tasks_languages_and_prompts_change_what_is_written(pipe: TranscriptionPipeline) -> None:
    def text(**options: Any) -> str:
        return pipe.transcribe(noise(1.0), rate=16000, **{"language": "en", **PLAIN, **options}).text

    plain = text()
    assert text() == plain
    others = [text(task="translate"), text(language="de"), text(prompt="Names: Theo."), text(beam_size=3)]
    assert all(other != plain for other in others)
    assert text(prompt="  ") == plain


def test_the_next_window_is_told_what_was_said(pipe: TranscriptionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from bestiary_whisper import listener

    prompts: list[list[int]] = []
    own = listener.write_window

    def watched(desk: Any, prompt: list[int], *others: Any) -> Any:
        prompts.append(prompt)
        return own(desk, prompt, *others)

    monkeypatch.setattr(listener, "write_window", watched)
    transcript = pipe.transcribe(noise(2.0), rate=16000, language="en", prompt="Hi", **PLAIN)
    said = [token for segment in transcript.segments for token in segment.tokens]
    first = [264, *pipe.tokenizer.encode(" Hi", add_special_tokens=False)]
    assert prompts[0] == [*first, 258, 259, 262]
    assert len(prompts) > 1
    for prompt in prompts[1:]:
        told = prompt[1:-3]
        assert prompt[0] == 264
        assert prompt[-3:] == [258, 259, 262]
        assert len(told) <= 47
        assert " ".join(map(str, told[-3:])) in " ".join(map(str, said))
    prompts.clear()
    pipe.transcribe(noise(2.0), rate=16000, language="en", condition_on_previous_text=False, **PLAIN)
    assert all(prompt == [258, 259, 262] for prompt in prompts)


def test_windows_without_speech_are_left_out(pipe: TranscriptionPipeline) -> None:
    silent = pipe.transcribe(
        noise(2.0), rate=16000, language="en", temperature=0.0, no_speech_threshold=0.0, logprob_threshold=0.0
    )
    assert silent.segments == ()
    assert silent.text == ""


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"langage": "en"}, "language"),
        ({"language": "klingon"}, "does not know the language 'klingon'"),
        ({"language": 3}, "language is 3"),
        ({"task": "sing"}, "no task 'sing'"),
        ({"timestamps": 1}, "timestamps is 1"),
        ({"temperature": ()}, "temperature is empty"),
        ({"temperature": (0.0, -1.0)}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"beam_size": 0}, "beam_size is 0"),
        ({"best_of": 1.5}, "best_of is 1.5"),
        ({"prompt": b"x"}, "prompt is b'x'"),
        ({"logprob_threshold": "low"}, "logprob_threshold is 'low'"),
        ({"seed": None}, "seed is None"),
    ],
)
def test_options_that_cannot_be(pipe: TranscriptionPipeline, options: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        pipe.transcribe(noise(0.5), rate=16000, **options)


def test_the_defaults_are_those_of_openai() -> None:
    made = Options()
    assert made.temperatures == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    thresholds = made.compression_ratio_threshold, made.logprob_threshold, made.no_speech_threshold
    assert thresholds == (2.4, -1.0, 0.6)


def test_sounds_that_cannot_be_taken(pipe: TranscriptionPipeline, reference: Reference) -> None:
    with pytest.raises(MediaError, match="rate"):
        pipe.transcribe(noise(0.1))
    with pytest.raises(RequestError, match="no samples"):
        pipe.transcribe(np.zeros(0, np.float32), rate=16000)
    short = pipeline_of(reference, audio_limits=AudioLimits(duration=1))
    with pytest.raises(MediaError, match="lasts 2 seconds"):
        short.transcribe(noise(2.0), rate=16000)
    with pytest.raises(OptionError, match="audio_limits is 3"):
        pipeline_of(reference, audio_limits=3)
    with short, pytest.raises(RequestError, match="closed"):
        short.close()
        short.transcribe(noise(0.1), rate=16000)


def test_a_stereo_recording(pipe: TranscriptionPipeline, shared_data: Path) -> None:
    pytest.importorskip("soundfile")
    transcript = pipe.transcribe(shared_data / "media/jfk.flac", language="en", **PLAIN)
    assert transcript.duration == pytest.approx(11.0)
    assert transcript.segments


def tokens_with(reference: Reference, **changes: Any) -> Any:
    tokenizer = Tokenizer.from_repository(Folder(reference.folder, "the test"))
    generation = json.loads((reference.folder / "generation_config.json").read_text())
    return tokens_of(tokenizer, WHISPER[1], {**generation, **changes}, 318)


def test_what_configurations_leave_out_the_tokenizer_tells(reference: Reference) -> None:
    tokenizer = Tokenizer.from_repository(Folder(reference.folder, "the test"))
    whole, bare = tokens_with(reference), tokens_of(tokenizer, {}, {}, 318)
    for name in ("start", "end", "languages", "tasks", "no_timestamps", "previous", "no_speech"):
        assert getattr(bare, name) == getattr(whole, name)
    assert bare.suppressed == (258, 261, 262, 263, 264)
    assert whole.suppressed == (1, 2, 7, *range(258, 266))


def test_a_model_of_english_alone(reference: Reference) -> None:
    english = tokens_with(reference, is_multilingual=False)
    assert english.prompt(None, "transcribe", True) == [258]
    assert english.prompt("English", "transcribe", False) == [258, 266]
    for language, task in (("de", "transcribe"), (None, "translate")):
        with pytest.raises(OptionError, match="English only"):
            english.prompt(language, task, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token_id", "257"),
        ("decoder_start_token_id", 318),
        ("no_timestamps_token_id", True),
        ("suppress_tokens", [1, 400]),
        ("suppress_tokens", "1"),
        ("lang_to_id", {"<|en|>": -1}),
        ("task_to_id", [1]),
        ("max_initial_timestamp_index", -1),
    ],
)
def test_ids_that_cannot_be(reference: Reference, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        tokens_with(reference, **{key: value})


def test_a_listener_is_what_the_pipeline_asks_for(pipe: TranscriptionPipeline) -> None:
    assert isinstance(pipe._listener, Listener)
    assert isinstance(pipe.transcribe(noise(0.05), rate=16000, language="en", **PLAIN), Transcript)
