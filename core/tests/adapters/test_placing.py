"""A change follows the weight plan: the plan's own result on the changed weight is the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bestiary.adapters.laying import Base, lay
from bestiary.adapters.names import Names
from bestiary.adapters.peft import LoraWeights, PeftAdapter
from bestiary.adapters.peft_config import PeftConfig
from bestiary.adapters.residency import Adapters
from bestiary.errors import WeightMismatch
from bestiary.nn import Embedding, Experts, Linear
from bestiary.weights import Rule, cat, drop, map, plan, rename, rows, split, stack, tie

INNER, RANK = 10, 3
SHAPES = {"q": (8, INNER), "k": (4, INNER), "v": (4, INNER), "qkv": (16, INNER), "ten": (10, INNER)}


def rotary(tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """The rows of two heads from pairs side by side to halves."""
    return tensor.view(2, len(tensor) // 4, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def scaled(tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Every row by a number of its own, some of them negative."""
    return tensor * torch.linspace(-2, 3, len(tensor), device=tensor.device).view(-1, *[1] * (tensor.ndim - 1))


RULES: dict[str, list[Rule]] = {
    "stored": [],
    "rename": [rename("*.weight", "layer.*.weight")],
    "split": [split("qkv.weight", "a.weight", "b.weight", "c.weight", sizes=lambda config: (8, 4, 4))],
    "split equally": [split("qkv.weight", "a.weight", "b.weight")],
    "cat": [cat("qkv2.weight", "q.weight", "k.weight", "v.weight")],
    "rotary": [rows("q.weight", rotary), rows("qkv.weight", rotary)],
    "scaled": [rows("*.weight", scaled)],
    "cat, then rows": [cat("all.weight", "q.weight", "k.weight", "v.weight"), rows("all.weight", rotary)],
    "rows, cat, rows, split": [
        rows("k.weight", rotary),
        cat("all.weight", "k.weight", "q.weight", "v.weight"),
        rows("all.weight", scaled),
        rows("all.weight", rotary),
        split("all.weight", "a.weight", "b.weight", sizes=lambda config: (3, 13)),
    ],
    "cats within cats": [cat("kv.weight", "k.weight", "v.weight"), cat("all.weight", "q.weight", "kv.weight")],
}


class Net(nn.Module):
    """Linear layers of any names, with biases, made from tensors by a plan."""

    def __init__(self, made: Any, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, recipe in made.recipes.items():
            weight = recipe.make(lambda source: tensors[source].clone())
            layer = Linear(weight.shape[1], weight.shape[0], bias=True)
            with torch.no_grad():
                layer.weight.copy_(weight)  # type: ignore[union-attr]
                layer.bias.copy_(torch.arange(len(weight)) / 7)
            owner: nn.Module = self
            *path, last = name.removesuffix(".weight").split(".")
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.add_module(last, layer)


def adapter_of(names: list[str], dora: bool, seed: int = 0) -> PeftAdapter:
    source = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64).float()

    made = {}
    for name in names:
        out, inner = SHAPES[name]
        magnitude = 1 + random(out).abs() if dora else None
        made[name] = LoraWeights(random(RANK, inner), random(out, RANK), 0.7, magnitude)
    return PeftAdapter(PeftConfig(RANK, 2.0, dora=dora), made)


def merged(weight: torch.Tensor, lora: LoraWeights) -> torch.Tensor:
    """The formulas of LoRA and DoRA."""
    changed = weight + lora.scaling * lora.b @ lora.a
    if lora.magnitude is None:
        return changed
    return lora.magnitude[:, None] * changed / changed.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("changed", [["q", "k", "v", "qkv", "ten"], ["k"], ["v", "qkv"], ["q"]], ids="-".join)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_the_layers_are_those_of_the_changed_weights(rules: list[Rule], changed: list[str], dora: bool) -> None:
    torch.manual_seed(0)
    tensors = {f"{name}.weight": torch.randn(shape) for name, shape in SHAPES.items()}
    made = plan(rules, tensors)
    net = Net(made, tensors)
    adapter = adapter_of(changed, dora)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    adapters = Adapters(Base(net, made, shapes, torch.device("cpu"), torch.float32))
    adapters.load("it", adapter)
    after = tensors | {f"{name}.weight": merged(tensors[f"{name}.weight"], adapter.weights[name]) for name in changed}
    x = torch.randn(6, INNER)
    with adapters.lease("it") as lease, torch.no_grad(), adapters.step([(None, 2), (lease.generation, 4)], None):
        for name, recipe in made.recipes.items():
            layer: Any = net.get_submodule(name.removesuffix(".weight"))
            weight = recipe.make(lambda source: after[source].clone())
            expected = x @ weight.T + layer.bias
            torch.testing.assert_close(layer(x)[2:], expected[2:], rtol=1e-5, atol=1e-5)
            assert torch.equal(layer(x)[:2], nn.functional.linear(x, layer.weight, layer.bias)[:2])


