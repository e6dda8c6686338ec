"""Whole models, layer by layer: every family, every kind of scheme, in bounded memory, and better than rounding."""

import gc
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bestiary
from bestiary.config import Config
from bestiary.errors import GenerationError, OptionError
from bestiary.nn import CausalLM
from bestiary.pulling import Puller
from bestiary.records import Architecture, PackingRequest, Progress, resolve
from bestiary.registry import default_registry
from bestiary_quant.calibration.calibrated import calibrated
from bestiary_quant.calibration.files import write_importance
from bestiary_quant.calibration.grid import rounded
from bestiary_quant.calibration.layer import Layer, Settings, Target, targets_of
from bestiary_quant.calibration.load import calibrated_weights, importance_of, read_tokens
from bestiary_quant.calibration.methods import METHODS, method_of
from bestiary_quant.calibration.packing import packed_layer
from bestiary_quant.calibration.text import collect_text
from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack
from bestiary_quant.making.pack import pack
from bestiary_quant.packed import PackedMatrix, PackedStack

FAMILIES = (
    ("LlamaForCausalLM", 1), ("MistralForCausalLM", 0), ("Ministral3ForCausalLM", 1), ("Qwen2ForCausalLM", 2),
    ("Qwen3ForCausalLM", 1), ("Qwen2MoeForCausalLM", 1), ("Qwen3MoeForCausalLM", 1), ("GemmaForCausalLM", 2),
    ("Gemma2ForCausalLM", 1), ("Gemma3ForCausalLM", 2),
)  # fmt: skip
HELD_OUT = Path(__file__).parents[3] / "plugins/text/demo/tests/heldout.json"
SCHEMES = ("gptq4", "awq", "q4_0", None)


def tiny(name: str, index: int) -> Mapping[str, Any]:
    record = next(r for r, _ in default_registry().records(Architecture) if r.name == name)
    config: Mapping[str, Any] = resolve(record.tiny)[index]  # type: ignore[arg-type]
    return config


def text(count: int, vocab: int = 131) -> list[int]:
    return torch.randint(3, vocab, (count,), generator=torch.Generator().manual_seed(5)).tolist()


def linear(puller: Puller) -> list[str]:
    return [name for name in puller.names if "_proj" in name and len(puller.shape(name)) > 1 and "bias" not in name]


