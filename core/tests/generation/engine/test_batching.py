"""Many requests in one engine: each gets what it gets alone, and what it leaves behind is nothing."""

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bestiary.config import normalise
from bestiary.errors import RequestError
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.sampling import Sampling
from bestiary.nn import CausalLM
from bestiary.testing.numbers import Numbers
from bestiary_gemma.model import gemma2, gemma3
from bestiary_llama.model import build as llama
from bestiary_qwen.model import build as qwen

CONTEXT = 128
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "query_pre_attn_scalar": 16,
}
MODELS: dict[str, tuple[Callable[[Any], CausalLM], dict[str, Any]]] = {
    "llama": (llama, {}),
    "mistral": (llama, {"sliding_window": 9}),
    "qwen3-moe": (
        qwen,
        {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "gemma2": (gemma2, {"sliding_window": 7, "sliding_window_pattern": 2, "attn_logit_softcapping": 5.0}),
    "gemma3": (gemma3, {"sliding_window": 12, "sliding_window_pattern": 3, "rope_local_base_freq": 1e3}),
}


def network(name: str) -> CausalLM:
    build, changes = MODELS[name]
    model = build(normalise({**SIZES, **changes}, "here")).eval()
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) / 4)
    return model


def engine_of(model: CausalLM, cache_tokens: int = 2048, limits: Limits | None = None) -> Engine:
    return Engine(
        model,
        Numbers(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        end_tokens=frozenset(),
        context_length=CONTEXT,
        cache_tokens=cache_tokens,
        limits=limits or Limits(tokens=32, sequences=8),
    )


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> CausalLM:
    return network(request.param)


@pytest.fixture
def engine(model: CausalLM) -> Iterator[Engine]:
    made = engine_of(model)
    yield made
    made.close()


def asked(count: int, seed: int = 0) -> list[tuple[list[int], Sampling]]:
    """Prompts of many lengths, some with a common beginning, greedy and sampled."""
    dice = random.Random(seed)
    shared = [dice.randrange(97) for _ in range(40)]
    made = []
    for index in range(count):
        prompt = [*shared[: dice.choice([0, 0, 20, 40])], *(dice.randrange(97) for _ in range(dice.randint(1, 30)))]
        options = {"temperature": 1.0, "seed": index} if index % 2 else {"temperature": 0.0}
        made.append((prompt, Sampling(max_tokens=dice.randint(1, 20), **options)))
    return made


def alone(model: CausalLM, prompt: list[int], sampling: Sampling) -> tuple[int, ...]:
    """The same request in an engine of its own."""
    single = engine_of(model)
    try:
        return collect(single.stream(prompt, sampling)).tokens
    finally:
        single.close()


def idle(engine: Engine) -> bool:
    """Whether, within a while, nothing runs and every block is back."""
    for _ in range(500):
        found = engine.statistics()
        if not (found.waiting or found.running or found.blocks_used):
            return True
        time.sleep(0.01)
    return False


def test_each_request_gets_what_it_gets_alone(model: CausalLM, engine: Engine) -> None:
    requests = asked(12)
    streams = [engine.stream(prompt, sampling) for prompt, sampling in requests]
    answers = [collect(stream).tokens for stream in streams]
    assert answers == [alone(model, prompt, sampling) for prompt, sampling in requests]
    assert idle(engine)


def test_a_cache_that_is_too_small_for_all_changes_nothing_but_time(model: CausalLM) -> None:
    requests = [(prompt[:30], sampling) for prompt, sampling in asked(8, seed=1)]
    small = engine_of(model, cache_tokens=CONTEXT, limits=Limits(tokens=16, sequences=8))
    try:
        streams = [small.stream(prompt, sampling) for prompt, sampling in requests]
        answers = [collect(stream).tokens for stream in streams]
        assert answers == [alone(model, prompt, sampling) for prompt, sampling in requests]
        assert idle(small)
    finally:
        small.close()


def test_aborts_free_their_blocks_and_disturb_nobody(model: CausalLM, engine: Engine) -> None:
    dice = random.Random(2)
    kept = asked(6, seed=2)
    streams = [engine.stream(prompt, sampling) for prompt, sampling in kept]
    for prompt, _ in asked(60, seed=3):
        stream = engine.stream(prompt, Sampling(max_tokens=60, temperature=0.0))
        for _ in range(dice.choice([0, 0, 1, 2, 5])):
            next(stream)
        stream.close()
        if dice.random() < 0.3:
            stream.close()
    answers = [collect(stream).tokens for stream in streams]
    assert answers == [alone(model, prompt, sampling) for prompt, sampling in kept]
    assert idle(engine)


def test_a_forgotten_stream_is_an_abort(engine: Engine) -> None:
    stream = engine.stream([1, 2, 3], Sampling(max_tokens=100, temperature=0.0))
    next(stream)
    del stream
    gc.collect()
    assert idle(engine)
    assert engine.statistics().totals.generated_tokens < 100


def test_threads_get_what_they_get_alone(model: CausalLM, engine: Engine) -> None:
    requests = asked(10, seed=4)
    answers: dict[int, tuple[int, ...]] = {}

    def ask(index: int) -> None:
        answers[index] = collect(engine.stream(*requests[index])).tokens

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[index] for index in range(len(requests))] == [alone(model, *request) for request in requests]


def test_a_prefix_that_is_in_the_cache_is_not_computed_again(model: CausalLM, engine: Engine) -> None:
    prompt = [index % 90 for index in range(70)]
    first = collect(engine.stream(prompt, Sampling(max_tokens=4, temperature=0.0)))
    assert idle(engine) and engine.statistics().totals.reused_tokens == 0
    again = collect(engine.stream(prompt, Sampling(max_tokens=4, temperature=0.0)))
    assert again.tokens == first.tokens
    assert idle(engine) and engine.statistics().totals.reused_tokens == 64
    other = collect(engine.stream([*prompt[:48], 5, 6], Sampling(max_tokens=4, temperature=0.0)))
    assert other.tokens == alone(model, [*prompt[:48], 5, 6], Sampling(max_tokens=4, temperature=0.0))
    assert idle(engine) and engine.statistics().totals.reused_tokens == 64 + 48


def test_closing_fails_what_runs_and_refuses_what_comes() -> None:
    engine = engine_of(network("llama"))
    stream = engine.stream([1, 2, 3], Sampling(max_tokens=120))
    next(stream)
    engine.close()
    with pytest.raises(RequestError, match="closed"):
        list(stream)
    with pytest.raises(RequestError, match="closed"):
        engine.stream([1], Sampling())


def test_an_engine_that_nobody_holds_ends_its_thread() -> None:
    def engines() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "bestiary-engine"]

    before = len(engines())
    engine = engine_of(network("llama"))
    collect(engine.stream([1, 2, 3], Sampling(max_tokens=2)))
    assert len(engines()) == before + 1
    del engine
    gc.collect()
    for _ in range(300):
        if len(engines()) == before:
            return
        time.sleep(0.01)
    raise AssertionError("the thread goes on")


def test_a_prompt_beyond_the_cache_is_refused_at_once() -> None:
    engine = engine_of(network("llama"), cache_tokens=64)
    with pytest.raises(RequestError, match="cache holds 64"):
        engine.stream([1] * 64, Sampling())
    assert collect(engine.stream([1] * 60, Sampling(temperature=0.0))).finish_reason == "length"
    engine.close()
