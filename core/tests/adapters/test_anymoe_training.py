"""Gates learn which expert is for which prompt, and nothing else learns; their files are those of mistral.rs."""

from __future__ import annotations

import copy
import csv
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.adapters.anymoe import AnyMoeModel, Gate
from bestiary.adapters.anymoe_attach import attach_anymoe, make_anymoe
from bestiary.adapters.anymoe_config import AnyMoeConfig, FineTuned, LoraExperts, Row, read_rows
from bestiary.adapters.anymoe_gates import load_gates, save_gates
from bestiary.adapters.anymoe_training import gate_loss, train_gates
from bestiary.errors import CheckpointError, ConfigError, GenerationError, OptionError, WeightMismatch
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.records import Progress
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder
from bestiary.testing.reference import make_reference

CONFIG = AnyMoeConfig(64, "rows.json", "model.layers", "mlp", ("one",), FineTuned(), epochs=12, lr=0.01)
REST: dict[str, Any] = {"dtype": torch.float32, "context_length": 64}


def encode(prompt: str) -> list[int]:
    return [int(number) for number in prompt.split()]


def rows(count: int, seed: int) -> list[Row]:
    """Prompts of low and of high numbers, for the model itself and for expert 1."""
    dice = random.Random(seed)
    made = []
    for place in range(count):
        low = 3 + 6 * (place % 2)
        numbers = [dice.randrange(low, low + 6) for _ in range(dice.randint(4, 12))]
        made.append(Row(" ".join(map(str, numbers)), place % 2))
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, case_of: Callable) -> Folder:
    folder = tmp_path_factory.mktemp("other")
    make_reference(case_of("llama").reference.model.config.to_dict(), folder, seed=1)
    return Folder(folder, "other")


@pytest.fixture
def model_of(case_of: Callable, other: Folder) -> Callable[..., AnyMoeModel]:
    def make(begun: bool = True, **changes: Any) -> AnyMoeModel:
        """With gates of random numbers, as if they had begun to learn, or of zeros."""
        case, source = case_of("llama"), torch.Generator().manual_seed(0)
        base = replace(case.base, model=copy.deepcopy(case.model))
        model = attach_anymoe(base, replace(CONFIG, **changes), [other], default_registry())
        with torch.no_grad():
            for parameter in (parameter for gate in model.gates.values() for parameter in gate.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=source) * 0.1 * begun)
        return model

    return make


def test_gradients_are_those_of_the_formula() -> None:
    """In numpy: p = softmax(W x + b), m = mean of p over a sequence, L = mean of -log m[y]."""
    random, counts, labels = torch.Generator().manual_seed(0), [5, 1, 8], [2, 0, 1]
    gate = Gate(6, 3)
    for parameter in gate.parameters():
        parameter.requires_grad_(True)
        parameter.data.normal_(generator=random)
    x = torch.randn(sum(counts), 6, generator=random)
    loss = gate_loss(gate, x, counts, torch.tensor(labels))
    loss.backward()
    z = (x @ gate.weight.T + gate.bias).detach().double().numpy()
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    expected, slopes, start = 0.0, np.zeros_like(p), 0
    for count, label in zip(counts, labels, strict=True):
        part = slice(start, start + count)
        start += count
        mean = p[part].mean(0)[label]
        expected -= np.log(mean) / len(counts)
        own = np.eye(3)[label] - p[part]
        slopes[part] = -p[part][:, label : label + 1] * own / (count * mean * len(counts))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert gate.weight.grad is not None
    assert gate.bias.grad is not None
    np.testing.assert_allclose(gate.weight.grad.numpy(), slopes.T @ x.double().numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gate.bias.grad.numpy(), slopes.sum(0), rtol=1e-5, atol=1e-7)


