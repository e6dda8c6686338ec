"""The budget: what is foreseen is what is measured, who goes for whom, and what is said where nothing helps."""

import json
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import bestiary
from bestiary.amount import written
from bestiary.errors import MissingPlugin, OptionError, OutOfMemory
from bestiary.registry import discover
from bestiary.testing.tiny import decoder
from bestiary.zoo import Entry, Zoo
from bestiary.zoo.estimate import Estimate, estimate, measured

State = Callable[[Zoo], dict[str, str]]
KINDS: dict[str, dict[str, Any]] = {
    "llama": decoder("LlamaForCausalLM", "llama", vocab_size=256),
    "mistral": decoder("MistralForCausalLM", "mistral", vocab_size=256, sliding_window=32),
    "qwen3": decoder("Qwen3ForCausalLM", "qwen3", vocab_size=256, tie_word_embeddings=True, head_dim=16),
    "qwen3_moe": decoder("Qwen3MoeForCausalLM", "qwen3_moe", vocab_size=256, num_experts=4, moe_intermediate_size=16),
    "gemma3": decoder("Gemma3ForCausalLM", "gemma3_text", vocab_size=256, sliding_window=16, head_dim=16),
}


@pytest.fixture(scope="module")
def folders(tiny: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of each kind, with weights by transformers."""
    made = {}
    for name, config in KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(config))
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((Path(tiny["ant"]) / file).read_bytes())
        made[name] = str(folder)
    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cache_tokens": 512},
        {"dtype": "bfloat16"},
        {"dtype": "float16", "max_requests": 3},
        {"cache_memory": "1 MB", "block_size": 32},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_foreseen_is_what_is_measured(folders: dict[str, str], kind: str, options: dict[str, Any]) -> None:
    found = estimate(folders[kind], options, lambda device: 1 << 30)
    with bestiary.load(folders[kind], progress=False, **{**options, **found.options}) as pipe:
        assert found.device == "cpu" and found.nbytes == measured(pipe)
        weights = {id(parameter): parameter for parameter in pipe.model.parameters()}
        assert found.weights == sum(parameter.nbytes for parameter in weights.values())


def test_a_pipeline_that_does_not_tell_is_measured_by_its_network() -> None:
    class Plain:
        model = torch.nn.Linear(3, 5)

    assert measured(Plain()) == (3 * 5 + 5) * 4
    assert measured(object()) is None


def test_the_packaged_model_is_foreseen_too() -> None:
    found = estimate("demo", {}, lambda device: 1 << 40)
    with bestiary.load("demo", progress=False, **found.options) as pipe:
        assert found.nbytes == measured(pipe)


def test_a_draft_model_is_counted_with_its_own_cache(folders: dict[str, str]) -> None:
    plain = estimate(folders["llama"], {"cache_tokens": 512}, lambda device: 1 << 30)
    ngram = estimate(folders["llama"], {"cache_tokens": 512, "draft": "ngram"}, lambda device: 1 << 30)
    draft = estimate(folders["llama"], {"cache_tokens": 512, "draft": folders["llama"]}, lambda device: 1 << 30)
    assert ngram == plain
    assert (draft.weights, draft.cache) == (2 * plain.weights, 2 * plain.cache)


def test_the_cache_is_as_large_as_half_of_what_the_weights_leave(folders: dict[str, str]) -> None:
    roomy = estimate(folders["llama"], {}, lambda device: 1 << 40)
    assert roomy.options["cache_tokens"] == 16384
    each = 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, their size, float32
    budget = roomy.weights + 8192 * each
    tight = estimate(folders["llama"], {}, lambda device: budget)
    assert tight.options["cache_tokens"] == 4096
    assert tight.nbytes <= budget
    with pytest.raises(OutOfMemory, match="weights need"):
        estimate(folders["llama"], {}, lambda device: roomy.weights - 1)


def test_packed_weights_are_foreseen_by_packing_a_sample(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, str], third_party: Path
) -> None:
    monkeypatch.syspath_prepend(str(third_party))
    points = [("core", "bestiary.builtin"), ("newt", "newt"), ("llama", "bestiary_llama")]
    registry = discover(points=[EntryPoint(name, module, "bestiary") for name, module in points])
    options = {"quant": "rows8", "cache_tokens": 512, "registry": registry}
    found = estimate(folders["llama"], options, lambda device: 1 << 30)
    with bestiary.load(folders["llama"], progress=False, **{**options, **found.options}) as pipe:
        whole = estimate(folders["llama"], {"cache_tokens": 512}, lambda device: 1 << 30)
        exact = measured(pipe)
        assert exact and exact < whole.nbytes
        # A scheme has numbers for each row, of which a narrow weight has relatively more than the sample.
        assert abs(found.nbytes - exact) < 0.05 * exact
    with pytest.raises(MissingPlugin, match="rows9"):
        estimate(folders["llama"], {**options, "quant": "rows9"}, lambda device: 1 << 30)


@pytest.mark.parametrize("quant", ["q8_0", "q4k", "q4_k_m", 4, "afq4"])
def test_packed_weights_are_foreseen_from_their_plan(quant: str | int) -> None:
    """Embedding and head too, each by the scheme that its shape gets."""
    found = estimate("demo", {"quant": quant, "cache_tokens": 512}, lambda device: 1 << 30)
    with bestiary.load("demo", quant=quant, progress=False, **found.options) as pipe:
        assert found.nbytes == pytest.approx(measured(pipe), rel=0.01)


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.53), ("int4", 0.33)])
def test_a_packed_cache_holds_more_tokens_in_the_same_memory(kind: str, share: float) -> None:
    options = {"cache_memory": "4 MiB"}
    plain, packed = (
        estimate("demo", {**options, **more}, lambda device: 1 << 30) for more in ({}, {"cache_type": kind})
    )
    assert plain.options["cache_tokens"] < share * packed.options["cache_tokens"] * 1.05
    assert packed.cache == pytest.approx(plain.cache, rel=0.05)
    with bestiary.load("demo", cache_type=kind, progress=False, **packed.options) as pipe:
        assert packed.nbytes == measured(pipe)


@pytest.mark.parametrize("options", [{"dtype": "int3"}, {"device": "abacus"}, {"cache_tokens": 1}])
def test_what_load_refuses_is_refused_before(tiny: dict[str, str], options: dict[str, Any]) -> None:
    with Zoo({"ant": Entry(tiny["ant"], **options)}) as zoo, pytest.raises(OptionError):
        zoo.load()


def test_the_least_recently_used_idle_model_goes(two: Zoo, loader: Any, state: State, nbytes: int) -> None:
    two.load("ant")
    two.load("bee")
    two.generate("a", model="ant", max_tokens=1)
    two.load("cat")
    assert state(two) == {"ant": "ready", "bee": "unloaded", "cat": "ready"}
    two.load("bee")
    assert state(two) == {"ant": "unloaded", "bee": "ready", "cat": "ready"}
    assert loader.peak == loader.resident() == 2 * nbytes
    assert loader.loads == ["ant", "bee", "cat", "bee"]


def test_pinned_models_stay(tiny: dict[str, str], nbytes: int, state: State) -> None:
    entries = {name: Entry(folder, cache_tokens=512, pinned=name == "ant") for name, folder in tiny.items()}
    with Zoo(entries, memory=2 * nbytes) as zoo:
        zoo.load("ant")
        for name in ("bee", "cat", "bee"):
            zoo.load(name)
        assert state(zoo) == {"ant": "ready", "bee": "ready", "cat": "unloaded"}
        zoo.unload("ant")
        zoo.load("cat")
        with pytest.raises(OutOfMemory) as found, zoo.lease("bee"), zoo.lease("cat"):
            zoo.load("ant", wait=0)
        assert '"bee" takes' in str(found.value)


def test_where_it_can_never_fit_nobody_waits(tiny: dict[str, str], nbytes: int) -> None:
    entries = {name: Entry(folder, cache_tokens=512, pinned=True) for name, folder in tiny.items()}
    with Zoo(entries, memory=2 * nbytes, wait=1e6) as zoo:
        zoo.load("ant")
        zoo.load("bee")
        with pytest.raises(OutOfMemory) as found:
            zoo.load("cat")
        told = str(found.value)
        size = written(nbytes)
        for part in (f'"cat" needs {size}', f"budget of {written(2 * nbytes)} on cpu", "0 B are free"):
            assert part in told
        assert f'"ant" takes {size}, pinned' in told and f'"bee" takes {size}, pinned' in told
        assert "memory=" in told and "cache_tokens" in told
    with Zoo({"ant": Entry(tiny["ant"], cache_tokens=512)}, memory=nbytes - 1, wait=1e6) as zoo:
        with pytest.raises(OutOfMemory, match="even if everything"):
            zoo.load()
        assert zoo.status()[0].state == "unloaded" and zoo.status()[0].nbytes == 0


def test_busy_models_are_waited_for(two: Zoo, alone: Any, state: State, nbytes: int) -> None:
    streams = [two.stream("a", model=name, max_tokens=50, temperature=0.0) for name in ("ant", "bee")]
    for stream in streams:
        next(stream)
    with pytest.raises(OutOfMemory, match="in use for 0 seconds") as found:
        two.load("cat", wait=0)
    assert f'"ant" takes {written(nbytes)}, lent to 1' in str(found.value)
    answer: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answer.append(two.generate("a", model="cat", max_tokens=3, temperature=0.0).tokens)
    )
    waiting.start()
    while not two._keeper._ledger.asks:
        time.sleep(0.001)
    rest = [token for chunk in streams[1] for token in chunk.tokens]
    waiting.join()
    assert answer == [alone("cat", "a", 3)]
    assert state(two) == {"ant": "ready", "bee": "unloaded", "cat": "ready"}
    assert tuple(rest) == alone("bee", "a", 50)[1:]
    assert tuple(token for chunk in streams[0] for token in chunk.tokens) == alone("ant", "a", 50)[1:]


def test_a_request_that_outlives_its_lease_keeps_its_model(two: Zoo, alone: Any, state: State) -> None:
    with two.lease("ant") as pipe:
        stream = pipe.stream("a", max_tokens=200, temperature=0.0)
    two.load("bee")
    two.load("cat")
    running = two.status()[0].running
    assert state(two)["ant"] == "ready" or not running
    assert tuple(token for chunk in stream for token in chunk.tokens) == alone("ant", "a", 200)


def wrong(factor: float) -> Callable[..., Estimate]:
    def guess(id: str, options: Any, budget: Any) -> Estimate:
        found = estimate(id, options, budget)
        return Estimate(found.device, int(found.nbytes * factor), 0, found.options)

    return guess


def test_an_estimate_is_corrected_by_what_the_model_takes(
    tiny: dict[str, str], nbytes: int, loader: Any, state: State
) -> None:
    entries = {name: Entry(folder, cache_tokens=512) for name, folder in tiny.items()}
    with Zoo(entries, memory=2 * nbytes + 1000, load=loader, estimate=wrong(0.5)) as zoo:
        zoo.load("ant")
        zoo.load("bee")
        zoo.load("cat")  # there seemed to be room for a third, and there is not
        assert state(zoo) == {"ant": "unloaded", "bee": "ready", "cat": "ready"}
        assert [model.needed for model in zoo.status()] == [nbytes] * 3
        with zoo.lease("bee"), zoo.lease("cat"), pytest.raises(OutOfMemory):
            zoo.load("ant", wait=0)
    with Zoo(entries, memory=nbytes - 1000, load=loader, estimate=wrong(0.5)) as zoo:
        with pytest.raises(OutOfMemory, match=f"needs {written(nbytes)}"):
            zoo.load("ant")
        assert loader.resident() == 0 and zoo.status()[0].nbytes == 0
    with Zoo(entries, memory=2 * nbytes, load=loader, estimate=wrong(1.4)) as zoo:
        zoo.load("ant")
        zoo.load("bee")  # by the estimate one of them would have had to go
        assert state(zoo)["ant"] == "unloaded"
        zoo.load("ant")
        assert state(zoo) == {"ant": "ready", "bee": "ready", "cat": "unloaded"}


def test_an_excess_that_others_cannot_make_room_for_is_closed_again(
    tiny: dict[str, str], nbytes: int, loader: Any, state: State
) -> None:
    entries = {name: Entry(folder, cache_tokens=512) for name, folder in tiny.items()}
    with Zoo(entries, memory=int(1.6 * nbytes), load=loader, estimate=wrong(0.5)) as zoo, zoo.lease("ant"):
        with pytest.raises(OutOfMemory, match=f"needs {written(nbytes)}"):
            zoo.load("bee", wait=0)
        assert state(zoo) == {"ant": "ready", "bee": "unloaded", "cat": "unloaded"}
        assert loader.resident() == nbytes


def test_a_size_that_is_stated_is_believed(tiny: dict[str, str], loader: Any) -> None:
    with Zoo({"ant": Entry(tiny["ant"], memory="3 MB", cache_tokens=512)}, memory="4 MB", load=loader) as zoo:
        zoo.load()
        assert zoo.status()[0].nbytes == zoo.status()[0].needed == 3_000_000


def test_shares_are_of_what_is_free(tiny: dict[str, str], monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    monkeypatch.setattr("bestiary.placement.free_memory", lambda device: 4 * nbytes)
    entries = {name: Entry(folder, cache_tokens=512) for name, folder in tiny.items()}
    for memory, ready in ((0.5, 2), (0.25, 1), (None, 3)):
        with Zoo(entries, memory=memory) as zoo:
            for name in zoo.names:
                zoo.load(name)
            assert sum(model.state == "ready" for model in zoo.status()) == ready


def test_tensors_of_a_closed_model_are_gone(two: Zoo, loader: Any) -> None:
    two.load("ant")
    with two.lease("bee") as pipe:
        weights = sum(parameter.nbytes for parameter in pipe.model.parameters())
    before = living()
    two.unload("bee")
    assert before - living() >= weights


def living() -> int:
    import gc

    gc.collect()
    return sum(thing.nbytes for thing in gc.get_objects() if type(thing) is torch.nn.Parameter)


def test_nothing_is_loaded_before_what_is_being_closed_is_gone(state: State) -> None:
    events: list[str] = []
    closing, go_on = threading.Event(), threading.Event()

    class Slow:
        """A pipeline that takes its time to close."""

        def close(self) -> None:
            events.append("closing")
            closing.set()
            assert go_on.wait(100)
            events.append("closed")

    def load(id: str) -> Slow:
        events.append(id)
        return Slow()

    names = ("first", "second", "third")
    with Zoo({name: Entry(name, memory=100) for name in names}, memory=200, load=load) as zoo:
        zoo.load("first")
        zoo.load("second")
        unloading = threading.Thread(target=zoo.unload, args=("first",))
        unloading.start()
        assert closing.wait(100)
        loading = threading.Thread(target=zoo.load, args=("third",))
        loading.start()
        while state(zoo)["third"] != "loading" or zoo.status()[2].nbytes == 0:
            time.sleep(0.001)
        assert state(zoo) == {"first": "closing", "second": "ready", "third": "loading"}
        go_on.set()
        unloading.join()
        loading.join()
        assert events == ["first", "second", "closing", "closed", "third"]
        assert state(zoo) == {"first": "unloaded", "second": "ready", "third": "ready"}