def packed(model: Any, scheme_of: Callable[[str], str | None], tokens: list[int], **options: Any) -> dict[str, Any]:
    with model.puller() as (config, puller):
        schemes = {name: scheme_of(name) for name in linear(puller)}
        names, made = list(puller.names), {}
        for name, weight in calibrated(schemes, tokens, config, puller, **options):
            assert name not in made
            made[name] = weight
        assert sorted(made) == sorted(names)
        return made


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("name", "index"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_every_family(name: str, index: int, scheme: str | None, saved: Any, logits: Any) -> None:
    """What is asked for is packed, each parameter comes once, and the network still answers nearly as it did."""
    model = saved(tiny(name, index))
    made = packed(model, lambda _: scheme, text(200), chunk=100)
    with model.puller() as (_, puller):
        wanted = set(linear(puller))
        shapes = {name: puller.shape(name) for name in puller.names}
    for parameter, weight in made.items():
        assert tuple(weight.shape) == shapes[parameter]
        stack = len(shapes[parameter]) == 3
        fits = scheme is not None and parameter in wanted and shapes[parameter][-1] % 32 == 0
        kind = (PackedStack if stack else PackedMatrix) if scheme == "q4_0" else CodedStack if stack else CodedMatrix
        assert isinstance(weight, kind if fits else torch.Tensor), parameter
    prompt = text(20)
    expected, found = logits(model.network(), prompt), logits(model.network(made), prompt)
    if scheme is None:
        assert torch.equal(found, expected)
    else:
        assert 0 < (found - expected).std() < 0.5 * expected.std()


def test_importance_is_that_of_a_layer_in_a_packed_network(saved: Any) -> None:
    """Of the first layer it is that of the plain network, of the last that behind the packed ones: bit for bit."""
    model, tokens = saved(tiny("Qwen2MoeForCausalLM", 0)), text(200)
    made = packed(model, lambda _: "q4_0", tokens, chunk=100)
    plain = model.network()
    before = collect_text(plain, tokens, 100)
    weights = {name: value for name, value in made.items() if not name.startswith("model.layers.2.")}
    behind = collect_text(model.network(weights), tokens, 100)
    for layer, importance in ((0, before), (2, behind)):
        for name in made:
            if name.startswith(f"model.layers.{layer}.") and isinstance(made[name], PackedMatrix | PackedStack):
                shape = made[name].shape
                with model.puller() as (_, puller):
                    expected = pack(puller.plain(name), "q4_0", importance.of(name, shape))
                assert expected is not None and torch.equal(made[name].data, expected.data), name


def test_mixed_schemes(saved: Any, logits: Any) -> None:
    """AWQ folds into what others pack, and into what stays plain."""
    model = saved(tiny("Qwen3ForCausalLM", 1))
    of = {"q": "awq4", "k": "q8_0", "v": None, "o": "gptq8", "gate": "awq4", "up": None, "down": "afq8"}
    made = packed(model, lambda name: of[name.split(".")[-2].split("_")[0]], text(200), chunk=100)
    norm = "model.layers.1.input_layernorm.weight"
    with model.puller() as (_, puller):
        assert not torch.equal(made[norm], puller.plain(norm))
        value = "model.layers.1.self_attn.v_proj.weight"
        assert isinstance(made[value], torch.Tensor) and not torch.equal(made[value], puller.plain(value))
    expected, found = logits(model.network(), text(20)), logits(model.network(made), text(20))
    assert (found - expected).std() < 0.2 * expected.std()


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GemmaForCausalLM"])
@pytest.mark.parametrize("scheme", ["q4_0", "gptq4", "awq4"])
def test_heads_and_embeddings(scheme: str, name: str, saved: Any, logits: Any) -> None:
    """A tied embedding is packed as the head that it is; one of its own by its numbers alone."""
    for index in (0, 1):
        model = saved(tiny(name, index))
        with model.puller() as (config, puller):
            tied = "lm_head.weight" not in puller.names
            schemes = {f"{part}.weight": scheme for part in ("model.embed_tokens", *(() if tied else ("lm_head",)))}
            made = dict(calibrated(schemes, text(128), config, puller, chunk=64))
        assert all(not isinstance(made[name], torch.Tensor) for name in schemes)
        expected, found = logits(model.network(), text(20)), logits(model.network(made), text(20))
        assert 0 < (found - expected).std() < 0.5 * expected.std()


def test_memory_is_that_of_one_layer(demo: Any) -> None:
    """While a layer is yielded, the network holds no other: what its reader lets go is gone."""
    with demo.puller(torch.bfloat16) as (config, puller):
        model = puller.model
        most = 0
        schemes = dict.fromkeys(linear(puller), "gptq4")
        for _, weight in calibrated(schemes, text(256, 1536), config, puller, chunk=64):
            del weight
            held = sum(p.numel() for p in model.parameters() if not p.is_meta)
            held += sum(1 for m in model.modules() if getattr(m, "packed", None) is not None)
            most = max(most, held)
            tensors = sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor and t.dtype == torch.bfloat16)
            assert tensors < 1.5 * 192 * 1536 + 4 * 64 * 192
        assert most <= 192  # the final norm


