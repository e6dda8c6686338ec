"""Texts become sounds: against transformers, in pieces, side by side, and again."""

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary
from bestiary.audio.waveform import Waveform
from bestiary.errors import BestiaryError, ConfigError, ModelNotFound, OptionError, RequestError
from bestiary.generation.lanes import Lanes
from bestiary.generation.sources import Sources
from bestiary.identified import identify_model
from bestiary.pipelines.speech import SpeechPipeline
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.native import need_native_kernels
from bestiary.testing.reference import make_reference
from bestiary_dac.tiny import codec
from bestiary_dia.tiny import DIA

Make = Callable[[dict[str, Any]], Any]
TEXT = "[S1] Hello there. [S2] Yes?"


def voice(samples: int = 700) -> torch.Tensor:
    """A sound [1, 1, N] of a whole number of frames of 64 samples, and a bit."""
    return torch.rand(1, 1, samples, generator=torch.Generator().manual_seed(3)) - 0.5


@pytest.fixture(scope="module")
def pipe(pair: Make) -> SpeechPipeline:
    return pair(DIA[0]).load()


@pytest.mark.parametrize("config", DIA, ids=["first", "second"])
@pytest.mark.parametrize(("guidance", "top_k"), [(3.0, 10), (3.0, None), (1.0, None)])
@pytest.mark.parametrize("spoken", [False, True], ids=["text", "voice"])
def test_codes_and_sounds_are_those_of_transformers(
    pair: Make, config: dict[str, Any], guidance: float, top_k: int | None, spoken: bool
) -> None:
    both = pair(config)
    sound = voice() if spoken else None
    due = both.codes(TEXT, 64, guidance, top_k, None if sound is None else torch.nn.functional.pad(sound, (0, 4)))
    with both.load() as ours:
        made = ours(
            TEXT,
            max_tokens=64,
            temperature=0,
            guidance=guidance,
            cfg_filter_top_k=top_k or 0,
            audio_prompt=None if sound is None else Waveform(sound[0], 8000),
            progress=False,
        )
    assert made.codes is not None and torch.equal(made.codes, due)
    assert made.codes.shape[1] == 64 or made.finished
    with torch.no_grad():
        samples = both.dac.decode(audio_codes=due[None]).audio_values
    assert made.samples.shape[1] == samples.shape[-1] and made.rate == 8000
    assert float((made.samples - samples.flatten()).abs().max()) < 1e-5 * max(1.0, float(samples.abs().max()))


@pytest.mark.parametrize("config", DIA, ids=["first", "second"])
def test_native_code_writes_the_same(pair: Make, config: dict[str, Any]) -> None:
    """Recorded steps that look at texts of several lengths, which drop out one by one."""
    need_native_kernels()
    both = pair(config)
    due = both.codes(TEXT, 64, 3.0, 10, None)
    texts = [TEXT, "[S1] No.", "[S2] Something that is a good deal longer than the others. [S1] Is it not?"]
    options: dict[str, Any] = {"guidance": 3.0, "cfg_filter_top_k": 10, "progress": False}
    with both.load(kernels="native") as ours:
        assert torch.equal(ours(TEXT, max_tokens=64, temperature=0, **options).codes, due)
        together = ours(texts, max_tokens=300, seed=[3, 9, 4], **options)
        assert len({speech.codes.shape[1] for speech in together}) > 1
        for text, seed, made in zip(texts, (3, 9, 4), together, strict=True):
            assert torch.equal(ours(text, max_tokens=300, seed=seed, **options).codes, made.codes)


def test_what_the_authors_recommend(pair: Make, tmp_path: Path) -> None:
    both = pair(DIA[0])
    shutil.copytree(both.folder, tmp_path / "own")
    values = {"do_sample": True, "temperature": 1.8, "top_p": 0.9, "top_k": 50, "guidance_scale": 2.0}
    (tmp_path / "own" / "generation_config.json").write_text(json.dumps(values))
    with both.load(tmp_path / "own") as ours:
        terms = ours.terms
    assert (terms.temperature, terms.top_p, terms.cfg_filter_top_k, terms.guidance) == (1.8, 0.9, 50, 2.0)
    (tmp_path / "own" / "generation_config.json").write_text(json.dumps({**values, "top_p": "x" * 10_000}))
    with pytest.raises(ConfigError, match="top_p") as raised:
        both.load(tmp_path / "own")
    assert len(str(raised.value)) < 1000