def names_of(rules: list[Rule], shapes: dict[str, tuple[int, ...]], config: Any = None) -> Names:
    return Names(plan(rules, shapes, config), shapes)


def lora(out: int, inner: int = INNER, experts: int | None = None) -> LoraWeights:
    many = () if experts is None else (experts,)
    return LoraWeights(torch.ones(*many, RANK, inner), torch.ones(*many, out, RANK), 1.0)


def test_what_cannot_follow() -> None:
    shapes = {"q.weight": (8, INNER)}
    cases: list[tuple[Rule, str]] = [
        (map("q.weight", lambda tensor, config: tensor.T.contiguous().T), "`map` rule"),
        (rows("q.weight", lambda tensor, config: tensor + 1), "more than move and scale"),
        (rows("q.weight", lambda tensor, config: tensor.view(8, INNER)), "does not work on 3 columns"),
    ]
    for rule, said in cases:
        with pytest.raises(WeightMismatch, match=said):
            names_of([rule], shapes).changes("q", lora(8))
    # A transposed weight, as in GPT-2: the rule is named, not the shape that it explains.
    turned = names_of([map("q.weight", lambda tensor, config: tensor.T)], {"q.weight": (INNER, 8)})
    with pytest.raises(WeightMismatch, match="`map` rule"):
        turned.changes("q", lora(8))


def test_names() -> None:
    shapes = {
        "language_model.model.layers.0.q_proj.weight": (8, INNER),
        "language_model.lm_head.weight": (6, INNER),
        "vision_tower.layers.0.q_proj.weight": (8, INNER),
    }
    names = names_of([drop("vision_tower.**"), rename("language_model.**", "**")], shapes)
    for path in (
        "language_model.model.layers.0.q_proj",  # the checkpoint's
        "model.language_model.layers.0.q_proj",  # transformers 5
        "model.layers.0.q_proj",  # ours
        "layers.0.q_proj",
    ):
        assert [change.parameter for change in names.changes(path, lora(8))] == ["model.layers.0.q_proj.weight"]
    assert [change.parameter for change in names.changes("lm_head", lora(6))] == ["lm_head.weight"]
    for path in ("vision_tower.layers.0.q_proj", "model.vision_tower.layers.0.q_proj"):
        with pytest.raises(WeightMismatch, match="not loaded"):
            names.changes(path, lora(8))
    with pytest.raises(WeightMismatch, match=r"Did you mean 'language_model\.model\.layers\.0\.q_proj\.weight'"):
        names.changes("language_model.model.layers.1.q_proj", lora(8))
    with pytest.raises(WeightMismatch, match=r"\[8, 9\]; the model's has \[8, 10\]"):
        names.changes("layers.0.q_proj", lora(8, 9))


def test_a_tied_head_is_the_head_alone() -> None:
    shapes = {"model.embed_tokens.weight": (6, INNER)}
    names = names_of([tie("lm_head.weight", "model.embed_tokens.weight")], shapes, {"tie_word_embeddings": True})
    assert [change.parameter for change in names.changes("lm_head", lora(6))] == ["lm_head.weight"]
    net = nn.Module()
    net.model = nn.Module()
    net.model.embed_tokens = Embedding(6, INNER)
    base = Base(net, names._plan, shapes, torch.device("cpu"), torch.float32)
    adapter = PeftAdapter(PeftConfig(RANK, 1.0), {"model.embed_tokens": lora(6)})
    with pytest.raises(WeightMismatch, match="part of Embedding"):
        lay(adapter, base, names)


