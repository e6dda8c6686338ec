"""Generation, with a tiny Llama whose weights are random, or chosen so that it says a known text."""

import math
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from bestiary.config import normalise
from bestiary.errors import GenerationError, RequestError
from bestiary.generation.completion import Chunk, Completion, collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.sampling import Sampling
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import CausalLM
from bestiary_llama.model import build

END = 256
CONTEXT = 48


def llama(vocab_size: int = END + 1, seed: int = 0) -> CausalLM:
    config = {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
    }
    model = build(normalise(config, "here")).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) / 4)
    return model


def made_of(model: CausalLM, tokenizer: Tokenizer, end_tokens: Sequence[int] = (END,)) -> Engine:
    return Engine(
        model,
        tokenizer,
        device=torch.device("cpu"),
        dtype=model.lm_head.weight.dtype,
        end_tokens=frozenset(end_tokens),
        context_length=CONTEXT,
        cache_tokens=8 * CONTEXT,
    )


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Engine:
    return made_of(llama(), tokenizer)


@pytest.fixture
def saying(tokenizer: Tokenizer) -> Callable[[str], Engine]:
    """An engine whose model answers the prompt "?" with a text of which no byte comes twice, and then ends."""

    def make(text: str) -> Engine:
        model = llama()
        script = [*tokenizer.encode("?" + text), END]
        assert len(set(script)) == len(script)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.model.norm.weight.fill_(1)
            model.lm_head.weight.zero_()
            for token, following in pairwise(script):
                model.lm_head.weight[following] = model.model.embed_tokens.weight[token]
        return made_of(model, tokenizer)

    return make


def ask(engine: Engine, prompt: str | Sequence[int] = "?", **options: Any) -> Completion:
    ids = engine.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    return collect(engine.stream(ids, Sampling(**options)))


