"""The operations give what plain torch gives, alone and as a model calls them, and ask the device for no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bestiary.generation.engine.graphs import DecodeGraphs
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.runner import flat
from bestiary.generation.engine.sequence import Sequence, Work
from bestiary.nn import (
    Attention,
    CausalLM,
    Decoder,
    DecoderLayer,
    Embedding,
    Experts,
    GatedMLP,
    MixtureOfExperts,
    RMSNorm,
    Rope,
    Router,
)
from bestiary.nn import operations as plain
from bestiary.nn.operations import PLAIN, Operations, fit
from bestiary.nn.packed import PackedForm
from bestiary.records import resolve
from bestiary_kernels import bestiary_kernels

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

from bestiary_kernels.triton import operations
from bestiary_kernels.triton.operations import adopt, experts, gated, linear
from bestiary_kernels.triton.weights import FORMATS, TritonStack, TritonWeight

OURS = Operations(
    linear=linear,
    rms_norm=operations.rms_norm,
    add_rms_norm=operations.add_rms_norm,
    gated=gated,
    experts=experts,
    adopt=adopt,
    attend=operations.attend,
)
ERRORS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Of a result as a whole.  Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds it."""


class Packed:
    """A packed weight, or a stack, that has a form and nothing else."""

    def __init__(self, form: PackedForm, shape: tuple[int, ...]) -> None:
        self.shape, self._form = shape, form

    def form(self) -> PackedForm:
        return self._form


class Unasked(TorchDispatchMode):
    """Refuses what waits for the device, or has a shape that depends on numbers: what no CUDA graph can record."""

    WAITS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique", "repeat_interleave.Tensor")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in self.WAITS), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


@pytest.fixture
def make_packed(make_weight: Any) -> Callable[..., Any]:
    """What a reader of files hands over, of any codes: (type, [..., N], K)."""

    def make(type: str, rows: tuple[int, ...], columns: int) -> Any:
        held = make_weight(FORMATS[type], rows, columns)
        parts = {"blocks" if held.scales is None else "codes": held.codes}
        for name, part in (("scales", held.scales), ("addends", held.addends)):
            if part is not None:
                parts[name] = part.float()
        return Packed(PackedForm(type, parts), (*rows, columns))

    return make


@pytest.mark.parametrize("type", FORMATS)
def test_adopted_weights(type: str, make_packed: Any, device: str) -> None:
    packed = make_packed(type, (20,), 256)
    held = adopt(packed)
    assert isinstance(held, TritonWeight) and held.shape == (20, 256) and held.type == type
    numbers = held.dequantize()
    for name, part in packed.form().tensors.items():
        assert torch.equal(held.form().tensors[name].view(torch.uint8), part.view(torch.uint8))
    x, bias = torch.randn(3, 256, device=device), torch.randn(20, device=device)
    made = linear(x, [held, held], [None, bias])
    for ours, theirs in zip(made, plain.linear(x, [numbers, numbers], [None, bias]), strict=True):
        assert error(ours, theirs) < ERRORS[torch.float32]
    order = torch.tensor([7, 0, 7], device=device)
    for index in (order, slice(3, 9)):
        assert torch.equal(held.rows(index).dequantize(), numbers[index])
        assert error(held.rows(index).multiply(x), x @ numbers[index].T) < ERRORS[torch.float32]
    assert held.dequantize(torch.float16).dtype == torch.float16
    wide = held.multiply(x.double())
    assert wide.dtype == torch.float64 and error(wide, x.double() @ numbers.double().T) < 1e-12


@pytest.mark.parametrize("type", ["Q8_0", "INT4", "FLOAT8"])
def test_adopted_stacks(type: str, make_packed: Any) -> None:
    held = adopt(make_packed(type, (3, 8), 64))
    assert isinstance(held, TritonStack) and held.shape == (3, 8, 64) and len(held) == 3
    for expert in range(3):
        assert torch.equal(held[expert].dequantize(), held.dequantize()[expert])
    assert held.to("cpu").shape == held.shape


def test_other_forms_stay_as_they_are(device: str) -> None:
    codes = torch.zeros(4, 64, dtype=torch.int8, device=device)
    int8 = Packed(PackedForm("INT8", {"codes": codes, "scales": torch.ones(4, device=device)}), (4, 64))
    assert adopt(int8) is int8  # type: ignore[arg-type, comparison-overlap]
    narrow = {"codes": codes.to(torch.float8_e4m3fn), "scales": torch.ones(4, 4, device=device)}
    sixteen = Packed(PackedForm("FLOAT8", narrow), (4, 64))
    assert adopt(sixteen) is sixteen  # type: ignore[arg-type, comparison-overlap]