def test_some_answer_ends_by_itself(pair: Make) -> None:
    """So that what is compared above has an end in it."""
    due = pair(DIA[0]).codes(TEXT, 64, 1.0, None, None)
    assert due.shape[1] < 64


@pytest.mark.parametrize("chunk", [0.02, 0.1, 5.0])
@pytest.mark.parametrize("speed", [1.0, 1.5])
def test_pieces_together_are_the_whole(pipe: SpeechPipeline, chunk: float, speed: float) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "min_tokens": 50, "seed": 5, "speed": speed}
    whole = pipe(TEXT, progress=False, **options)
    pieces = list(pipe.stream(TEXT, chunk=chunk, **options))
    assert len(pieces) > 1 or chunk > 1
    joined = torch.cat([piece.samples for piece in pieces], 1)
    assert joined.shape == whole.samples.shape
    assert float((joined - whole.samples).abs().max()) < 1e-6
    assert whole.codes is not None
    assert whole.samples.shape[1] == round(whole.codes.shape[1] * 64 / speed)


def test_the_first_piece_does_not_wait_for_the_last(pipe: SpeechPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    import bestiary_dia.speaker as speaker

    steps = []
    own = speaker._step
    monkeypatch.setattr(speaker, "_step", lambda *given: (steps.append(1), own(*given)))
    stream = pipe.stream(TEXT, chunk=0.08, max_tokens=200, min_tokens=200, seed=1)
    next(stream)
    assert len(steps) < 60


def test_leaving_a_stream_leaves_the_pipeline_free(pipe: SpeechPipeline) -> None:
    for _ in pipe.stream(TEXT, chunk=0.05, max_tokens=100, min_tokens=100, seed=1):
        break
    assert pipe(TEXT, max_tokens=3, seed=1, progress=False).duration > 0


def test_texts_side_by_side_are_those_alone(pipe: SpeechPipeline) -> None:
    texts = [TEXT, "[S1] No.", "[S2] Something that is a good deal longer than the others, is it not? [S1] It is."]
    voices = [None, Waveform(voice()[0], 8000), Waveform(voice(300)[0], 8000)]
    options: dict[str, Any] = {"max_tokens": 40, "progress": False}
    together = pipe(texts, seed=[3, 9, 4], audio_prompt=voices, **options)
    for text, seed, sound, made in zip(texts, (3, 9, 4), voices, together, strict=True):
        alone = pipe(text, seed=seed, audio_prompt=sound, **options)
        assert alone.seed == made.seed == seed and alone.finished == made.finished
        assert alone.codes is not None and made.codes is not None and torch.equal(alone.codes, made.codes)
        assert torch.equal(alone.samples, made.samples)


def test_one_seed_is_that_of_the_first_text(pipe: SpeechPipeline) -> None:
    made = pipe([TEXT, TEXT], seed=8, max_tokens=20, min_tokens=20, progress=False)
    assert [each.seed for each in made] == [8, 9]
    assert not torch.equal(made[0].codes, made[1].codes)
    assert torch.equal(pipe(TEXT, seed=9, max_tokens=20, min_tokens=20, progress=False).codes, made[1].codes)


def test_without_a_seed_the_one_that_was_taken_is_told(pipe: SpeechPipeline) -> None:
    made, other = (pipe(TEXT, max_tokens=12, progress=False) for _ in range(2))
    assert made.seed != other.seed
    assert torch.equal(pipe(TEXT, max_tokens=12, seed=made.seed, progress=False).samples, made.samples)


def test_draws_are_as_often_as_they_are_probable(pair: Make) -> None:
    """The first code of the first codebook, over 300 seeds, against the probabilities that transformers draws by."""
    from transformers.generation.logits_process import (
        DiaClassifierFreeGuidanceLogitsProcessor,
        DiaEOSChannelFilterLogitsProcessor,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    both = pair(DIA[1])
    tokens = both.tokens(TEXT)
    asked = torch.cat((tokens, torch.zeros_like(tokens)))
    with torch.no_grad():
        scores = both.model(asked, attention_mask=torch.ones_like(asked), decoder_input_ids=torch.full((2, 1, 3), 66))
    logits = scores.logits[:, -1].view(2, 3, -1).flatten(0, 1)
    rows = torch.zeros(3, 1, dtype=torch.long)
    for process in (
        DiaClassifierFreeGuidanceLogitsProcessor(2.0, 12),
        TemperatureLogitsWarper(1.4),
        DiaEOSChannelFilterLogitsProcessor(3, 64),
        TopPLogitsWarper(0.9),
    ):
        logits = process(rows, logits)
    due = logits[0].softmax(-1)
    options: dict[str, Any] = {"guidance": 2.0, "cfg_filter_top_k": 12, "temperature": 1.4, "top_p": 0.9}
    counts, most = torch.zeros(68), 300
    with both.load() as ours:
        made = [
            speech
            for start in range(0, most, 100)
            for speech in ours([TEXT] * 100, seed=start, max_tokens=1, progress=False, **options)
        ]
    for speech in made:
        counts[int(speech.codes[0, 0])] += 1
    assert bool((counts[due == 0] == 0).all())
    found = due > 0
    assert 2 <= int(found.sum()) <= 12
    # Pearson's statistic stays within six standard deviations of its mean.
    chi = float(((counts - most * due)[found].square() / (most * due)[found]).sum())
    freedom = int(found.sum()) - 1
    assert chi < freedom + 6 * math.sqrt(2 * freedom)


def test_length(pipe: SpeechPipeline) -> None:
    made = pipe(TEXT, max_tokens=33, min_tokens=33, seed=2, progress=False)
    assert made.codes.shape == (9, 33) and not made.finished
    assert made.duration == pytest.approx(33 / pipe.terms.frame_rate, rel=1e-3)


def test_a_text_without_tags_is_said_by_the_first_speaker(pipe: SpeechPipeline) -> None:
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "progress": False}
    assert torch.equal(pipe("Hello.", **options).codes, pipe("[S1] Hello.", **options).codes)
    assert not torch.equal(pipe("[S2] Hello.", **options).codes, pipe("[S1] Hello.", **options).codes)


def test_what_is_said_in_a_voice_stands_before_the_text(pipe: SpeechPipeline) -> None:
    sound = Waveform(voice()[0], 8000)
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "progress": False, "audio_prompt": sound}
    told = pipe("[S1] Two.", audio_prompt_text="[S1] One.", **options)
    assert torch.equal(told.codes, pipe("[S1] One. [S1] Two.", **options).codes)