def test_experts_are_found_by_either_name() -> None:
    """Mixtral: the checkpoint has another path and other names than transformers, and both have adapters."""
    shapes = {
        f"layers.0.block_sparse_moe.experts.{expert}.{name}.weight": (4, 6) if name != "w2" else (6, 4)
        for expert in range(3)
        for name in ("w1", "w2", "w3")
    }
    rules = [
        stack(f"layers.0.mlp.experts.{ours}", f"layers.0.block_sparse_moe.experts.#.{theirs}.weight")
        for ours, theirs in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3"))
    ]
    names = names_of(rules, shapes)
    one = names.changes("layers.0.block_sparse_moe.experts.2.w3", lora(4, 6))
    assert [(change.parameter, change.expert) for change in one] == [("layers.0.mlp.experts.up_proj", 2)]
    for module in ("layers.0.block_sparse_moe.experts", "layers.0.mlp.experts", "model.layers.0.mlp.experts"):
        both = names.changes(f"{module}.gate_up_proj", lora(8, 6, experts=3), "0.21.0")
        assert {(change.parameter.rpartition(".")[2], change.expert) for change in both} == {
            (name, expert) for name in ("gate_proj", "up_proj") for expert in range(3)
        }
        assert len(names.changes(f"{module}.down_proj", lora(6, 4, experts=3), "0.21.0")) == 3
    with pytest.raises(WeightMismatch, match="for 2 experts; the model has 3"):
        names.changes("layers.0.mlp.experts.down_proj", lora(6, 4, experts=2))
    with pytest.raises(WeightMismatch, match="no stack of experts"):
        names.changes("layers.0.mlp.experts.gate_up_proj_bias", lora(6, 4, experts=3))


def test_rows_that_are_changed_twice() -> None:
    shapes = {"q.weight": (8, INNER)}
    names = names_of([], shapes)
    net = nn.Module()
    net.q = Linear(INNER, 8)
    base = Base(net, names._plan, shapes, torch.device("cpu"), torch.float32)
    with pytest.raises(WeightMismatch, match="twice"):
        lay(PeftAdapter(PeftConfig(RANK, 1.0), {"q": lora(8), "model.q": lora(8)}), base, names)


def test_experts_of_one_tensor_each() -> None:
    """Adapters from before transformers stacked experts: a module for each projection of each expert."""
    torch.manual_seed(0)
    shapes = {
        f"experts.{expert}.{name}.weight": (6, 4) if name == "down_proj" else (4, 6)
        for expert in range(3)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    names = names_of(
        [stack(f"experts.{name}", f"experts.#.{name}.weight") for name in ("gate_proj", "up_proj", "down_proj")], shapes
    )
    net = nn.Module()
    net.experts = Experts(6, 4, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    # Expert 1 has none, and expert 2's have a magnitude.
    weights = {}
    for name, (out, inner) in shapes.items():
        if ".1." not in name:
            magnitude = torch.rand(out) + 1 if ".2." in name else None
            path = name.removesuffix(".weight")
            weights[path] = LoraWeights(torch.randn(RANK, inner), torch.randn(out, RANK), 0.5, magnitude)
    adapters = Adapters(Base(net, names._plan, shapes, torch.device("cpu"), torch.float32))
    adapters.load("it", PeftAdapter(PeftConfig(RANK, 1.0), weights))
    x, routes = torch.randn(5, 6), torch.tensor([[0, 2], [1, 0], [2, 1], [0, 1], [2, 0]])
    scores = torch.rand(5, 2)
    with adapters.lease("it") as lease, torch.no_grad():
        base = net.experts(x, scores, routes)
        with adapters.step([(lease.generation, 1), (None, 1), (lease.generation, 3)], None):
            ours = net.experts(x, scores, routes)
        for path, change in weights.items():
            _, expert, name = path.split(".")
            stacked: Any = getattr(net.experts, name)
            stacked[int(expert)] = merged(stacked[int(expert)], change)
        theirs = net.experts(x, scores, routes)
    torch.testing.assert_close(ours[[0, 2, 3, 4]], theirs[[0, 2, 3, 4]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1], base[1])
    assert not torch.allclose(theirs[0], base[0], atol=1e-2)
