"""Building: an empty model, the exact comparison with a checkpoint, and the pull of its weights."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bestiary
from bestiary.building import build_empty, fold, make_plan, nbytes
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.config import Config, normalise
from bestiary.errors import InvalidPlugin, WeightMismatch
from bestiary.nn import Embedding, Linear, RMSNorm, Rope
from bestiary.protocols import Checkpoint
from bestiary.pulling import Alike, Puller, pull, sites
from bestiary.records import Architecture, Packing, Progress

VOCABULARY, DIM, LAYERS = 11, 8, 12
RULES = (bestiary.drop("**.unused"), bestiary.tie("lm_head.weight", "embed.weight"))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = RMSNorm(DIM), Linear(DIM, 2 * DIM, bias=True), Linear(2 * DIM, DIM)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lm_head = Embedding(VOCABULARY, DIM), Linear(DIM, VOCABULARY)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.rope = Rope(DIM, {"rope_theta": 10000.0})
        self.register_buffer("counts", torch.arange(3, device="cpu"))


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> Architecture:
    module = ModuleType("a_models_module")
    module.build = lambda config: Network()  # type: ignore[attr-defined]
    module.broken = lambda config: {"not": "a module"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_models_module", module)
    return Architecture("NetworkForCausalLM", "text", "a_models_module:build", RULES)


def tensors(tied: bool = False) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    made = {name: torch.randn(value.shape, generator=random) for name, value in Network().named_parameters()}
    if tied:
        del made["lm_head.weight"]
    return made


@pytest.fixture
def saved(tmp_path: Path, folder_repository: Callable[[Path], Any]) -> Iterator[Callable[..., Checkpoint]]:
    """Writes tensors to a real file and opens it."""
    opened: list[Checkpoint] = []

    def save(made: dict[str, torch.Tensor]) -> Checkpoint:
        save_file(made, tmp_path / "model.safetensors")
        opened.append(safetensors_checkpoint.open(folder_repository(tmp_path), ["model.safetensors"]))
        return opened[-1]

    yield save
    for checkpoint in opened:
        checkpoint.close()


def config(**values: Any) -> Config:
    return normalise(values, "here")


def loaded(architecture: Architecture, checkpoint: Checkpoint, settings: Config, **options: Any) -> nn.Module:
    model = build_empty(architecture, settings)
    made = make_plan(architecture, settings, model, checkpoint)
    pull(Puller(model, made, checkpoint, **{"device": torch.device("cpu"), "dtype": torch.float32, **options}))
    return model


# The empty model


def test_an_empty_model_has_shapes_and_no_data(architecture: Architecture) -> None:
    model = build_empty(architecture, config())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not model.training


def test_a_build_that_returns_no_module_is_named(architecture: Architecture) -> None:
    broken = Architecture("Broken", "text", "a_models_module:broken")
    with pytest.raises(InvalidPlugin, match=r"a_models_module:broken returned a dict"):
        build_empty(broken, config())


def test_a_buffer_without_data_is_named(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(settings: Config) -> nn.Module:
        network = Network()
        network.layers[3].register_buffer("angles", torch.arange(3.0))
        return network

    monkeypatch.setattr(sys.modules["a_models_module"], "build", build)
    with pytest.raises(InvalidPlugin, match=r"a_models_module:build .* buffer layers\.3\.angles"):
        build_empty(architecture, config())


@pytest.mark.parametrize("dtype, size", [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_are_counted_before_any_is_taken(architecture: Architecture, dtype: torch.dtype, size: int) -> None:
    count = 2 * VOCABULARY * DIM + LAYERS * (DIM + 2 * DIM * DIM + 2 * DIM + 2 * DIM * DIM)
    assert nbytes(build_empty(architecture, config()), dtype) == size * count


# The comparison


def test_every_difference_is_listed_at_once(architecture: Architecture, saved: Callable[..., Checkpoint]) -> None:
    made = tensors()
    for layer in range(LAYERS):
        made[f"layers.{layer}.upp.weight"] = made.pop(f"layers.{layer}.up.weight")
    for layer in (0, 1, 2, 5):
        made[f"layers.{layer}.norm.weight"] = torch.zeros(DIM + 1)
    del made["embed.weight"]
    made["spare"] = torch.zeros(2)
    model = build_empty(architecture, config())
    checkpoint = saved(made)
    with pytest.raises(WeightMismatch) as found:
        make_plan(architecture, config(), model, checkpoint)
    error = found.value
    assert set(error.missing) == {"embed.weight", *(f"layers.{layer}.up.weight" for layer in range(LAYERS))}
    assert set(error.unexpected) == {"spare", *(f"layers.{layer}.upp.weight" for layer in range(LAYERS))}
    assert error.misshaped == {f"layers.{layer}.norm.weight": ((DIM + 1,), (DIM,)) for layer in (0, 1, 2, 5)}
    assert error.where == checkpoint.origin
    lines = error.what.splitlines()
    assert lines[0] == "The checkpoint does not fit NetworkForCausalLM:"
    assert "  missing    layers.{0-11}.up.weight (12 tensors); nearest: layers.0.upp.weight" in lines
    assert "  missing    embed.weight" in lines
    assert "  unexpected spare" in lines
    assert f"  misshaped  layers.{{0-2,5}}.norm.weight: is [{DIM + 1}], should be [{DIM}]" in lines
    assert len(lines) == 6


def test_an_incomplete_file_says_so(architecture: Architecture, saved: Callable[..., Checkpoint]) -> None:
    made = tensors()
    del made["layers.3.down.weight"]
    with pytest.raises(WeightMismatch) as found:
        make_plan(architecture, config(), build_empty(architecture, config()), saved(made))
    assert found.value.missing == ("layers.3.down.weight",) and "incomplete" in str(found.value.fix)


def test_a_long_list_is_cut_and_the_error_still_has_all(
    architecture: Architecture, saved: Callable[..., Checkpoint]
) -> None:
    names = [f"{first}{second}.weight" for first in "abcdefgh" for second in "abcdefgh"]
    made = {**tensors(), **{name: torch.zeros(1) for name in names}}
    with pytest.raises(WeightMismatch) as found:
        make_plan(architecture, config(), build_empty(architecture, config()), saved(made))
    assert sorted(found.value.unexpected) == names
    assert len(found.value.what.splitlines()) == 41
    assert found.value.what.splitlines()[-1] == "  and 25 more"


def test_an_untied_model_needs_its_own_head(architecture: Architecture, saved: Callable[..., Checkpoint]) -> None:
    model = build_empty(architecture, config())
    with pytest.raises(WeightMismatch) as found:
        make_plan(architecture, config(tie_word_embeddings=False), model, saved(tensors(tied=True)))
    assert found.value.missing == ("lm_head.weight",)


@pytest.mark.parametrize(
    "names, folded",
    [
        (["a.0.w", "a.1.w", "a.2.w"], [("a.{0-2}.w", 3)]),
        (["a.0.w", "a.2.w", "a.3.w", "a.10.w"], [("a.{0,2-3,10}.w", 4)]),
        (["a.7.w"], [("a.7.w", 1)]),
        (["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w", "l.1.e.1.w"], [("l.{0-1}.e.{0-1}.w", 4)]),
        (["a.0.w", "b", "a.1.w"], [("a.{0-1}.w", 2), ("b", 1)]),
        (["l.0.w1", "l.1.w1"], [("l.{0-1}.w1", 2)]),
        (["12"], [("12", 1)]),
        (["1²2", "3²2"], [("{1,3}²2", 2)]),
        ([], []),
    ],
)
def test_names_that_differ_by_numbers_are_folded(names: list[str], folded: list[tuple[str, int]]) -> None:
    assert [(name, len(members)) for name, members in fold(names)] == folded


def test_a_name_with_thousands_of_digits_can_be_listed() -> None:
    names = ["a." + "9" * 5000, "a." + "9" * 4999 + "8", "a.1"]
    assert [name for _, members in fold(names) for name in members] == names


# The pull


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_parameter_is_the_stored_one_in_the_type_that_was_asked(
    architecture: Architecture, saved: Callable[..., Checkpoint], dtype: torch.dtype
) -> None:
    made = tensors()
    model = loaded(architecture, saved(made), config(), dtype=dtype)
    assert {name for name, _ in model.named_parameters()} == set(made)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype and not parameter.requires_grad
        assert torch.equal(parameter, made[name].to(dtype)), name


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_stored_types_are_converted(
    architecture: Architecture, saved: Callable[..., Checkpoint], stored: torch.dtype
) -> None:
    made = {name: tensor.to(stored) for name, tensor in tensors().items()}
    model = loaded(architecture, saved(made), config())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, made[name].float()), name


def test_nothing_is_left_on_the_meta_device(architecture: Architecture, saved: Callable[..., Checkpoint]) -> None:
    model = loaded(architecture, saved(tensors()), config())
    placed = (*model.parameters(), *model.buffers())
    assert {tensor.device.type for tensor in placed} == {"cpu"}
    assert torch.equal(model.counts, torch.arange(3))
    assert torch.equal(model.rope.frequencies, Rope(DIM, {"rope_theta": 10000.0}).frequencies)


def test_what_was_pulled_stays_when_the_file_is_closed(
    architecture: Architecture, saved: Callable[..., Checkpoint]
) -> None:
    made, checkpoint = tensors(), saved(tensors())
    model = loaded(architecture, checkpoint, config())
    checkpoint.release()
    checkpoint.close()
    assert all(torch.equal(parameter, made[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("own_head", [False, True])
def test_tied_parameters_share_their_storage(
    architecture: Architecture, saved: Callable[..., Checkpoint], own_head: bool
) -> None:
    made = tensors(tied=not own_head)
    model = loaded(architecture, saved(made), config(tie_word_embeddings=True))
    assert model.lm_head.weight is model.embed.weight
    assert torch.equal(model.embed.weight, made["embed.weight"])
    assert nbytes(model, torch.float32) == sum(
        4 * tensor.numel() for name, tensor in made.items() if name != "lm_head.weight"
    )


def test_a_model_that_ties_itself_needs_no_rule(
    monkeypatch: pytest.MonkeyPatch, architecture: Architecture, saved: Callable[..., Checkpoint]
) -> None:
    def build(settings: Config) -> nn.Module:
        network = Network()
        network.lm_head.weight = network.embed.weight
        return network

    monkeypatch.setattr(sys.modules["a_models_module"], "build", build)
    made = tensors(tied=True)
    model = loaded(architecture, saved(made), config())
    assert torch.equal(model.embed.weight, made["embed.weight"])
    assert model.lm_head.weight is model.embed.weight


class Halved:
    """A packed weight that only remembers what it got."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.shape, self.nbytes, self.weight = (weight.shape[0], weight.shape[1]), weight.nbytes, weight.clone()

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.weight.to(dtype)

    def rows(self, index: slice | torch.Tensor) -> "Halved":
        return Halved(self.weight[index])

    def to(self, device: torch.device | str) -> "Halved":
        return Halved(self.weight.to(device))