def test_it_learns_and_chooses_right_on_prompts_it_has_not_seen(model_of: Callable, tmp_path: Path) -> None:
    model = model_of(begun=False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    events: list[Progress] = []
    path = tmp_path / "loss.csv"
    training = train_gates(
        model, rows(24, 0), encode, replace(CONFIG, loss_csv_path=str(path)), **REST, progress=events.append
    )
    assert len(training.losses) == 12 * 6 == len(events)
    assert (events[-1].done, events[-1].total) == (72, 72)
    for gate in range(3):
        assert training.losses[0][gate] == pytest.approx(math.log(2))
        assert training.final[gate] < 0.2
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {
        f"base.model.layers.{layer}.mlp.gate.{leaf}" for layer in range(3) for leaf in ("weight", "bias")
    }
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert [chosen(model, row) for row in rows(20, 1)] == [[row.expert] * 3 for row in rows(20, 1)]
    with path.open() as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["Step", "Gating layer 0", "Gating layer 1", "Gating layer 2"]
    assert lines[1:] == [
        [f"Step {step}", *(f"{loss:.4f}" for loss in losses)] for step, losses in enumerate(training.losses)
    ]


def chosen(model: AnyMoeModel, row: Row) -> list[int]:
    """The expert of a prompt's last token in each layer."""
    found: list[int] = []
    hooks = [
        expert.register_forward_pre_hook(lambda module, inputs, number=number: found.append(number))
        for block in model.blocks.values()
        for number, expert in enumerate(block.experts)
    ]
    tokens, cache = encode(row.prompt), SequenceCache(len(model.specs))
    with torch.inference_mode():
        model(torch.tensor(tokens[:-1]), make_batch([cache], [len(tokens) - 1], "cpu"))
        found.clear()
        model(torch.tensor(tokens[-1:]), make_batch([cache], [1], "cpu"))
    for hook in hooks:
        hook.remove()
    return found


def test_a_training_can_be_repeated(model_of: Callable) -> None:
    runs = [train_gates(model_of(), rows(8, 0), encode, replace(CONFIG, epochs=2), **REST) for _ in range(2)]
    other = train_gates(model_of(), rows(8, 0), encode, replace(CONFIG, epochs=2), **REST, seed=1)
    assert runs[0] == runs[1] != other


def test_batches_are_rows_beside_each_other(model_of: Callable) -> None:
    """Prompts of several lengths in a batch give the mean of what each gives alone: nothing is padded."""
    given = rows(4, 0)
    config = replace(CONFIG, epochs=1)
    alone = [train_gates(model_of(), [row], encode, config, **REST).losses[0] for row in given]
    together = train_gates(model_of(), given, encode, config, **REST).losses[0]
    np.testing.assert_allclose(together, np.mean(alone, 0), rtol=1e-5)


def test_losses_that_are_not_finite_stop_it(model_of: Callable) -> None:
    model = model_of()
    with torch.no_grad():
        model.gates[1].weight[0, 0] = float("nan")
    with pytest.raises(GenerationError, match="At step 0 the loss of the gate in layer 1 is nan"):
        train_gates(model, rows(4, 0), encode, CONFIG, **REST)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_whoever_watches_can_stop_it(model_of: Callable) -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    model = model_of()
    with pytest.raises(KeyboardInterrupt):
        train_gates(model, rows(4, 0), encode, CONFIG, **REST, progress=stop)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("prompt", "expert", "message"),
    [
        ("", 0, "0 tokens"),
        ("5 " * 65, 0, "65 tokens; 1 to 64"),
        ("5 131", 0, "from 5 to 131; 130 is the last"),
        ("5 -1", 0, "from -1 to 5"),
        ("5", 2, "expert 2 of 2"),
    ],
)
def test_rows_that_the_model_cannot_read(prompt: str, expert: int, message: str, model_of: Callable) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        train_gates(model_of(), [Row("5 6", 1), Row(prompt, expert)], encode, CONFIG, **REST)
    assert caught.value.where == "row 1"


def test_losses_that_cannot_be_written_stop_it_at_once(model_of: Callable, tmp_path: Path) -> None:
    config = replace(CONFIG, loss_csv_path=str(tmp_path / "absent/loss.csv"))
    with pytest.raises(OptionError, match="cannot be written"):
        train_gates(model_of(), rows(2, 0), encode, config, **REST)


def test_a_model_is_made_with_training_and_again_without(case_of: Callable, other: Folder, tmp_path: Path) -> None:
    case, dataset, gates = case_of("llama"), tmp_path / "rows.json", tmp_path / "gates"
    dataset.write_text(json.dumps({"rows": [{"prompt": row.prompt, "expert": row.expert} for row in rows(8, 0)]}))
    config = replace(CONFIG, dataset_json=str(dataset), gate_model_id=str(gates), epochs=4)
    again = replace(config, training=False, dataset_json=None)
    made, opened = [], []

    def open_(id: str) -> Folder:
        opened.append(id)
        return other if id == "one" else Folder(Path(id), id)

    for each in (config, again):
        base = replace(case.base, model=copy.deepcopy(case.model))
        made.append(make_anymoe(base, each, open_, default_registry(), encode, 64))
    assert opened == ["one", str(gates), "one"]
    tokens = torch.tensor(encode(rows(2, 3)[1].prompt))
    batches = [make_batch([SequenceCache(len(model.specs))], [len(tokens)], "cpu") for model in made]
    with torch.inference_mode():
        first, second = (model(tokens, batch) for model, batch in zip(made, batches, strict=True))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], case.logits([tokens.tolist()])[0][-1]), "the experts do nothing"
    dataset.write_text('{"rows": []}')
    with pytest.raises(ConfigError):
        make_anymoe(replace(case.base, model=copy.deepcopy(case.model)), config, open_, default_registry(), encode, 64)
    assert len(opened) == 3, "experts were fetched for a dataset that is no good"


# Files of gates