def texts(chunks: Sequence[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


# Where an answer ends


def test_an_answer_ends_at_the_end_token_which_has_no_text(saying: Callable[[str], Engine]) -> None:
    answer = ask(saying("Hi, you."))
    assert answer.text == str(answer) == "Hi, you."
    assert answer.finish_reason == "stop" and answer.tokens[-1] == END
    assert answer.usage.prompt_tokens == 1 and answer.usage.completion_tokens == len(answer.tokens) == 9
    assert answer.usage.total_tokens == 10
    assert 0 < answer.usage.seconds_to_first_token <= answer.usage.seconds


def test_an_answer_ends_at_max_tokens(saying: Callable[[str], Engine]) -> None:
    answer = ask(saying("Hi, you."), max_tokens=4)
    assert (answer.text, answer.finish_reason, len(answer.tokens)) == ("Hi, ", "length", 4)


def test_the_end_token_as_the_last_allowed_one_is_a_stop(saying: Callable[[str], Engine]) -> None:
    assert ask(saying("abc"), max_tokens=4).finish_reason == "stop"
    assert ask(saying("abc"), max_tokens=3).finish_reason == "length"


def test_an_answer_ends_with_the_context(engine: Engine) -> None:
    answer = ask(engine, [5] * 40, ignore_eos=True)
    assert answer.finish_reason == "length" and len(answer.tokens) == CONTEXT - 40
    assert len(ask(engine, [5] * 40, ignore_eos=True, max_tokens=500).tokens) == CONTEXT - 40


def test_stop_tokens_end_an_answer_besides_the_models_own(
    saying: Callable[[str], Engine], tokenizer: Tokenizer
) -> None:
    (letter,) = tokenizer.encode("c")
    answer = ask(saying("abcd"), stop_tokens=[letter])
    assert (answer.text, answer.finish_reason, answer.tokens[-1]) == ("ab", "stop", letter)
    assert ask(saying("abcd"), stop_tokens=[letter], ignore_eos=True).text == "ab"
    assert ask(saying("abcd"), stop_tokens=[tokenizer.encode("z")[0]]).text == "abcd"


def test_ignored_end_tokens_do_not_end_an_answer(saying: Callable[[str], Engine]) -> None:
    answer = ask(saying("abc"), ignore_eos=True, max_tokens=10)
    assert answer.text.startswith("abc") and answer.tokens[3] == END
    assert answer.finish_reason == "length" and len(answer.tokens) == 10


def test_all_the_end_tokens_of_a_model_end_an_answer(saying: Callable[[str], Engine], tokenizer: Tokenizer) -> None:
    model = saying("abcd").model
    assert ask(made_of(model, tokenizer, [END, tokenizer.encode("c")[0]])).text == "ab"


@pytest.mark.parametrize(
    "stop, text, reason",
    [
        ("cd", "ab", "stop"),
        ("bcdef", "a", "stop"),
        ("a", "", "stop"),
        ("f", "abcde", "stop"),
        (["ef", "cd"], "ab", "stop"),
        (["bcx", "cd"], "ab", "stop"),
        ("fg", "abcdef", "stop"),  # begun and never finished: the end token ends it
        ("é", "abcdef", "stop"),
    ],
)
def test_stop_texts_are_found_across_tokens(
    saying: Callable[[str], Engine], stop: str | list[str], text: str, reason: str
) -> None:
    answer = ask(saying("abcdef"), stop=stop)
    assert (answer.text, answer.finish_reason) == (text, reason)


def test_no_token_is_made_after_a_stop_text(saying: Callable[[str], Engine]) -> None:
    assert len(ask(saying("abcdef"), stop="cd").tokens) == 4


def test_a_begun_stop_text_is_given_out_at_the_end(saying: Callable[[str], Engine]) -> None:
    answer = ask(saying("abcdef"), stop="cdx", max_tokens=4)
    assert (answer.text, answer.finish_reason) == ("abcd", "length")


def test_a_stop_text_inside_a_character_of_several_tokens(saying: Callable[[str], Engine]) -> None:
    answer = ask(saying("ab😀cd"), stop="😀c")
    assert (answer.text, answer.finish_reason) == ("ab", "stop")


# Streams


def test_characters_of_several_tokens_come_whole(saying: Callable[[str], Engine]) -> None:
    engine = saying("aé😀z")
    chunks = list(engine.stream(engine.tokenizer.encode("?"), Sampling()))
    assert texts(chunks) == ["a", "", "é", "", "", "", "😀", "z", ""]
    assert [len(chunk.tokens) for chunk in chunks] == [1] * 9


@pytest.mark.parametrize(
    "count, text", [(1, "a"), (2, "a\ufffd"), (3, "aé"), (4, "aé\ufffd"), (6, "aé\ufffd"), (7, "aé😀")]
)
def test_an_end_inside_a_character_is_one_replacement(saying: Callable[[str], Engine], count: int, text: str) -> None:
    assert ask(saying("aé😀z"), max_tokens=count).text == text


@pytest.mark.parametrize("seed", range(6))
def test_chunks_join_to_the_whole_answer(engine: Engine, seed: int) -> None:
    sampling = Sampling(temperature=1.0, seed=seed, stop=("q", "\ufffd\ufffd\ufffd"))
    chunks = list(engine.stream([1, 2, 3], sampling))
    whole = collect(iter(chunks))
    again = ask(engine, [1, 2, 3], temperature=1.0, seed=seed, stop=("q", "\ufffd\ufffd\ufffd"))
    assert "".join(texts(chunks)) == whole.text == again.text
    assert [token for chunk in chunks for token in chunk.tokens] == list(whole.tokens) == list(again.tokens)
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason in ("stop", "length") and chunks[-1].usage is not None


def test_a_stream_that_is_closed_early_leaves_nothing_behind(engine: Engine) -> None:
    sampling = Sampling(temperature=1.0, seed=4, ignore_eos=True)
    expected = collect(engine.stream([1, 2, 3], sampling))
    for count in (0, 1, 5):
        stream = engine.stream([1, 2, 3], sampling)
        for _ in range(count):
            next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []
    assert collect(engine.stream([1, 2, 3], sampling)).tokens == expected.tokens


def test_two_streams_in_turn_give_what_each_gives_alone(engine: Engine) -> None:
    def stream(seed: int) -> Any:
        return engine.stream([seed], Sampling(temperature=1.0, seed=seed, ignore_eos=True, max_tokens=20))

    pairs = list(zip(stream(1), stream(2), strict=True))
    assert [chunk.tokens for chunk, _ in pairs] == [chunk.tokens for chunk in stream(1)]
    assert [chunk.tokens for _, chunk in pairs] == [chunk.tokens for chunk in stream(2)]


def test_two_threads_give_what_each_gives_alone(engine: Engine) -> None:
    def answer(seed: int) -> tuple[int, ...]:
        return ask(engine, [seed, 7], temperature=1.0, seed=seed, ignore_eos=True, max_tokens=30).tokens

    expected, found = {seed: answer(seed) for seed in range(4)}, {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: answer(seed)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_an_incomplete_stream_is_no_answer(engine: Engine) -> None:
    for count in (0, 3):
        chunks = [chunk for _, chunk in zip(range(count), engine.stream([1], Sampling()), strict=False)]
        with pytest.raises(GenerationError):
            collect(iter(chunks))


# Randomness


def test_a_seed_decides_the_answer(engine: Engine) -> None:
    def answer(seed: int | None) -> tuple[int, ...]:
        return ask(engine, [1], temperature=1.0, seed=seed, ignore_eos=True, max_tokens=20).tokens

    assert answer(3) == answer(3) != answer(4)
    assert answer(None) != answer(None)
    assert answer(-1) == answer(-1)


def test_greedy_answers_take_the_largest_logit_of_the_whole_sequence(engine: Engine) -> None:
    prompt = [3, 1, 4, 1, 5]
    answer = ask(engine, prompt, ignore_eos=True, max_tokens=20)
    logits = engine.score([*prompt, *answer.tokens])
    assert list(answer.tokens) == logits[4:-1].argmax(-1).tolist()


# Log-probabilities


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_logprobs_are_those_of_the_model_before_temperature_and_filters(engine: Engine, temperature: float) -> None:
    prompt = [3, 1, 4, 1, 5]
    options = {"temperature": temperature, "top_k": 5, "seed": 1, "ignore_eos": True}
    answer = ask(engine, prompt, logprobs=4, max_tokens=12, **options)
    expected = engine.score([*prompt, *answer.tokens]).log_softmax(-1)[4:-1]
    assert answer.logprobs is not None and len(answer.logprobs) == 12
    for made, token, row in zip(answer.logprobs, answer.tokens, expected, strict=True):
        assert made.token == token and made.logprob == pytest.approx(float(row[token]), abs=1e-5)
        assert made.text == engine.tokenizer.token_bytes(token).decode(errors="replace")
        best = row.topk(4)
        assert [other.token for other in made.top] == best.indices.tolist()
        assert [other.logprob for other in made.top] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert sum(math.exp(other.logprob) for other in made.top) <= 1.0


def test_logprobs_of_the_token_alone_or_not_at_all(engine: Engine) -> None:
    alone = ask(engine, [1], logprobs=0, max_tokens=3, ignore_eos=True).logprobs
    assert alone is not None and [made.top for made in alone] == [(), (), ()]
    assert ask(engine, [1], max_tokens=3, ignore_eos=True).logprobs is None


def test_rows_without_a_token_have_no_text(tokenizer: Tokenizer) -> None:
    """Models pad their vocabulary; a padded row may be drawn or be among the most probable."""
    wide = made_of(llama(vocab_size=400, seed=1), tokenizer)
    answer = ask(wide, [1], temperature=1.0, seed=0, logprobs=20, ignore_eos=True, max_tokens=40)
    assert answer.logprobs is not None
    padded = [made for made in answer.logprobs if made.token > END]
    assert padded and all(made.text == "" for made in padded)
    assert answer.text == tokenizer.decode([token for token in answer.tokens if token <= END])


# What cannot be served


@pytest.mark.parametrize(
    "prompt",
    [[], [END + 1], [-1], [0, 1, 10**9], ["a"], [1.0], [None], [2**70]],
    ids=str,
)
def test_a_prompt_that_is_not_of_the_vocabulary_is_refused_before_the_first_step(
    engine: Engine, prompt: list[Any]
) -> None:
    with pytest.raises(RequestError):
        engine.stream(prompt, Sampling())
    with pytest.raises(RequestError):
        engine.score(prompt)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(engine: Engine) -> None:
    for length in (CONTEXT, CONTEXT + 1, 100 * CONTEXT):
        with pytest.raises(RequestError, match=rf"{length} tokens.*{CONTEXT}"):
            engine.stream([1] * length, Sampling())
    assert ask(engine, [1] * (CONTEXT - 1)).usage.completion_tokens == 1
    assert engine.score([1] * CONTEXT).shape == (CONTEXT, END + 1)
    with pytest.raises(RequestError):
        engine.score([1] * (CONTEXT + 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"])
def test_weights_that_are_not_numbers_are_an_error_and_not_token_zero(
    tokenizer: Tokenizer, name: str, value: float
) -> None:
    model = llama()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[5] = value
    for sampling in (Sampling(), Sampling(temperature=1.0)):
        stream = made_of(model, tokenizer).stream([1, 2, 3], sampling)
        with pytest.raises(GenerationError, match="not finite") as found:
            next(stream)
        assert found.value.where == "position 2"


def test_an_error_of_one_stream_leaves_the_others(tokenizer: Tokenizer) -> None:
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[9] = math.nan
    engine = made_of(model, tokenizer)
    good = engine.stream([1], Sampling(stop_tokens=(9,), max_tokens=5, ignore_eos=True))
    next(good)
    with pytest.raises(GenerationError):
        ask(engine, [9])
    assert sum(1 for _ in good) >= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_logits(tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    exact, half = made_of(llama(), tokenizer), made_of(llama().to(dtype), tokenizer)
    logits = half.score([1, 2, 3])
    assert logits.dtype == torch.float32
    expected = exact.score([1, 2, 3])
    assert float((logits - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert len(ask(half, [1], ignore_eos=True, max_tokens=4).tokens) == 4


def test_a_processor_that_fails_ends_its_own_request_alone(engine: Engine) -> None:
    def broken(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        raise ZeroDivisionError("mine")

    other = engine.stream([1, 2], Sampling(max_tokens=8, temperature=0.0))
    with pytest.raises(GenerationError, match="mine"):
        ask(engine, [1, 2, 3], processors=(broken,))
    assert len(collect(other).tokens) == 8


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_request_that_masks_every_token_is_an_error(engine: Engine, value: float) -> None:
    with pytest.raises(GenerationError, match=r"No token is left|not finite"):
        ask(engine, [1, 2, 3], processors=(lambda logits, tokens: logits * 0 + value,))


def test_a_fault_of_the_engine_reaches_everybody_who_waits(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = made_of(llama(), tokenizer)
    stream = engine.stream([1, 2], Sampling(max_tokens=40, temperature=0.0))
    next(stream)
    monkeypatch.setattr(engine._scheduler, "commit", lambda plan: 1 / 0)
    with pytest.raises(GenerationError, match="ZeroDivisionError"):
        list(stream)
    with pytest.raises(RequestError, match="closed"):
        engine.stream([1], Sampling())