def test_progress(pipe: SpeechPipeline) -> None:
    events: list[Any] = []
    pipe(TEXT, max_tokens=20, min_tokens=20, seed=1, progress=events.append)
    assert {event.stage for event in events} == {"speak"} and events[-1].done == events[-1].total
    assert [event.done for event in events] == sorted(event.done for event in events)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "opus", "mp3"])
def test_saved(pipe: SpeechPipeline, tmp_path: Path, ending: str) -> None:
    from bestiary.audio.opening import open_audio

    pytest.importorskip("soundfile")
    made = pipe(TEXT, max_tokens=60, min_tokens=60, seed=1, progress=False)
    made.save(tmp_path / f"out.{ending}")
    found = open_audio(tmp_path / f"out.{ending}")
    assert found.duration == pytest.approx(made.duration, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kernels", ["off", "native"])
def test_q8_0_keeps_the_codes(pair: Make, tmp_path: Path, kernels: str, seed: int) -> None:
    """Of the codes that each would write after the same ones; weights are random as transformers makes them."""
    from transformers import AutoConfig, DiaForConditionalGeneration

    if kernels == "native":
        need_native_kernels()
    pytest.importorskip("bestiary_quant")
    wide = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    encoder, decoder = ({**DIA[0][f"{side}_config"], **wide} for side in ("encoder", "decoder"))
    values = {**DIA[0], "encoder_config": encoder}
    values["decoder_config"] = {**decoder, "cross_head_dim": 32, "cross_hidden_size": 128}
    torch.manual_seed(seed)
    made = AutoConfig.for_model(**{key: value for key, value in values.items() if key != "architectures"})
    DiaForConditionalGeneration(made).float().save_pretrained(tmp_path)
    both = pair(DIA[0])
    rows = torch.randint(0, 64, (400, 9), generator=torch.Generator().manual_seed(1))
    codes = []
    with both.load(tmp_path, kernels=kernels) as plain, both.load(tmp_path, kernels=kernels, quant="q8_0") as packed:
        assert packed.packing and packed.nbytes < 0.5 * plain.nbytes
        for each in (plain, packed):
            with each._parts.use("model") as model:
                tokens = both.tokens(TEXT)
                sources = Sources(model, [tokens.shape[1]])
                sources.fill(0, model.listen(tokens)[0])
                states = Lanes(model, [400], sources).run([0], [rows], every=True)
                codes.append(model.head(states).argmax(-1))
    assert float((codes[0] == codes[1]).float().mean()) > 0.95


# What cannot be


def test_a_codec_is_needed_and_never_fetched_unasked(pair: Make) -> None:
    with pytest.raises(ModelNotFound, match=r"(?s)nothing is fetched from elsewhere unasked.*descript/dac_44khz"):
        pair(DIA[0]).load(dac_model_id=None)


def test_a_codec_beside_the_model_is_found(pair: Make, tmp_path: Path) -> None:
    both = pair(DIA[0])
    shutil.copytree(both.folder, tmp_path / "whole")
    shutil.copytree(both.dac_folder, tmp_path / "whole" / "audio_tokenizer")
    with both.load(tmp_path / "whole", dac_model_id=None) as ours:
        assert ours(TEXT, max_tokens=2, progress=False).duration > 0


@pytest.mark.parametrize("changes", [{"n_codebooks": 3}, {"codebook_size": 32}])
def test_a_codec_of_another_model(pair: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Told by the small files, before any weight is read: these cannot be."""
    values = {"n_codebooks": 9, "codebook_size": 64, "codebook_dim": 8, "sampling_rate": 8000, **changes}
    make_reference(codec(2, 4, 8, **values), tmp_path / "dac")
    (tmp_path / "dac" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="The codec has"):
        pair(DIA[0]).load(dac_model_id=str(tmp_path / "dac"))


@pytest.mark.parametrize(
    ("text", "match"), [("a" * 100_000, "100000 characters"), ("[S1]" + "a" * 2999, "3000 bytes; the model reads 256")]
)
def test_a_long_text_is_refused_at_once(pipe: SpeechPipeline, text: str, match: str) -> None:
    start = time.monotonic()
    for speak in (pipe, pipe.stream):
        with pytest.raises(RequestError, match=match):
            speak(text)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 100_000}, "max_tokens is 100000; the model has room for 496 frames"),
        ({"max_tokens": 5, "min_tokens": 9}, "min_tokens is 9"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"speed": 0.1}, "speed is 0.1"),
        ({"speed": None}, "speed is None"),
        ({"guidance": -1}, "guidance is -1"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": [1, 2]}, "seed is"),
        ({"cfg_filter_top_k": -3}, "cfg_filter_top_k is -3"),
        ({"tempreature": 1}, "temperature"),
        ({"audio_prompt_text": "x"}, "no audio_prompt"),
        ({"audio_prompt": ["a.wav"]}, "1 members for 1 texts"),
        ({"audio_prompt": Waveform(torch.zeros(1, 0), 8000)}, "has no samples"),
        ({"audio_prompt": Waveform(torch.zeros(1, 8000 * 50), 8000)}, "The audio_prompt has 6250 frames"),
        ({"audio_prompt": Waveform(torch.zeros(1, 8000 * 61), 8000)}, "lasts 61 seconds"),
        ({"audio_prompt": "nothing.wav"}, "nothing.wav"),
    ],
)
def test_requests_that_cannot_be(pipe: SpeechPipeline, options: dict[str, Any], match: str) -> None:
    with pytest.raises(BestiaryError, match=match):
        pipe(TEXT, progress=False, **options)


@pytest.mark.parametrize("text", ["", "  ", [], [""], 5, None, ["a", 5], ["a"] * 300])
def test_texts_that_cannot_be(pipe: SpeechPipeline, text: Any) -> None:
    with pytest.raises(RequestError):
        pipe(text, progress=False)


def test_load_options_that_cannot_be(pair: Make) -> None:
    both = pair(DIA[0])
    found = identify_model(str(both.folder), SourceOptions(), default_registry())
    with bestiary.load(found, dac_model_id=str(both.dac_folder), progress=False) as pipe:
        assert pipe(TEXT, max_tokens=2, progress=False).duration > 0
    with pytest.raises(OptionError, match="found already"):
        bestiary.load(found, dac_model_id=str(both.dac_folder), revision="main")
    with pytest.raises(OptionError, match="Both dac_model_id and parts"):
        both.load(parts={"audio_tokenizer": str(both.dac_folder)})
    with pytest.raises(OptionError, match="dac_model_id is 5"):
        both.load(dac_model_id=5)
    with pytest.raises(OptionError, match="audio_limits is 5"):
        both.load(audio_limits=5)


def test_closed(pair: Make) -> None:
    ours = pair(DIA[0]).load()
    stream = ours.stream(TEXT, chunk=0.02, max_tokens=100, min_tokens=100)
    next(stream)
    ours.close()
    with pytest.raises(RequestError, match="closed"):
        ours(TEXT)
    with pytest.raises(RequestError, match="closed"):
        list(stream)
