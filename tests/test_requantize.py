"""Packing the weights of a model that runs."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Type

import bestiary
from bestiary.errors import OptionError
from bestiary.generation.engine.events import Ended
from bestiary.testing.settled import settled
from bestiary_quant.calibration.collector import Collector
from bestiary_quant.making.pack import pack

PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def loaded(**options: object) -> Any:
    return bestiary.load("demo", dtype="float32", progress=False, **options)


def test_a_model_packed_anew_is_the_one_that_is_loaded_so() -> None:
    with loaded() as plain, loaded(quant="q8_0") as packed:
        tokens = plain.tokenize(PROMPT)
        before, due, size = plain.score(tokens), packed.score(tokens), plain.nbytes
        made = plain.requantize("q8_0")
        assert {packing.scheme for packing in made.values()} == {"q8_0"}
        assert torch.equal(plain.score(tokens), due) and plain.nbytes < size
        plain.requantize()
        assert torch.equal(plain.score(tokens), before) and plain.nbytes == size


LONG = "Once there was a model, and it was asked the same thing twice. " * 4
GREEDY = {"max_tokens": 40, "ignore_eos": True, "temperature": 0, "logprobs": 1}


def test_what_other_weights_computed_is_no_beginning_of_what_is_asked_now() -> None:
    with loaded() as pipe, loaded(quant="q4_0") as other:
        pipe.generate(LONG, **GREEDY)
        settled(pipe)
        pipe.requantize("q4_0")
        again, due = pipe.generate(LONG, **GREEDY), other.generate(LONG, **GREEDY)
        assert settled(pipe).totals.reused_tokens == 0
        assert again.tokens == due.tokens
        for found, wanted in zip(again.logprobs, due.logprobs, strict=True):
            assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4)
        pipe.generate(LONG, **GREEDY)
        assert settled(pipe).totals.reused_tokens >= 16


def test_requests_that_run_wait_and_go_on() -> None:
    with loaded() as pipe:
        begun, events = threading.Event(), list[object]()
        pipe.subscribe(events.append)

        def read() -> None:
            for _ in pipe.stream(LONG, max_tokens=400, ignore_eos=True, temperature=0):
                begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(60)
        pipe.requantize("q8_0")
        reader.join(240)
        assert not reader.is_alive() and settled(pipe)
        (ended,) = (event for event in events if isinstance(event, Ended))
        # What it had computed was given up, and computed once more by the new weights.
        assert ended.preemptions == 1 and ended.completion_tokens == 400


def test_nothing_changes_where_the_request_is_refused() -> None:
    with loaded() as pipe:
        tokens = pipe.tokenize(PROMPT)
        before = pipe.score(tokens)
        with pytest.raises(bestiary.BestiaryError, match="q5x"):
            pipe.requantize("q5x")
        with pytest.raises(OptionError, match="no experts"):
            pipe.requantize("q4k", organization="moqe")
        assert torch.equal(pipe.score(tokens), before)


def test_a_gguf_source_is_packed_otherwise(shared_data: Path) -> None:
    path = shared_data / "weights/stories260K/gguf/stories260K-f16.gguf"
    with bestiary.load(str(path), dtype="float32", quant="q8_0", progress=False) as pipe:
        packed = pipe.model.model.layers[0].self_attn.q_proj.packed
        assert packed is not None and packed.kind.name == Type.Q8_0.name
        pipe.requantize("q4_0")
        assert pipe.model.model.layers[0].self_attn.q_proj.packed.kind.name == Type.Q4_0.name


def test_live_traffic_shows_what_matters() -> None:
    with loaded() as pipe:
        collector = Collector(pipe.model)
        collector.start()
        for question in ("What is 27 + 45?", "What is the capital of France?", "Count from 3 to 9."):
            pipe.chat(question, max_tokens=24)
        status = collector.status()
        assert status.collecting and status.seen == status.weights == 43 and status.least > 30
        collector.stop()
        pipe.chat("Hello!", max_tokens=8)
        assert collector.status().most == status.most
        importance = collector.snapshot()
        made = pipe.requantize("q4_0", imatrix=importance)
        assert made["model.layers.0.mlp.up_proj.weight"].scheme == "q4_0"
        weighed = pipe.model.model.layers[0].mlp.up_proj.packed.data
        due = importance.mean("model.layers.0.mlp.up_proj.weight")
        with loaded() as plain:
            source = plain.model.model.layers[0].mlp.up_proj.weight
            assert torch.equal(weighed, pack(source.bfloat16(), "q4_0", due).data)


def test_a_packing_that_fails_on_its_way_leaves_the_model_as_its_files_have_it(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Too short.")
    with loaded() as pipe:
        tokens = pipe.tokenize(PROMPT)
        before = pipe.score(tokens)
        pipe.requantize("q4_0")
        with pytest.raises(OptionError, match="at least 64"):
            pipe.requantize("q4k", calibration_file=str(short))
        assert torch.equal(pipe.score(tokens), before)
        assert pipe.generate("The", max_tokens=4).tokens
