"""Collecting: as hooks on transformers' models have it, and while other threads run the network."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bestiary
from bestiary.errors import GenerationError, OptionError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.nn import CausalLM, Experts, Linear
from bestiary.records import Architecture, Progress, resolve
from bestiary.registry import default_registry
from bestiary.testing.reference import make_reference
from bestiary_quant.calibration.collector import Collector
from bestiary_quant.calibration.files import read_importance
from bestiary_quant.calibration.taps import weights
from bestiary_quant.calibration.text import collect_text, cut

TEXT = (
    "The capital of France is Paris, and the capital of Austria is Vienna. 12 plus 30 is 42. "
    "A plugin is a part that is added to a program."
)


def tiny(name: str, index: int) -> Mapping[str, Any]:
    record = next(r for r, _ in default_registry().records(Architecture) if r.name == name)
    config: Mapping[str, Any] = resolve(record.tiny)[index]  # type: ignore[arg-type]
    return config


def text(count: int, vocab: int = 131) -> list[int]:
    return torch.randint(3, vocab, (count,), generator=torch.Generator().manual_seed(5)).tolist()


def untapped(model: nn.Module) -> bool:
    return not any({"forward", "_project"} & set(vars(module)) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "index"), [("LlamaForCausalLM", 1), ("Qwen3ForCausalLM", 1), ("Gemma2ForCausalLM", 1)]
)
def test_sums_are_those_of_hooks_on_transformers(name: str, index: int, saved: Any, tmp_path: Any) -> None:
    config = tiny(name, index)
    reference = make_reference(config, tmp_path).model
    tokens, sums, rows = text(300), dict[str, torch.Tensor](), dict[str, int]()

    def hook(path: str) -> Any:
        def see(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            sums[path] = sums.get(path, 0) + x.square().sum(0)
            rows[path] = rows.get(path, 0) + len(x)

        return see

    for path, module in reference.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(hook(f"{path}.weight"))
    with torch.no_grad():
        for part in (tokens[:128], tokens[128:256]):  # 44 are left, too few for a chunk
            reference(input_ids=torch.tensor([part]))
    events: list[Progress] = []
    made = collect_text(saved(config).network(), tokens, 128, progress=events.append)
    assert set(made.values) == set(sums) and made.chunks == 2 and made.chunk_size == 128
    for path, expected in sums.items():
        assert made.counts[path].tolist() == [256] == [rows[path]]
        torch.testing.assert_close(made.values[path], expected, rtol=2e-4, atol=1e-6 * float(expected.max()))
    assert [(event.done, event.total) for event in events] == [(1, 2), (2, 2)]


def test_experts_are_counted_apart(saved: Any) -> None:
    """Against the formula: the rows that the router sends to an expert, and its own act(gate) * up of them."""
    model = saved(tiny("Qwen2MoeForCausalLM", 0)).network()
    seen: dict[str, list[Any]] = {}
    for path, module in model.named_modules():
        if isinstance(module, Experts):
            module.register_forward_pre_hook(lambda m, a, path=path: seen.setdefault(path, []).append((m, *a)))
    made = collect_text(model, text(200), 100, chunks=2)
    assert len(seen) == 3
    for path, calls in seen.items():
        up, down, counts = torch.zeros(6, 64).double(), torch.zeros(6, 32).double(), torch.zeros(6).long()
        for module, x, _, indices in calls:
            for row, chosen in zip(x, indices, strict=True):
                for expert in chosen.tolist():
                    inner = module.act(module.gate_proj[expert] @ row) * (module.up_proj[expert] @ row)
                    up[expert] += row.double() ** 2
                    down[expert] += inner.detach().double() ** 2
                    counts[expert] += 1
        for name, expected in (("gate_proj", up), ("up_proj", up), ("down_proj", down)):
            assert made.counts[f"{path}.{name}"].equal(counts)
            torch.testing.assert_close(made.values[f"{path}.{name}"], expected, rtol=1e-4, atol=1e-7)


def test_a_stopped_collector_leaves_nothing_behind(saved: Any, logits: Any) -> None:
    model = saved(tiny("Qwen3MoeForCausalLM", 0)).network()
    before, collector = logits(model, text(20)), Collector(model)
    assert untapped(model)
    collector.start()
    assert not untapped(model) and torch.equal(logits(model, text(20)), before)
    collector.stop()
    status = collector.status()
    assert untapped(model) and not status.collecting
    assert (status.weights, status.seen, status.most) == (3 * 7 + 1, 22, 40)  # two experts for each of 20
    logits(model, text(20))
    assert collector.status() == status
    collector.start()
    logits(model, text(20))
    collector.stop()
    assert collector.snapshot().counts["lm_head.weight"].tolist() == [40]
    collector.reset()
    assert collector.status().seen == 0 and not collector.snapshot().values


def test_while_a_thread_runs_the_network(saved: Any, logits: Any) -> None:
    """Started, stopped and copied at any moment: sums and counts belong together, and answers stay the same."""
    model = saved(tiny("LlamaForCausalLM", 0)).network()
    tokens = text(16)
    expected, collector, failures, done = logits(model, tokens), Collector(model), [], threading.Event()
    with collector:
        logits(model, tokens)
    once = collector.snapshot()
    collector.reset()

    def run() -> None:
        while not done.is_set():
            if not torch.equal(logits(model, tokens), expected):
                failures.append("another answer")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            collector.start()
            snapshot = collector.snapshot()
            collector.stop()
            for name, sums in snapshot.values.items():
                times = int(snapshot.counts[name]) / 16
                assert times == int(times)
                torch.testing.assert_close(sums, once.values[name] * times, rtol=1e-9, atol=0)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures and untapped(model)


def test_from_live_traffic() -> None:
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        collector = Collector(pipe.model)
        pipe.generate("Hello", max_tokens=4)
        assert collector.status().seen == 0
        with collector:
            pipe.generate("What is a plugin?", max_tokens=8)
        status = collector.status()
        assert status.seen == status.weights == 6 * 7 + 1 and status.most > 3
        importance = collector.snapshot()
    assert importance.of("model.layers.5.mlp.down_proj.weight", (192, 512)) is not None


def test_as_mistralrs_collects() -> None:
    """Its file of the same text (make_references.py): means of squares, near ours as far as its eight bits go.

    It calls the head of a model that ties it by the embedding's name, and showed it the last token only.
    """
    theirs = read_importance(Path(__file__).with_name("data") / "mistralrs.cimatrix")
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        tokens, model = pipe.tokenize(TEXT), pipe.model
        with Collector(model) as collector, torch.no_grad():
            batch = make_batch([SequenceCache(len(model.specs))], [len(tokens)], "cpu", all_outputs=True)
            model.head(model.hidden(torch.tensor(tokens), batch)[-1:])
        shapes = {name: (1, columns) for name, _, columns, _ in weights(model)}
    ours = collector.snapshot()
    assert len(theirs.values) == len(ours.values) == 43
    for name, shape in shapes.items():
        found = theirs.of("model.embed_tokens.weight" if name == "lm_head.weight" else name, shape)
        expected = ours.of(name, shape)
        assert found is not None and expected is not None
        assert (found - expected).abs().sum() < 0.02 * expected.sum(), name


def test_packed_weights_are_watched_too(saved: Any, logits: Any) -> None:
    from bestiary_quant.calibration.grid import rounded

    model = saved(tiny("LlamaForCausalLM", 0)).network()
    assert isinstance(model, CausalLM)
    linear = model.model.layers[0].mlp.up_proj
    assert isinstance(linear, Linear) and linear.weight is not None
    linear.hold(rounded(linear.weight.detach(), 4, 32))
    with Collector(model, ["model.layers.0.mlp.up_proj.weight"]) as collector:
        logits(model, text(10))
    assert list(collector.snapshot().values) == ["model.layers.0.mlp.up_proj.weight"]


def test_inputs_that_are_not_finite(saved: Any) -> None:
    model = saved(tiny("LlamaForCausalLM", 0)).network()
    with Collector(model) as collector:
        model.lm_head(torch.full((1, 64), float("nan")))
    with pytest.raises(GenerationError, match=r"lm_head.weight was multiplied with was not finite"):
        collector.snapshot()


def test_what_cannot_be_watched(saved: Any) -> None:
    model = saved(tiny("LlamaForCausalLM", 0)).network()
    with pytest.raises(OptionError, match=r"has no linear layer or experts model\.norm\.weight"):
        Collector(model, ["model.norm.weight"])
    with pytest.raises(OptionError, match="has no linear layers"):
        Collector(nn.Sequential())
    with pytest.raises(OptionError, match="runs causal language models"):
        collect_text(nn.Sequential(), text(100))


def test_chunks() -> None:
    tokens = list(range(1000))
    parts = cut(tokens, 1000, chunk=300)
    assert [part.tolist() for part in parts] == [tokens[:300], tokens[300:600], tokens[600:900], tokens[900:]]
    assert [len(part) for part in cut(tokens[:963], 1000, chunk=300)] == [300, 300, 300]  # 63 are too few
    assert [len(part) for part in cut(tokens, 1000, chunk=300, chunks=2)] == [300, 300]
    assert [len(part) for part in cut(tokens[:64], 1000)] == [64]
    assert [int(part[0]) for part in cut(tokens, 1000, chunk=300, bos=0)] == [0, 0, 0, 0]
    assert [int(part[0]) for part in cut(tokens, 1000, chunk=300, bos=1)] == [0, 300, 600, 900]


@pytest.mark.parametrize(
    ("tokens", "options", "says"),
    [
        ([1] * 63, {}, "has 63 tokens, and at least 64 are needed"),
        ([1] * 100, {"chunk": 63}, "not possible"),
        ([1] * 100, {"chunks": 0}, "not possible"),
        ([1] * 99 + [1000], {}, "has the token 1000, and the model knows 1000"),
        ([-1] * 100, {}, "use the tokenizer of this model"),
    ],
)
def test_texts_that_do_not_fit(tokens: list[int], options: dict[str, int], says: str) -> None:
    with pytest.raises(OptionError) as found:
        cut(tokens, 1000, **options)
    assert says in str(found.value)


def test_states_of_the_cache_are_those_of_the_reference(saved: Any) -> None:
    """Chunks see nothing of each other."""
    model = saved(tiny("LlamaForCausalLM", 0)).network()
    tokens = text(128)
    made = collect_text(model, tokens, 64)
    total = torch.zeros(64).double()
    for part in (tokens[:64], tokens[64:]):
        batch = make_batch([SequenceCache(3)], [64], "cpu", all_outputs=True)
        with torch.no_grad():
            total += model.hidden(torch.tensor(part), batch).double().square().sum(0)
    torch.testing.assert_close(made.values["lm_head.weight"], total, rtol=1e-6, atol=0)
