"""The engine over keys and values in 8 and 4 bits, against plain attention to what the codes say.

What the codes say is in `test_packed_forms`.  The models compute in float64, so that batches of other shapes, whose
sums run in another order, do not move a number over the border between two codes; in float32 that happens, rarely.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import bestiary
from bestiary.errors import GenerationError, OptionError
from bestiary.generation.cache import FlatLayer, SequenceCache, make_batch
from bestiary.generation.completion import collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.graphs import DecodeGraphs
from bestiary.generation.engine.memory import default_tokens, token_bytes, tokens_in
from bestiary.generation.engine.packed_memory import form_of
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.engine.sequence import Sequence as Running
from bestiary.generation.engine.sequence import Work
from bestiary.generation.sampling import Sampling
from bestiary.generation.speculation.drafter import NGramDrafter
from bestiary.generation.speculation.model import ModelDrafter
from bestiary.nn import AttentionSpec, Batch, RecurrentSpec
from bestiary.pipelines.text_options import TextOptions
from bestiary.testing.settled import settled

Make = Callable[..., Engine]
PACKED = ("fp8", "int8", "int4")


def through(kind: str, x: torch.Tensor) -> torch.Tensor:
    """What is left of x [..., KH, D]."""
    form = form_of(kind, AttentionSpec(x.shape[-2], *x.shape[-2:], 1.0), torch.bfloat16)
    return form.decode(form.encode(x), x.dtype)


@pytest.mark.parametrize("kind", PACKED)
def test_a_batch_leaves_the_bits_that_each_sequence_leaves_alone(kind: str) -> None:
    """In memory, and from prompts' attention; decoding, the library sums padded rows in another order."""
    spec, lengths, source = AttentionSpec(4, 2, 64, 0.125), (5, 17, 33, 64, 70), torch.Generator().manual_seed(3)
    data = [[torch.randn(count, many, 64, generator=source) for many in (4, 2, 2)] for count in lengths]

    def attended(places: Sequence[int]) -> list[tuple[list[torch.Tensor], ...]]:
        sizes = {"sequences": 8, "step_tokens": 512, "dtype": torch.float32, "device": torch.device("cpu")}
        cache = PagedCache((spec,), 1024, 16, **sizes, cache_type=kind)
        running = [Running([0] * lengths[place], lengths[place]) for place in places]
        for index, each in enumerate(running):
            each.tables = [list(range(5 * index, 5 * index + 5))]
        made: list[tuple[list[torch.Tensor], ...]] = [([], []) for _ in places]
        for decodes in (0, 1):
            work = [
                Work(each, *((len(each.tokens) - 1, 1) if decodes else (0, len(each.tokens) - 1))) for each in running
            ]
            pairs = list(zip(places, work, strict=True))
            q, k, v = (torch.cat([data[place][j][w.start : w.end] for place, w in pairs]) for j in range(3))
            parts = cache.states(work)[0].attend(q, k, v, spec).split([w.count for w in work])
            for each, part in zip(made, parts, strict=True):
                each[0].append(part)
        for index, (place, each) in enumerate(zip(places, made, strict=True)):
            each[1].extend(memory[80 * index : 80 * index + lengths[place]] for memory in cache.layers[0].memories)
        return made

    for place, (found, bits) in enumerate(attended(range(5))):
        ((alone, due),) = attended([place])
        assert all(torch.equal(a, b) for a, b in zip(bits, due, strict=True))
        assert torch.equal(found[0], alone[0]) and torch.allclose(found[1], alone[1], atol=1e-6)


