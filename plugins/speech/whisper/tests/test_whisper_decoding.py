"""What is written: rules, greedy and beam search against transformers, and how a window is judged."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bestiary.errors import GenerationError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.reference import Reference
from bestiary_whisper import window
from bestiary_whisper.beam import search
from bestiary_whisper.decoding import Answer, Desk, write
from bestiary_whisper.listener import Listener
from bestiary_whisper.options import Options
from bestiary_whisper.phrases import Phrase, phrases
from bestiary_whisper.rules import Rules
from bestiary_whisper.tiny import WHISPER
from bestiary_whisper.tokens import Tokens
from bestiary_whisper.window import Written, compression_ratio, write_window

PROMPT = [258, 259, 262]
TOKENS = Tokens(
    start=258,
    end=257,
    languages={"en": 259, "de": 260},
    tasks={"translate": 261, "transcribe": 262},
    no_timestamps=266,
    previous=264,
    no_speech=265,
    suppressed=(1, 2, 7),
    suppressed_first=(32, 257),
    latest_first=30,
)


@pytest.fixture(scope="module")
def reference(checkpoint: Callable[..., Reference]) -> Reference:
    return checkpoint(WHISPER[1])


@pytest.fixture(scope="module")
def listener(reference: Reference) -> Listener:
    import json

    registry = default_registry()
    identified = identify_model(str(reference.folder), SourceOptions(), registry)
    model: Any = load_weights(identified, registry, dtype="float32", device="cpu").model
    generation = json.loads((reference.folder / "generation_config.json").read_text())
    made = model.listener(Tokenizer.from_repository(identified.repository), identified.config, generation)
    assert isinstance(made, Listener)
    return made


def desk_of(listener: Listener, mel: torch.Tensor, answers: int = 1) -> Desk:
    """One that has heard a window [1, bands, T]."""
    desk = Desk(listener.model, answers)
    desk.hear(listener.model.listen(listener.model.encode(mel)[0]))
    return desk


def spectrum(seed: int) -> torch.Tensor:
    return torch.randn(1, 128, 100, generator=torch.Generator().manual_seed(seed))


def theirs(reference: Reference, mel: torch.Tensor, prompt: list[int], most: int, **options: Any) -> list[int]:
    """What the generation of any model in transformers writes, without Whisper's own loop around it."""
    from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList
    from transformers.generation.logits_process import (
        SuppressTokensAtBeginLogitsProcessor,
        SuppressTokensLogitsProcessor,
        WhisperTimeStampLogitsProcessor,
    )

    suppressed = options.pop("suppressed", [1, 2, 7])
    config = GenerationConfig(
        max_length=len(prompt) + most, eos_token_id=257, pad_token_id=257, decoder_start_token_id=258, **options
    )
    stamps = GenerationConfig(eos_token_id=257, bos_token_id=257)
    stamps.no_timestamps_token_id, stamps.max_initial_timestamp_index = 266, 30
    processors = [
        SuppressTokensAtBeginLogitsProcessor([32, 257], len(prompt), device="cpu"),
        SuppressTokensLogitsProcessor(suppressed, device="cpu"),
    ]
    if prompt[-1] != 266:
        processors.append(WhisperTimeStampLogitsProcessor(stamps, len(prompt)))
    made = GenerationMixin.generate(
        reference.model,
        mel,
        generation_config=config,
        decoder_input_ids=torch.tensor([prompt]),
        logits_processor=LogitsProcessorList(processors),
    )
    tokens = made[0, len(prompt) :].tolist()
    return tokens[: tokens.index(257)] if 257 in tokens else tokens


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_greedy_over_64_steps(reference: Reference, listener: Listener, seed: int, timestamps: bool) -> None:
    prompt = PROMPT if timestamps else [*PROMPT, 266]
    tokens = replace(TOKENS, suppressed=(1, 2, 7, 257))
    begun = desk_of(listener, spectrum(seed)).begin(prompt, 0)
    (answer,) = write(begun, Rules(tokens, "cpu", timestamps=timestamps), 64)
    wanted = theirs(reference, spectrum(seed), prompt, 64, suppressed=[1, 2, 7, 257])
    assert list(answer.tokens) == wanted
    assert len(wanted) == 64
    assert not answer.ended


@pytest.mark.parametrize(
    ("size", "penalty", "most"), [(2, 1.0, 12), (3, 1.0, 40), (5, 1.0, 50), (5, 0.5, 40), (4, -1.0, 20), (3, 2.0, 30)]
)
@pytest.mark.parametrize("timestamps", [True, False])
@torch.inference_mode()
def test_beam_search(
    reference: Reference, listener: Listener, size: int, penalty: float, most: int, timestamps: bool
) -> None:
    prompt = PROMPT if timestamps else [*PROMPT, 266]
    for seed in range(2):
        begun = desk_of(listener, spectrum(seed), size).begin(prompt, 0)
        answer = search(begun, Rules(TOKENS, "cpu", timestamps=timestamps), most, size, penalty)
        wanted = theirs(reference, spectrum(seed), prompt, most, num_beams=size, length_penalty=penalty)
        assert list(answer.tokens) == wanted


