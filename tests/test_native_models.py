"""Every family with native kernels: close to plain torch, and what is replayed bit for bit what it is without."""

from pathlib import Path

import pytest
import torch

from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.runner import ModelRunner
from bestiary.generation.engine.sequence import Plan, Sequence, Work
from bestiary.identified import identify_model
from bestiary.kernels import wish
from bestiary.loading import LoadedModel, load_weights
from bestiary.nn import CausalLM
from bestiary.nn.operations import PLAIN
from bestiary.records import Architecture, PackingRequest, SourceOptions, resolve
from bestiary.registry import default_registry
from bestiary.testing.native import need_native_kernels
from bestiary.testing.reference import make_reference

need_native_kernels()

REGISTRY = default_registry()
CASES = [
    pytest.param(config, id=f"{record.name}-{index}")
    for record, _ in REGISTRY.records(Architecture)
    if record.tiny and record.task == "text"
    for index, config in enumerate(resolve(record.tiny)[:2])
]
LENGTHS = (3, 19)
STEPS = 4


@pytest.fixture(scope="module", params=CASES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    make_reference(request.param, made)
    return made


def loaded(folder: Path, kernels: str, quant: str | None = None, dtype: str = "float32") -> LoadedModel:
    identified = identify_model(str(folder), SourceOptions(offline=True), REGISTRY)
    packing, wished = PackingRequest(quant), wish(kernels, REGISTRY)
    return load_weights(identified, REGISTRY, dtype=dtype, device="cpu", packing=packing, wished=wished)


def run(loaded: LoadedModel, *, replay: bool) -> tuple[list[torch.Tensor], bool]:
    """The logits of each step: two prompts together, then tokens that do not depend on them; and whether it replays."""
    model = loaded.model
    assert isinstance(model, CausalLM)
    cache = PagedCache(
        model.specs,
        512,
        16,
        sequences=4,
        step_tokens=64,
        dtype=loaded.dtype,
        device=loaded.device,
        operations=loaded.operations or PLAIN,
    )
    random = torch.Generator().manual_seed(0)
    runner, sequences = ModelRunner(model, cache, replay=replay), []
    for number, length in enumerate(LENGTHS):
        tokens = torch.randint(3, model.vocab_size, (length + STEPS,), generator=random).tolist()
        sequence = Sequence(tokens, length)
        sequence.tables = [
            [number] if group.recurrent else list(range(4 * number, 4 * number + 4)) for group in cache.groups
        ]
        sequences.append(sequence)
    made = [runner.run(Plan([Work(each, 0, length) for each, length in zip(sequences, LENGTHS, strict=True)])).logits]
    for step in range(STEPS):
        work = [Work(each, length + step, 1) for each, length in zip(sequences, LENGTHS, strict=True)]
        made.append(runner.run(Plan(work)).logits.clone())
    graphs = runner._graphs
    return made, graphs is not None and graphs.most > 0 and bool(graphs._recorded)


def error(made: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(made, expected, strict=True))


def test_plain_weights_give_what_torch_gives(folder: Path) -> None:
    expected, replayed = run(loaded(folder, "off"), replay=True)
    assert not replayed
    made, replayed = run(loaded(folder, "native"), replay=True)
    assert replayed, "this family's steps cannot be recorded"
    assert error(made, expected) < 1e-5


@pytest.mark.parametrize(("quant", "dtype"), [(None, "float32"), (None, "bfloat16"), ("q8_0", "bfloat16")])
def test_replayed_steps_are_the_same_bits(folder: Path, quant: str | None, dtype: str) -> None:
    model = loaded(folder, "native", quant, dtype)
    eager, _ = run(model, replay=False)
    replayed, really = run(model, replay=True)
    assert really
    assert all(torch.equal(a, b) for a, b in zip(eager, replayed, strict=True))


def test_packed_weights_are_close_to_what_torch_gives(folder: Path) -> None:
    expected, _ = run(loaded(folder, "off", "q8_0"), replay=True)
    made, _ = run(loaded(folder, "check,native", "q8_0"), replay=True)
    assert error(made, expected) < 0.1  # activations are int8