def test_packing_reaches_what_is_assigned_alone(architecture: Architecture, saved: Callable[..., Checkpoint]) -> None:
    made = tensors()
    checkpoint, model = saved(made), build_empty(architecture, config())
    plan = make_plan(architecture, config(), model, checkpoint)
    found = {site.name: site.role for site in sites(model, plan, checkpoint)}
    names = {f"layers.{layer}.{part}.weight" for layer in range(LAYERS) for part in ("up", "down")}
    assert found == {**dict.fromkeys(names, "linear"), "lm_head.weight": "head", "embed.weight": "embedding"}

    def pack(tensor: torch.Tensor) -> Halved | None:
        return None if torch.equal(tensor, made["lm_head.weight"]) else Halved(tensor)

    packing = Alike({name: Packing("halved", 0) for name in (*names, "lm_head.weight")}, pack)
    pull(Puller(model, plan, checkpoint, device=torch.device("cpu"), dtype=torch.float32), packing)
    assert {name for name, _ in model.named_parameters()} == set(made) - names
    assert torch.equal(model.layers[3].up.packed.weight, made["layers.3.up.weight"])
    assert torch.equal(model.lm_head.weight, made["lm_head.weight"])


def test_progress_counts_the_bytes_of_the_file_and_ends_at_the_total(
    architecture: Architecture, saved: Callable[..., Checkpoint]
) -> None:
    events: list[Progress] = []
    made = tensors()
    loaded(architecture, saved(made), config(), progress=events.append)
    total = sum(tensor.nbytes for tensor in made.values())
    assert [event.item for event in events] and {event.total for event in events} == {total}
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == total and {event.stage for event in events} == {"load"}
    assert {event.item for event in events} == set(made)