def test_a_layer_may_need_several_runs(saved: Any) -> None:
    """With little memory for Hessians, a layer is run once for each, and comes out the same."""
    random = torch.Generator().manual_seed(0)
    weights = {f"l.{part}_proj.weight": torch.randn(8, 64, generator=random) for part in ("q", "k", "o", "up")}
    weights["l.experts.up_proj"] = torch.randn(3, 8, 64, generator=random)
    inputs = {name: torch.randn(3, 90, 64, generator=random) for name in weights}
    inputs["l.k_proj.weight"] = inputs["l.q_proj.weight"]
    runs: list[list[str]] = []

    def show(see: Mapping[str, Any]) -> None:
        runs.append(sorted(see))
        for name, seer in see.items():
            for number, rows in enumerate(inputs[name]):
                seer(rows, number if "experts" in name else None)

    targets = tuple(Target(name, "gptq4", tuple(weight.shape)) for name, weight in weights.items())
    layer = Layer(targets, dict(weights), weights.__getitem__, show, lambda name, weight: None)
    whole = packed_layer(layer)
    assert runs == [["l.experts.up_proj", "l.o_proj.weight", "l.q_proj.weight", "l.up_proj.weight"]]
    runs.clear()
    parts = packed_layer(layer, budget=2 * 4 * 64 * 64)
    assert len(runs) == 3  # three Hessians, and one for each of three experts
    for name in weights:
        ours, theirs = whole[name], parts[name]
        assert isinstance(ours, CodedMatrix | CodedStack) and isinstance(theirs, CodedMatrix | CodedStack)
        assert torch.equal(ours.dequantize(), theirs.dequantize())


def test_groups_of_awq_are_of_one_size_in_a_model(saved: Any) -> None:
    """As its files have it; those of GPTQ are each as large as they can be."""
    with saved(tiny("LlamaForCausalLM", 0)).puller() as (_, puller):
        names = linear(puller)
        widths = {puller.shape(name)[-1] for name in names}
        assert widths == {64, 96}
        for scheme, groups in (("awq4", {32}), ("gptq4", {64, 32})):
            targets = targets_of(dict.fromkeys(names, scheme), names, puller.shape)
            assert {target.group for target in targets} == groups


def test_twice_the_same(saved: Any) -> None:
    model = saved(tiny("Qwen3MoeForCausalLM", 0))
    for scheme in ("gptq3", "awq4"):
        first, second = (packed(model, lambda _, s=scheme: s, text(200), chunk=100) for _ in range(2))
        for name, weight in first.items():
            other = second[name]
            plain = isinstance(weight, torch.Tensor)
            assert torch.equal(weight if plain else weight.dequantize(), other if plain else other.dequantize())


def test_act_order_and_symmetry(saved: Any, logits: Any) -> None:
    model = saved(tiny("LlamaForCausalLM", 1))
    settings = Settings(symmetric=True, act_order=True)
    made = packed(model, lambda _: "gptq8", text(200), chunk=100, settings=settings)
    scaling = made["model.layers.0.self_attn.q_proj.weight"].scaling
    assert scaling.zeros is None and made["model.layers.0.mlp.down_proj.weight"].scaling.order is not None
    expected = logits(model.network(), text(20))
    assert (logits(model.network(made), text(20)) - expected).std() < 0.02 * expected.std()


def test_progress_goes_forward_to_its_end(saved: Any) -> None:
    for scheme in ("gptq4", "awq4", None):
        events: list[Progress] = []
        packed(saved(tiny("LlamaForCausalLM", 0)), lambda _, s=scheme: s, text(200), chunk=100, progress=events.append)
        done = [event.done for event in events]
        assert done == sorted(set(done)) and done[-1] == events[-1].total == 2 * 3 * 2
        assert {event.stage for event in events} == {"calibrate"}


@pytest.fixture(scope="module")
def talks(demo: Any) -> tuple[list[int], list[list[int]]]:
    """Conversations as the packaged model was trained on: some to calibrate on, and others to judge by."""
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        tokens = [pipe.tokenize_chat(item["messages"]) for item in json.loads(HELD_OUT.read_text())]
    return [token for talk in tokens[1::2] for token in talk], tokens[::6]