class Latent(nn.Module):
    """Two layers of multi-head latent attention with absorbed projections (DeepSeek-V2), without rotary parts."""

    specs = (AttentionSpec(heads=3, kv_heads=1, head_dim=10, scale=0.3, latent=8),) * 2
    vocab_size = 97

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(97, 24), nn.Linear(24, 97)
        self.q, self.k, self.o = (
            nn.ModuleList(nn.Linear(a, b) for _ in "ab") for a, b in ((24, 30), (24, 10), (24, 24))
        )
        source = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 3)

    def hidden(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        x = self.embed(tokens)
        for q, k, o, state, spec in zip(self.q, self.k, self.o, batch.layers, self.specs, strict=True):
            y = state.attend(q(x).view(-1, 3, 10), k(x).view(-1, 1, 10), None, spec)
            x = torch.tanh(x + o(y.reshape(len(x), 24)))
        return x

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.out(hidden)


@pytest.fixture(scope="module", params=["full", "window", "latent"])
def model(request: pytest.FixtureRequest, network: Callable[..., Any]) -> Any:
    if request.param == "latent":
        return Latent().double()
    return network(**({"sliding_window": 20} if request.param == "window" else {})).double()


class PackedLayer(FlatLayer):
    """Plain attention to what the formula makes of keys and values."""

    kind = ""

    def attend(self, q: Any, k: Any, v: Any, spec: AttentionSpec, sinks: Any = None) -> torch.Tensor:
        packed = through(self.kind, k), None if v is None else through(self.kind, v)
        return super().attend(q, *packed, spec, sinks)


@torch.no_grad()
def logits(model: Any, kind: str, tokens: Sequence[int], cache: SequenceCache | None = None) -> torch.Tensor:
    """[T, V] of new tokens, in one pass."""
    cache = cache or SequenceCache(len(model.specs))
    layers = [PackedLayer([layer], [len(tokens)]) for layer in cache.layers]
    for layer in layers:
        layer.kind = kind
    batch = replace(make_batch([cache], [len(tokens)], "cpu", all_outputs=True), layers=layers)
    return model.head(model.hidden(torch.tensor(tokens), batch))


def greedy(model: Any, kind: str, prompt: list[int], count: int) -> tuple[int, ...]:
    cache, new, made = SequenceCache(len(model.specs)), prompt, []
    for _ in range(count):
        new = [int(logits(model, kind, new, cache)[-1].argmax())]
        made += new
    return tuple(made)


SHARED = [(11 * index) % 97 for index in range(48)]
PROMPTS = [
    [*SHARED[: 16 * (index % 4)], *((index * place) % 97 for place in range(1, 3 + index))] for index in range(9)
]
SITUATIONS: dict[str, dict[str, Any]] = {
    "roomy": {},
    "chunks and larger blocks": {"limits": Limits(tokens=11, sequences=3), "block_size": 32},
    "few blocks": {"limits": Limits(tokens=24, sequences=9), "cache_tokens": 16 * 6},
}


@pytest.mark.parametrize("kind", PACKED)
def test_every_answer_is_that_of_plain_attention_to_packed_keys(model: Any, engine_over: Make, kind: str) -> None:
    """Alone, in batches, in chunks, computed again after preemption, after prefixes, in larger blocks."""
    expected = [greedy(model, kind, prompt, 20) for prompt in PROMPTS]
    assert (
        collect(engine_over(model, cache_type=kind).stream(PROMPTS[5], Sampling(max_tokens=20))).tokens == expected[5]
    )
    for name, options in SITUATIONS.items():
        engine = engine_over(model, cache_type=kind, **options)
        for _ in range(2):
            streams = [engine.stream(prompt, Sampling(max_tokens=20)) for prompt in PROMPTS]
            assert [collect(stream).tokens for stream in streams] == expected, name
        found = settled(engine)
        assert found.blocks_used == 0 and found.totals.reused_tokens > 0
        assert name != "few blocks" or found.totals.preemptions > 0


@pytest.mark.parametrize("kind", PACKED)
def test_the_numbers_do_not_depend_on_chunks(model: Any, engine_over: Make, kind: str) -> None:
    """A prompt's own tokens read each other packed, too; so chunks of any size give the same probabilities."""
    tokens = [(7 * index * index) % 97 for index in range(90)]
    expected = logits(model, kind, tokens).log_softmax(-1)
    unpacked = engine_over(model).score(tokens).double().log_softmax(-1)
    for step in (200, 64, 7):
        engine = engine_over(model, cache_type=kind, limits=Limits(tokens=step, sequences=4))
        found = collect(engine.stream(tokens, Sampling(max_tokens=1, prompt_logprobs=0))).prompt_logprobs
        assert found is not None
        made = torch.tensor([each.logprob for each in found], dtype=torch.float64)
        due = expected[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        assert (made - due).abs().max() < 1e-5
        assert (made - unpacked[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", PACKED)
def test_several_answers_drafts_and_fixed_buffers_read_the_same_keys(model: Any, engine_over: Make, kind: str) -> None:
    """Blocks that are copied when answers part; guesses that were wrong and are written over; graphs."""
    expected = [greedy(model, kind, prompt, 14) for prompt in PROMPTS]
    forked = engine_over(model, cache_type=kind)
    sampling = Sampling(n=4, temperature=1.0, seed=1, max_tokens=20, logprobs=0)
    answers = collect(forked.stream(PROMPTS[6], sampling)).choices
    assert len({answer.tokens for answer in answers}) > 1
    for answer in answers:
        due = logits(model, kind, [*PROMPTS[6], *answer.tokens])[len(PROMPTS[6]) - 1 : -1].log_softmax(-1)
        assert answer.logprobs is not None
        made = torch.tensor([each.logprob for each in answer.logprobs], dtype=torch.float64)
        assert (made - due.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]).abs().max() < 1e-5
    for make in (
        lambda engine: NGramDrafter(3),
        lambda engine: ModelDrafter(
            model, 3, engine.cache.beside(model.specs, torch.float32, torch.device("cpu")), model.vocab_size
        ),
    ):
        drafted = engine_over(model, cache_type=kind)
        drafted.drafter = make(drafted)
        streams = [drafted.stream(prompt, Sampling(max_tokens=14)) for prompt in PROMPTS]
        assert [collect(stream).tokens for stream in streams] == expected
        assert settled(drafted).totals.drafted_tokens > 0
    fixed = engine_over(model, cache_type=kind)
    recorded: list[int] = []
    fixed._runner._graphs = DecodeGraphs(model, fixed.cache, lambda step: recorded.append(1) or step)
    streams = [fixed.stream(prompt, Sampling(max_tokens=14)) for prompt in PROMPTS]
    assert [collect(stream).tokens for stream in streams] == expected and recorded


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", PACKED)
def test_keys_that_are_no_numbers_fail_their_own_request_alone(
    network: Callable[..., Any], engine_over: Make, kind: str, value: float
) -> None:
    model = network().double()
    with torch.no_grad():
        model.model.embed_tokens.weight[9] = value
    prompts = [[token + (token == 9) for token in prompt] for prompt in PROMPTS]
    quiet = Sampling(max_tokens=14, logit_bias={9: -100.0})
    engine = engine_over(model, cache_type=kind, cache_tokens=16 * 12)
    expected = [collect(engine.stream(prompt, quiet)).tokens for prompt in prompts]
    for _ in range(3):  # in blocks that held what is none
        streams = [engine.stream(prompt, quiet) for prompt in prompts]
        bad = [engine.stream([9, 8, 7 + index], Sampling(max_tokens=9)) for index in range(3)]
        for stream in bad:
            with pytest.raises(GenerationError, match="not finite"):
                collect(stream)
        assert [collect(stream).tokens for stream in streams] == expected


# Memory and options


def test_packed_caches_are_smaller_and_hold_more_tokens() -> None:
    spec, latent = AttentionSpec(32, 8, 64, 0.125), AttentionSpec(128, 1, 576, 0.1, latent=512)
    state = RecurrentSpec(((16, 64),))
    limits = {"sequences": 64, "step_tokens": 512, "dtype": torch.bfloat16, "device": torch.device("meta")}

    def size(kind: str, *specs: Any) -> int:
        return PagedCache(specs, 16384, 16, **limits, cache_type=kind).nbytes

    for kind, most in {"fp8": 0.55, "int8": 0.55, "int4": 0.32}.items():
        for specs in ((spec, spec), (latent,), (replace(spec, window=512), spec)):
            assert size(kind, *specs) <= most * size("auto", *specs)
        assert size(kind, state) == size("auto", state), "states stay as they are"
        assert PagedCache((spec,), 4096, 16, **limits, cache_type=kind).nbytes == 4112 * token_bytes(
            (spec,), torch.bfloat16, kind
        )
        for sized in (tokens_in, lambda memory, _, *rest: default_tokens(2 * memory, *rest)):
            whole, packed = (sized(1 << 22, None, (spec,), 512, torch.bfloat16, each) for each in ("auto", kind))
            assert whole == 2048 and packed > whole / most * 0.98


@pytest.mark.parametrize(
    ("name", "near"), [("int3", "int"), ("FP8", "'fp8'"), ("q8", "use one of auto"), (8, "use one of"), (None, "auto")]
)
def test_other_types_are_refused_with_the_nearest_name(
    network: Callable[..., Any], engine_over: Make, name: Any, near: str
) -> None:
    for make in (lambda: TextOptions(cache_type=name), lambda: engine_over(network(), cache_type=name)):
        with pytest.raises(OptionError, match="cache_type is") as found:
            make()
        assert found.value.fix is not None and near in found.value.fix


# A trained model

QUESTIONS = ("What is the capital of France?", "What is 12 + 30?", "Hello!", "Write Vienna as JSON.", "Who are you?")


def test_a_trained_model_loses_little() -> None:
    """The mean distance of log-probabilities from those of the whole cache, and the greedy answers."""
    made: dict[str, tuple[torch.Tensor, list[str]]] = {}
    for kind in ("auto", *PACKED):
        with bestiary.load("demo", progress=False, cache_type=kind) as pipe:
            answers = [pipe.chat(question, temperature=0.0, max_tokens=40).text for question in QUESTIONS]
            told = []
            for question, answer in zip(QUESTIONS, answers if kind == "auto" else made["auto"][1], strict=True):
                prompt = pipe.render(question) + answer
                found = pipe.generate(prompt, temperature=0.0, max_tokens=1, prompt_logprobs=0).prompt_logprobs
                told += [each.logprob for each in found]
            made[kind] = torch.tensor(told), answers
    distance = {kind: float((made[kind][0] - made["auto"][0]).abs().mean()) for kind in PACKED}
    assert 0 < distance["int8"] < 0.03 and 0 < distance["fp8"] < 0.1 and 0 < distance["int4"] < 0.3, distance
    assert distance["int8"] < distance["fp8"] < distance["int4"]
    assert made["int8"][1] == made["fp8"][1] == made["auto"][1]