def test_the_grammar_of_timestamps() -> None:
    from transformers import GenerationConfig
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    config = GenerationConfig(eos_token_id=257, bos_token_id=257)
    config.no_timestamps_token_id, config.max_initial_timestamp_index = 266, 30
    processor = WhisperTimeStampLogitsProcessor(config, len(PROMPT))
    rules = Rules(replace(TOKENS, suppressed=(), suppressed_first=()), "cpu", timestamps=True)
    random = torch.Generator().manual_seed(0)
    beginnings = [[], [270], [270, 5], [270, 5, 280], [270, 5, 280, 280], [270, 5, 280, 280, 9], [5], [5, 6], [5, 290]]
    beginnings += [[270, 5, 280, 290], [270, 290], [270, 5, 317], [300, 5, 310, 310, 5, 6, 7, 312]]
    for written in beginnings:
        for scale in (0.1, 1.0, 5.0):
            logits = torch.randn(1, 318, generator=random) * scale
            wanted = processor(torch.tensor([PROMPT + written]), logits.clone())
            torch.testing.assert_close(rules.apply(logits.clone(), [written]), wanted, rtol=0, atol=0)


@torch.inference_mode()
def test_draws_are_repeated_by_their_seed_and_alone_as_together(listener: Listener) -> None:
    desk = desk_of(listener, spectrum(0), 4)
    rules = Rules(TOKENS, "cpu", timestamps=True)

    def drawn(count: int, seed: int) -> list[Answer]:
        return write(desk.begin(PROMPT, 0), rules, 20, temperature=0.8, count=count, seed=seed)

    together = drawn(4, 3)
    assert [answer.tokens for answer in drawn(4, 3)] == [answer.tokens for answer in together]
    assert drawn(1, 3)[0].tokens == together[0].tokens
    assert len({answer.tokens for answer in together}) == 4
    assert drawn(1, 4)[0].tokens != together[0].tokens


@torch.inference_mode()
def test_logits_that_are_not_finite(listener: Listener) -> None:
    desk = Desk(listener.model, 3)
    desk.hear(listener.model.listen(torch.full((50, 64), float("nan"))))
    rules = Rules(TOKENS, "cpu", timestamps=True)
    with pytest.raises(GenerationError, match="not finite"):
        write(desk.begin(PROMPT, 0), rules, 5)
    with pytest.raises(GenerationError, match="not finite"):
        search(desk.begin(PROMPT, 0), rules, 5, 3)


@torch.inference_mode()
def test_fallback(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temperatures that are tried for answers of some probability and some repetition."""
    desk = desk_of(listener, spectrum(0))
    rules, tried = Rules(TOKENS, "cpu", timestamps=True), []

    def written(means: dict[float, float], text: str = "a", **options: Any) -> Written:
        def answered(begun: Any, rules: Any, most: int, temperature: float, options: Any) -> Answer:
            tried.append(temperature)
            return Answer((5,), 2 * means.get(temperature, -5.0), True)

        tried.clear()
        monkeypatch.setattr(window, "_answer", answered)
        asked = Options(no_speech_threshold=options.pop("no_speech_threshold", None), **options)
        return write_window(desk, PROMPT, rules, asked, lambda tokens: text)

    assert written({0.0: -0.5}).temperature == 0
    assert written({0.4: -0.9}).temperature == 0.4
    assert tried == [0.0, 0.2, 0.4]
    assert written({}).temperature == 1.0
    assert written({0.0: -0.5}, "ab" * 200).temperature == 1.0
    assert written({0.0: -0.5}, "ab" * 200, compression_ratio_threshold=None).temperature == 0
    assert written({}, logprob_threshold=None).temperature == 0
    assert written({}, temperature=0.3).temperature == 0.3
    assert written({}, no_speech_threshold=0.0).silent(Options(no_speech_threshold=0.0))
    assert tried == [0.0]
    assert not written({0.0: -0.5}, no_speech_threshold=0.0).silent(Options(no_speech_threshold=0.0))
    assert 0 < written({}).no_speech_prob < 1


def test_compression() -> None:
    assert compression_ratio("ab" * 200) > 2.4
    assert compression_ratio("A phrase that nobody would repeat.") < 1
    assert compression_ratio("") == 0


@pytest.mark.parametrize(
    ("tokens", "found", "step"),
    [
        ((), [(0, 50)], 50),
        ((5, 6), [(0, 50)], 50),
        ((267, 5, 277), [(0, 10)], 50),
        ((267, 5, 277, 277), [(0, 10)], 10),
        ((267, 5, 277, 280, 6, 290), [(0, 10), (13, 23)], 50),
        ((267, 5, 277, 280, 6, 7), [(0, 10)], 10),
        ((267, 5, 277, 277, 6, 290, 290), [(0, 10), (10, 23)], 23),
        ((267, 5), [(0, 50)], 50),
    ],
)
def test_phrases(tokens: tuple[int, ...], found: list[tuple[int, int]], step: int) -> None:
    made, steps = phrases(tokens, 267, 50)
    assert [(phrase.start, phrase.end) for phrase in made] == found
    assert steps == step
    if made and step == 50:
        assert sum((phrase.tokens for phrase in made), ()) == tokens
    assert all(isinstance(phrase, Phrase) for phrase in made)