def distance(model: CausalLM, plain: CausalLM, talks: list[list[int]], logits: Any) -> float:
    """The mean divergence of the next token's distribution from that of the plain model, in nats."""
    total = 0.0
    for talk in talks:
        theirs, ours = logits(plain, talk).log_softmax(-1), logits(model, talk).log_softmax(-1)
        total += float((theirs.exp() * (theirs - ours)).sum(-1).mean())
    return total / len(talks)


@pytest.mark.parametrize("scheme", ["gptq2", "gptq3", "gptq4", "awq4"])
def test_a_trained_model_is_nearer_than_a_rounded_one(scheme: str, demo: Any, talks: Any, logits: Any) -> None:
    """In the same groups and bits."""
    method, plain = METHODS[scheme], demo.network()
    with demo.puller() as (_, puller):
        nearest = {
            name: rounded(puller.plain(name), method.bits, method.group(puller.shape(name)[1]) or 0)
            for name in linear(puller)
        }
    ours = distance(demo.network(packed(demo, lambda _: scheme, talks[0], chunk=256)), plain, talks[1], logits)
    theirs = distance(demo.network(nearest), plain, talks[1], logits)
    assert ours < (0.95 if scheme == "awq4" else 0.8) * theirs


@pytest.mark.parametrize("scheme", ["q2k", "q3k", "q4k", "q4_0"])
def test_a_trained_model_is_nearer_with_importance(scheme: str, demo: Any, talks: Any, logits: Any) -> None:
    """Rows of 512 columns, those of down_proj, are k-quants here; the others have 192."""
    plain = demo.network()
    with demo.puller() as (_, puller):
        alike = {name: pack(puller.plain(name), scheme) for name in linear(puller)}
    ours = distance(demo.network(packed(demo, lambda _: scheme, talks[0], chunk=256)), plain, talks[1], logits)
    assert ours < distance(demo.network(alike), plain, talks[1], logits)


def test_names() -> None:
    assert method_of("GPTQ") is METHODS["gptq4"] and method_of("awq") is METHODS["awq4"]
    assert method_of("q4k") is None and method_of(None) is None
    for name, method in METHODS.items():
        assert method_of(name) is method
        for shape in ((16, 256), (3, 16, 96)):
            weight = rounded(torch.randn(shape[-2:]), method.bits, method.group(shape[-1]) or 0)
            assert method.nbytes(shape) == weight.nbytes * (shape[0] if len(shape) == 3 else 1)
        assert method.group(172) is None and method.nbytes((4, 172)) is None


class NoDecoder(CausalLM):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.model = nn.Linear(1, 1)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schemes": {"model.layers.0.mlp.up_proj.weight": "gptq5"}}, "no quantization 'gptq5'"),
        ({"schemes": {"model.layers.9.mlp.up_proj.weight": "gptq4"}}, "no weight 'model.layers.9"),
        ({"tokens": [1] * 63}, "at least 64 are needed"),
        ({"model": nn.Linear(1, 1)}, "this network is a Linear"),
        ({"model": NoDecoder()}, "the network has a Linear"),
    ],
)
def test_what_is_refused_before_anything_is_read(change: dict[str, Any], says: str, saved: Any) -> None:
    with saved(tiny("LlamaForCausalLM", 0)).puller() as (config, puller):
        if "model" in change:
            puller.model = change["model"]
        with pytest.raises(OptionError) as found:
            calibrated(change.get("schemes", {}), change.get("tokens", text(100)), config, puller)
        assert says in str(found.value)


def test_states_that_are_not_finite(saved: Any) -> None:
    with saved(tiny("LlamaForCausalLM", 0)).puller() as (config, puller):
        plain = puller.plain
        puller.plain = lambda name: plain(name) * (float("inf") if "layers.1.mlp.up" in name else 1)  # type: ignore[method-assign]
        with pytest.raises(GenerationError, match="after layer 1 are not finite"):
            list(calibrated(dict.fromkeys(linear(puller), "gptq4"), text(100), config, puller))