def test_large_weights_are_dequantised_in_parts(make_packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = adopt(make_packed("Q4_K", (11,), 256))
    whole = held.dequantize()
    monkeypatch.setattr("bestiary_kernels.triton.weights.PANEL", 1000)
    assert torch.equal(held.dequantize(), whole)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", ERRORS)
def test_norms(dtype: torch.dtype, offset: float, device: str) -> None:
    x, y = torch.randn(2, 5, 3, 24, device=device).to(dtype)
    weight = torch.randn(24, device=device).to(dtype)
    assert error(operations.rms_norm(x, weight, 1e-5, offset), plain.rms_norm(x, weight, 1e-5, offset)) < ERRORS[dtype]
    ours = operations.add_rms_norm(x, y, weight, 1e-5, offset)
    for one, other in zip(ours, plain.add_rms_norm(x, y, weight, 1e-5, offset), strict=True):
        assert one.dtype == dtype and error(one, other) < ERRORS[dtype]


@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh", "gelu", "relu2"])
@pytest.mark.parametrize("dtype", ERRORS)
def test_gates(dtype: torch.dtype, act: str, device: str) -> None:
    gate, up = torch.randn(4, 80, device=device).to(dtype).chunk(2, -1)
    assert error(gated(gate, up, act), plain.gated(gate, up, act)) < ERRORS[dtype]


def test_what_the_kernels_do_not_take_is_plain_torch(device: str) -> None:
    x, weight = torch.randn(3, 8, device=device), torch.randn(8, device=device)
    wide = weight.double()
    assert torch.equal(operations.rms_norm(x, wide, 1e-5, 0.0), plain.rms_norm(x, wide, 1e-5, 0.0))
    x.requires_grad_()
    operations.rms_norm(x, weight, 1e-5, 0.0).sum().backward()
    assert x.grad is not None and x.grad.any()


PLAIN_STACKS = ("", "", "")
CASES = [(("Q8_0", "Q8_0", "Q4_0"), "silu"), (PLAIN_STACKS, "gelu_new"), (("INT4", "Q8_0", ""), "silu")]


@pytest.mark.parametrize(("types", "act"), [*CASES, (PLAIN_STACKS, "gelu")])
def test_experts(types: tuple[str, ...], act: str, make_packed: Any, make_weight: Any, device: str) -> None:
    count, dim, hidden, tokens, chosen = 6, 64, 32, 9, 2
    shapes = [(hidden, dim), (hidden, dim), (dim, hidden)]
    stacks: list[Any] = [
        adopt(make_packed(type, (count, rows), columns))
        if type
        else make_weight("plain", (count, rows), columns).codes / 8
        for type, (rows, columns) in zip(types, shapes, strict=True)
    ]
    numbers = [stack if isinstance(stack, torch.Tensor) else stack.dequantize() for stack in stacks]
    x, scores = torch.randn(tokens, dim, device=device), torch.rand(tokens, count, device=device)
    scores[:, 3] = 0  # nobody's
    weights, indices = scores.topk(chosen)
    expected = plain.experts(x, weights, indices, numbers, act)
    if act == "gelu":
        assert error(experts(x, weights, indices, stacks, act), expected) < ERRORS[torch.float32]
        return
    with Unasked():
        made = experts(x, weights, indices, stacks, act)
    assert error(made, expected) < ERRORS[torch.float32]
    one = slice(4, 5)
    assert torch.equal(experts(x[one], weights[one], indices[one], stacks, act), made[one])


SIZE, VOCABULARY, DIM = 4, 40, 32


def network(device: str, window: int | None = None, softcap: float | None = None, sinks: bool = False) -> CausalLM:
    """Two layers, of which the second has the window and experts."""

    def attention(window: int | None) -> Attention:
        return Attention(
            DIM, 4, 2, 16, bias=True, qk_norm=lambda width: RMSNorm(width), window=window, softcap=softcap, sinks=sinks
        )

    mixture = MixtureOfExperts(Router(DIM, 4, 2), Experts(DIM, 24, 4))
    layers = [
        DecoderLayer(attention(None), GatedMLP(DIM, 48), lambda: RMSNorm(DIM)),
        DecoderLayer(attention(window), mixture, lambda: RMSNorm(DIM)),
    ]
    rope = Rope(16, {"rope_theta": 10000.0})
    model = CausalLM(
        Decoder(Embedding(VOCABULARY, DIM), layers, RMSNorm(DIM), {"full": rope}, ["full", "full"]), DIM, VOCABULARY
    )
    source = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=source) / 3
    return model.to(device).requires_grad_(False)


def pack(model: CausalLM, make_packed: Any) -> None:
    """Put packed weights into the first layer and the embedding, as a load does."""
    torch.manual_seed(0)
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    for layer in (attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj):  # type: ignore[union-attr]
        layer.hold(adopt(make_packed("Q8_0", tuple(layer.weight.shape[:1]), layer.weight.shape[1])))  # type: ignore
    model.model.embed_tokens.hold(adopt(make_packed("Q4_0", (VOCABULARY,), DIM)), torch.float32)  # type: ignore


