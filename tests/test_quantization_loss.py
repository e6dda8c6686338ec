"""What packing costs a trained model: the fewer bits, the farther from its own answers, and a text that shows what
matters brings it nearer."""

import importlib.util
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import bestiary
from bestiary_quant.calibration.text import collect_text

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TEXTS = BENCHMARKS / "texts"
ORDER = ("q8_0", "q6k", "q5k", "q4k", "q3k", "q2k")
"""Of the packaged model only `down_proj` has rows of 256 numbers; the other weights get what llama.cpp gives such rows:
q8_0 for q6k, q5_1 for q5k, q5_0 for q4k, q4_0 for q3k and q2k."""


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bestiary_benchmark_losses", BENCHMARKS / "losses.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(losses: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """By scheme, and by scheme with importance, over the answers of a hundred conversations that were held out."""
    lines = (TEXTS / "conversations.jsonl").read_text().splitlines()[:100]
    text = tmp_path_factory.mktemp("text") / "some.jsonl"
    text.write_text("\n".join(lines))

    def loss(wanted: Any, plain: Any, **options: Any) -> dict[str, float]:
        with bestiary.load("demo", **{"dtype": "float32", "progress": False, "cache_tokens": 1024, **options}) as pipe:
            losses.spread(pipe.model)
            return losses.losses(pipe, wanted, plain)  # type: ignore[no-any-return]

    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        wanted = losses.sequences(pipe, text)
        plain = list(losses.logprobs(pipe, wanted))
        shown = pipe.tokenizer.encode((TEXTS / "calibration_conversations.txt").read_text())
        importance = collect_text(pipe.model, shown, chunks=16)
    made = {"bfloat16": loss(wanted, plain, dtype="bfloat16")}
    for scheme in ORDER:
        made[scheme] = loss(wanted, plain, quant=scheme)
    for scheme in ("q4k", "q2k", "q4_0"):
        made[f"{scheme} weighed"] = loss(wanted, plain, quant=scheme, imatrix=importance)
    made["q4_0"] = loss(wanted, plain, quant="q4_0")
    return made


def test_eight_bits_lose_nothing(measured: dict[str, dict[str, float]]) -> None:
    assert measured["q8_0"]["perplexity"] == pytest.approx(measured["bfloat16"]["perplexity"], rel=0.002)
    assert measured["q8_0"]["kl"] < 1e-4 and measured["q8_0"]["same"] > 0.999


def test_fewer_bits_lose_more(measured: dict[str, dict[str, float]]) -> None:
    kl = [measured[scheme]["kl"] for scheme in ORDER]
    assert kl == sorted(kl) and kl[-1] > 10 * kl[0]
    found = [measured[scheme]["perplexity"] for scheme in ("bfloat16", *ORDER)]
    for better, worse in pairwise(found):
        assert better <= worse * 1.001  # some thousand tokens tell no less


@pytest.mark.parametrize("scheme", ["q4k", "q2k", "q4_0"])
def test_importance_is_never_worse(scheme: str, measured: dict[str, dict[str, float]]) -> None:
    plain, weighed = measured[scheme], measured[f"{scheme} weighed"]
    assert weighed["perplexity"] <= plain["perplexity"] * 1.001
    if scheme != "q4k":  # which loses so little of this model's few sure answers that the rest is chance
        assert weighed["kl"] < plain["kl"]


@pytest.mark.parametrize("scheme", ["q4_0", "q5_0", "q4_1"])
def test_importance_helps_where_every_token_is_open(scheme: str, losses: ModuleType, shared_data: Path) -> None:
    """The story model, whose rows are of 64 numbers, on stories that it has not seen."""
    path = str(shared_data / "weights/stories260K/hf")
    with bestiary.load(path, dtype="float32", progress=False) as pipe:
        wanted = losses.sequences(pipe, TEXTS / "stories.txt")
        plain = list(losses.logprobs(pipe, wanted))
        importance = collect_text(pipe.model, pipe.tokenizer.encode((TEXTS / "calibration_stories.txt").read_text()))
    found = []
    for imatrix in (None, importance):
        with bestiary.load(path, dtype="float32", quant=scheme, imatrix=imatrix, progress=False) as pipe:
            losses.spread(pipe.model)
            found.append(losses.losses(pipe, wanted, plain))
    assert found[1]["kl"] < found[0]["kl"] and found[1]["perplexity"] < found[0]["perplexity"] * 1.001


def test_the_measure_is_the_command_s(losses: ModuleType) -> None:
    """Perplexity by the benchmark is that of `bestiary perplexity`."""
    from bestiary.generation.perplexity import answers_perplexity

    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        wanted = losses.sequences(pipe, TEXTS / "conversations.jsonl")[:10]
        *_, due = answers_perplexity(pipe.score, [(tokens[:before], tokens[before:]) for tokens, before in wanted])
        found = losses.losses(pipe, wanted, list(losses.logprobs(pipe, wanted)))
    assert found["perplexity"] == pytest.approx(due.value, rel=1e-6) and found["kl"] == pytest.approx(0, abs=1e-7)
    assert torch.isfinite(torch.tensor(list(found.values()))).all()