def test_a_load_with_a_text_file(saved: Any, tmp_path: Any) -> None:
    path = tmp_path / "text.txt"
    path.write_text("A newt is a small animal. " * 20, encoding="utf-8")
    request = PackingRequest("q4_0", calibration_file=str(path), encode=lambda text: [ord(letter) for letter in text])
    with saved(tiny("LlamaForCausalLM", 0)).puller() as (config, puller):
        made = dict(calibrated_weights(dict.fromkeys(linear(puller), "q4_0"), request, config, puller))
        assert isinstance(made["model.layers.2.mlp.down_proj.weight"], PackedMatrix)
        with pytest.raises(OptionError, match="there is no tokenizer"):
            calibrated_weights({}, PackingRequest(calibration_file=str(path)), config, puller)


def test_importance_of_a_load(saved: Any, tmp_path: Any) -> None:
    """From a file, from a record and from means by name: for each weight the same."""
    model = saved(tiny("Qwen3MoeForCausalLM", 0))
    made, path = collect_text(model.network(), text(128), 64), tmp_path / "imatrix.gguf"
    write_importance(path, made)
    with model.puller() as (_, puller):
        shapes = {name: puller.shape(name) for name in linear(puller)}
    of_record, of_file = importance_of(made, shapes), importance_of(str(path), shapes)
    of_means = importance_of({name: made.mean(name) for name in shapes}, shapes)
    assert set(of_record) == set(of_file) == set(of_means) == set(shapes)
    for name, means in of_record.items():
        assert means.shape == (*shapes[name][:-2], shapes[name][-1]) and torch.equal(means, of_means[name])
        torch.testing.assert_close(means, of_file[name], rtol=1e-6, atol=0)
    tied = importance_of(made, {"model.embed_tokens.weight": (131, 64)})["model.embed_tokens.weight"]
    assert torch.equal(tied, made.mean("lm_head.weight"))
    assert set(importance_of(made, {"model.embed_tokens.weight": (131, 64), "lm_head.weight": (131, 64)})) == {
        "lm_head.weight"
    }
    with pytest.raises(OptionError, match="knows none of the weights"):
        importance_of(made, {"model.layers.7.mlp.up_proj.weight": (8, 64)})


@pytest.mark.parametrize("scheme", ["gptq4", "awq4", "q4_0", None])
def test_a_checkpoint_that_is_packed_already(scheme: str | None, demo: Any, shared_data: Any, logits: Any) -> None:
    """Its blocks are read as numbers where they are packed anew, and kept where they are not."""
    path = shared_data / "weights/stories260K/gguf/stories260K-q8_0.gguf"
    model = type(demo)(str(path))
    tokens = text(160, 512)
    made = packed(model, lambda name: None if "k_proj" in name else scheme, tokens, chunk=80)
    assert isinstance(made["model.layers.0.self_attn.k_proj.weight"], PackedMatrix)
    expected, found = logits(model.network(), tokens), logits(model.network(made), tokens)
    assert (found - expected).std() < (0.2 if scheme else 0.01) * expected.std()


def test_files_that_are_no_text(tmp_path: Any) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(OptionError, match="is no text: invalid start byte at byte 0"):
        read_tokens(str(path), lambda text: [])
    for absent in (str(tmp_path), str(tmp_path / "absent"), "a\0b"):
        with pytest.raises(OptionError, match="to calibrate on"):
            read_tokens(absent, lambda text: [])
    path.write_text("é" * 3_000_000, encoding="utf-8")
    assert len(read_tokens(str(path), lambda text: [ord(letter) for letter in text])) == (1 << 20) / 2


def test_configurations_without_a_first_token(saved: Any) -> None:
    with saved(tiny("LlamaForCausalLM", 0)).puller() as (config, puller):
        bare = Config({key: value for key, value in config.items() if key != "bos_token_id"}, "test")
        assert dict(calibrated({}, text(64), bare, puller))