def sequences(cache: PagedCache, lengths: list[int]) -> list[Sequence]:
    """Sequences of tokens, whose blocks are strewn about."""
    made = []
    for number, length in enumerate(lengths):
        tokens = [(7 * number + 3 * place) % VOCABULARY for place in range(length)]
        blocks = [number + len(lengths) * place for place in range(-(-length // SIZE))]
        made.append(Sequence(tokens, length, tables=[list(blocks) for _ in cache.groups]))
    return made


def cache_of(model: CausalLM, device: str, ours: Operations) -> PagedCache:
    return PagedCache(
        model.specs,
        4 * 32,
        SIZE,
        sequences=16,
        step_tokens=64,
        dtype=torch.float32,
        device=torch.device(device),
        operations=ours,
    )


def run(model: CausalLM, device: str, ours: Operations, lengths: list[int]) -> list[torch.Tensor]:
    """States of three steps: prompts, a prompt's rest between sequences that decode, and one in which all decode."""
    fit(model, ours)
    cache = cache_of(model, device, ours)
    one, two, three = sequences(cache, lengths)
    steps = [
        [Work(one, 0, lengths[0] - 2), Work(two, 0, 5), Work(three, 0, lengths[2] - 2)],
        [Work(one, lengths[0] - 2, 1), Work(two, 5, lengths[1] - 6), Work(three, lengths[2] - 2, 1)],
        [Work(one, lengths[0] - 1, 1), Work(two, lengths[1] - 1, 1), Work(three, lengths[2] - 1, 1)],
    ]
    return [model.hidden(*flat(step, cache)) for step in steps]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 6},
    "all": {"window": 5, "softcap": 3.0, "sinks": True},
}


MODELS = [("plain", False), ("all", True), pytest.param("window", False, marks=pytest.mark.thorough)]


@pytest.mark.parametrize(("name", "packed"), MODELS)
def test_a_model(name: str, packed: bool, device: str, make_packed: Any) -> None:
    model = network(device, **OPTIONS[name])
    if packed:
        pack(model, make_packed)
    lengths = [3, 11, 14]
    for ours, theirs in zip(run(model, device, OURS, lengths), run(model, device, PLAIN, lengths), strict=True):
        assert error(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", ["window", pytest.param("plain", marks=pytest.mark.thorough)])
def test_a_step_in_buffers(name: str, device: str, make_packed: Any) -> None:
    """What is recorded asks for no numbers, and a step with more rows and positions than there are says the same."""
    model = network(device, **OPTIONS[name])
    pack(model, make_packed)
    lengths = [3, 11, 14]
    fit(model, OURS)
    cache = cache_of(model, device, OURS)
    running = sequences(cache, lengths)
    model.hidden(*flat([Work(each, 0, len(each.tokens) - 1) for each in running], cache))

    def record(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        with Unasked():
            step()
        return step

    graphs = DecodeGraphs(model, cache, record)
    last = [Work(each, len(each.tokens) - 1, 1) for each in running]
    assert graphs.fits(last)
    made = graphs.run(last).clone()
    assert error(made, model.hidden(*flat(last, cache))) < 1e-6
    assert error(made, run(model, device, PLAIN, lengths)[2]) < 1e-5


def test_other_caches_are_left_to_plain_torch(device: str) -> None:
    model = network(device)
    spec = model.specs[0]
    cache = PagedCache(
        model.specs,
        64,
        SIZE,
        sequences=2,
        step_tokens=16,
        dtype=torch.float32,
        device=torch.device(device),
        cache_type="int8",
    )
    work = [Work(each, 0, 4) for each in sequences(cache, [4])]
    _, batch = flat(work, cache)
    q, k, v = (torch.randn(4, heads, 16, device=device) for heads in (4, 2, 2))
    before = [memory.clone() for memory in cache.layers[0].memories]
    assert operations.attend(q, k, v, cache.layers[0], batch.layers[0].step, spec, None) is None  # type: ignore
    assert all(torch.equal(a, b) for a, b in zip(before, cache.layers[0].memories, strict=True))


def test_compiled_products(device: str, make_packed: Any) -> None:
    mlp = GatedMLP(64, 96).to(device).requires_grad_(False)
    for parameter in mlp.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    mlp.gate_proj.hold(adopt(make_packed("Q8_0", (96,), 64)))  # type: ignore[arg-type]
    fit(mlp, OURS)
    x = torch.randn(3, 64, device=device)
    expected = mlp(x)
    compiled = torch.compile(mlp, backend="eager", fullgraph=True)
    assert error(compiled(x), expected) < ERRORS[torch.float32]


def test_the_records_name_these_functions() -> None:
    named = {record.operation: record for record in bestiary_kernels() if record.name == "triton"}
    assert {operation: resolve(record.function) for operation, record in named.items()} == {
        field: function for field, function in vars(OURS).items() if function != getattr(PLAIN, field)
    }
    assert all(resolve(str(record.unavailable)) is operations.unavailable for record in named.values())


def test_they_say_why_they_cannot_run() -> None:
    assert (operations.unavailable() is None) == torch.cuda.is_available()