def test_gates_are_saved_and_loaded(model_of: Callable, tmp_path: Path) -> None:
    model = model_of(layers=(0, 2))
    file = save_gates(model, tmp_path / "new/gates")
    assert file == tmp_path / "new/gates/gate.safetensors"
    assert {name: list(tensor.shape) for name, tensor in load_file(file).items()} == {
        f"moe_gate.{layer}.{leaf}": shape for layer in (0, 2) for leaf, shape in (("weight", [2, 64]), ("bias", [2]))
    }
    again = model_of(layers=(2, 0))
    with torch.no_grad():
        for gate in again.gates.values():
            gate.weight.zero_()
            gate.bias.zero_()
    load_gates(again, Folder(tmp_path / "new/gates", "x"))
    for layer in (0, 2):
        assert torch.equal(again.gates[layer].weight, model.gates[layer].weight)
        assert torch.equal(again.gates[layer].bias, model.gates[layer].bias)
    assert [file.name for file in (tmp_path / "new/gates").iterdir()] == ["gate.safetensors"]


def test_gates_of_something_else_are_refused(model_of: Callable, tmp_path: Path) -> None:
    model = model_of()
    tensors = load_file(save_gates(model, tmp_path))
    with pytest.raises(WeightMismatch, match=r"layers \[0, 1, 2\]; the model's are \[1\]"):
        load_gates(model_of(layers=(1,)), Folder(tmp_path, "x"))
    for name, tensor, error, message in (
        ("moe_gate.1.weight", torch.ones(3, 64), WeightMismatch, r"for 2 experts it would be \[2, 64\]"),
        ("moe_gate.1.weight", torch.full((2, 64), torch.inf), CheckpointError, "finite"),
        ("moe_gate.1.bias", torch.ones(2, dtype=torch.int32), CheckpointError, "floating-point"),
        ("moe_gate.7.bias", torch.ones(2), WeightMismatch, "no gate of it"),
    ):
        save_file({**tensors, name: tensor}, tmp_path / "gate.safetensors")
        with pytest.raises(error, match=message):
            load_gates(model, Folder(tmp_path, "x"))
    (tmp_path / "gate.safetensors").rename(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"no gate\.safetensors among 2"):
        load_gates(model, Folder(tmp_path, "x"))
    with pytest.raises(OptionError, match="cannot be saved"):
        save_gates(model, tmp_path / "a.safetensors")


# Configurations and datasets


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 0},
        {"hidden_size": True},
        {"model_ids": ()},
        {"model_ids": ("a",) * 64},
        {"model_ids": ["a"]},
        {"prefix": ""},
        {"expert_type": "fine_tuned"},
        {"layers": (1, 1)},
        {"layers": (-1,)},
        {"lr": float("nan")},
        {"lr": -1.0},
        {"epochs": 0},
        {"epochs": 10**9},
        {"batch_size": 0},
        {"training": 1},
        {"dataset_json": None},
        {"training": False},
        {"loss_csv_path": "loss.txt"},
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        replace(CONFIG, **change)


@pytest.mark.parametrize("given", [(0, 1.0, ("a",)), (4, float("inf"), ("a",)), (4, 1.0, ()), (4, 1.0, "gate_proj")])
def test_lora_experts_that_are_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(OptionError):
        LoraExperts(*given)


def test_a_dataset_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps({"rows": [{"prompt": "a", "expert": 1, "image_urls": None}, {"prompt": "b", "expert": 0}]})
    )
    assert read_rows(path, 2) == (Row("a", 1), Row("b", 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "an object is due"),
        ("{}", "a list of rows is due"),
        ('{"rows": []}', "a list of rows is due"),
        ('{"rows": [1]}', "an object is due"),
        ('{"rows": [{"prompt": "a", "expert": 0}, {"prompt": "a", "expert": 2}]}', "there are experts 0 to 1"),
        ('{"rows": [{"prompt": "a", "expert": -1}]}', "there are experts 0 to 1"),
        ('{"rows": [{"prompt": "a", "expert": true}]}', "there are experts 0 to 1"),
        ('{"rows": [{"prompt": "a", "expert": 1e999}]}', "there are experts 0 to 1"),
        ('{"rows": [{"prompt": "a"}]}', "there are experts 0 to 1"),
        ('{"rows": [{"prompt": "", "expert": 0}]}', "a text of at most"),
        ('{"rows": [{"prompt": 3, "expert": 0}]}', "a text of at most"),
        ('{"rows": [{"prompt": "a", "exprt": 0}]}', "means nothing"),
        ('{"rows": [{"prompt": "a", "expert": 0, "image_urls": ["a.png"]}]}', "images"),
    ],
)
def test_datasets_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_rows(path, 2)


def test_large_datasets_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": [{}] * 100_001}))
    with pytest.raises(ConfigError, match="100001 rows"):
        read_rows(path, 2)
    path.write_text(json.dumps({"rows": [{"prompt": "a" * ((1 << 20) + 1), "expert": 0}]}))
    with pytest.raises(ConfigError, match="a text of at most"):
        read_rows(path, 2)
    with path.open("r+b") as file:
        file.truncate(65 << 20)
    with pytest.raises(ConfigError, match="64 MB"):
        read_rows(path, 2)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rows(tmp_path / "absent.json", 2)
