"""Weight maps: what each verb does to names and to data, in which order, and what a plan refuses."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from bestiary.errors import InvalidPlugin, WeightMismatch
from bestiary.weights import (
    Join,
    Plan,
    Rule,
    Step,
    Stored,
    cat,
    drop,
    map,
    plan,
    rename,
    rows,
    split,
    stack,
    tie,
)


class Tensors(dict[str, np.ndarray]):
    """Stored arrays of float32, and the names that were read."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        super().__init__((name, random.standard_normal(shape, dtype=np.float32)) for name, shape in shapes.items())
        self.reads: list[str] = []

    def read(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return torch.from_numpy(self[name])

    def make(self, made: Plan, name: str) -> np.ndarray:
        return made.recipes[name].make(self.read).numpy()

    def fill(self, made: Plan, name: str) -> np.ndarray:
        target = torch.full(made.shapes(lambda source: self[source].shape)[name], float("nan"))
        made.recipes[name].fill(target, self.read)
        return target.numpy()

    def check(self, made: Plan, name: str, expected: np.ndarray) -> None:
        """Made as a whole, filled into a place, and of the shape that is known before any data."""
        np.testing.assert_array_equal(self.make(made, name), expected)
        np.testing.assert_array_equal(self.fill(made, name), expected)


def names_of(rules: Iterable[Rule], names: Iterable[str], config: Any = None) -> dict[str, tuple[str, ...]]:
    return {name: recipe.sources() for name, recipe in plan(rules, names, config).recipes.items()}


# Names


def test_without_rules_every_tensor_is_a_parameter() -> None:
    assert plan((), ["a.weight", "b"]) == Plan({"a.weight": Stored("a.weight"), "b": Stored("b")})


def test_drop_takes_the_tensor_out_and_says_so() -> None:
    made = plan([drop("a.*")], ["a.b", "a.b.c", "a.d", "x.a.b"])
    assert list(made.recipes) == ["a.b.c", "x.a.b"]
    assert made.dropped == ("a.b", "a.d")


@pytest.mark.parametrize(
    "old, new, name, expected",
    [
        ("a.b", "c", "a.b", "c"),
        ("a.*.w", "z.*", "a.q.w", "z.q"),
        ("*.layer.*.w", "*.block.*.v", "x.layer.3.w", "x.block.3.v"),
        ("**.weight", "model.**.w", "a.b.c.weight", "model.a.b.c.w"),
        ("language_model.**", "**", "language_model.model.norm.weight", "model.norm.weight"),
        ("h.#.w", "layers.#.v", "h.12.w", "layers.12.v"),
        ("a.w*", "a.v*", "a.w1", "a.v1"),
    ],
)
def test_rename_fills_wildcards_in_order(old: str, new: str, name: str, expected: str) -> None:
    assert names_of([rename(old, new)], [name]) == {expected: (name,)}


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("a.*.w", "a.b.c.w"),  # one part, not two
        ("a.*", "a."),  # at least one character
        ("a.**.w", "a.w"),  # at least one part
        ("a.#", "a.b"),  # a number
        ("a.#", "a.-1"),
        ("a.#", "a.٣"),  # of ASCII digits
        ("a.b", "axb"),  # a dot is a dot
        ("a.b", "a.b.c"),  # the whole name
        ("a.b", "x.a.b"),
        ("a.b", "a.b\n"),
    ],
)
def test_a_pattern_that_does_not_match_leaves_the_name(pattern: str, name: str) -> None:
    assert names_of([rename(pattern, "found")], [name]) == {name: (name,)}


def test_rename_moves_all_names_at_once() -> None:
    made = names_of([rename("layer.*.a", "layer.*.b"), rename("x.*", "*.x")], ["layer.0.a", "layer.1.a", "x.y"])
    assert made == {"layer.0.b": ("layer.0.a",), "layer.1.b": ("layer.1.a",), "y.x": ("x.y",)}


def test_rules_apply_in_order_to_what_earlier_ones_left() -> None:
    first, second = rename("a", "b"), rename("b", "c")
    assert names_of([first, second], ["a"]) == {"c": ("a",)}
    assert names_of([second, first], ["a"]) == {"b": ("a",)}
    assert plan([drop("b"), first], ["a", "b"]).dropped == ("b",)


@pytest.mark.parametrize(
    "rules, names",
    [
        ([rename("a", "b")], ["a", "b"]),
        ([rename("*.w", "w")], ["x.w", "y.w"]),
        ([cat("c", "a", "b")], ["a", "b", "c"]),
        ([stack("s", "e.#")], ["e.0", "s"]),
        ([split("a", "b", "c")], ["a", "c"]),
    ],
)
def test_two_tensors_for_one_parameter_are_named(rules: list[Rule], names: list[str]) -> None:
    with pytest.raises(WeightMismatch, match="Two tensors would become the parameter") as found:
        plan(rules, names)
    assert rules[0].verb in str(found.value.where)


def test_a_target_with_more_wildcards_than_its_source_is_refused() -> None:
    with pytest.raises(InvalidPlugin, match="wildcard"):
        plan([rename("a.*", "b.*.*")], ["a.x"])


@given(
    names=st.sets(st.from_regex(r"[ab](\.[ab0-2]){0,3}", fullmatch=True), max_size=20),
    rules=st.lists(
        st.one_of(
            st.sampled_from(["a.*", "**.b", "*.#.*", "b", "a.**.a", "*.a"]).map(drop),
            st.sampled_from(
                [("a.*", "c.*"), ("**.b", "b.**"), ("*.#.*", "*.#.*.d"), ("b", "c"), ("a.**.a", "**"), ("*", "only.*")]
            ).map(lambda pair: rename(*pair)),
        ),
        max_size=6,
    ),
)
def test_each_tensor_is_used_once_or_dropped(names: set[str], rules: list[Rule]) -> None:
    try:
        made = plan(rules, names)
    except WeightMismatch as error:
        assert "Two tensors" in error.what
        return
    used = [source for recipe in made.recipes.values() for source in recipe.sources()]
    assert sorted([*used, *made.dropped]) == sorted(names)


# Data


def test_split_into_equal_rows() -> None:
    tensors = Tensors(qkv=(6, 3))
    made = plan([split("qkv", "q", "k", "v")], tensors)
    for index, name in enumerate("qkv"):
        tensors.check(made, name, tensors["qkv"][2 * index : 2 * index + 2])


def test_split_by_sizes_of_the_config() -> None:
    tensors = Tensors(**{"layer.0.qkv": (8, 3), "layer.1.qkv": (8, 3)})
    rule = split("layer.*.qkv", "layer.*.q", "layer.*.k", "layer.*.v", sizes=lambda c: (c["q"], c["kv"], c["kv"]))
    made = plan([rule], tensors, {"q": 4, "kv": 2})
    for layer in ("layer.0", "layer.1"):
        for name, part in (("q", slice(0, 4)), ("k", slice(4, 6)), ("v", slice(6, 8))):
            tensors.check(made, f"{layer}.{name}", tensors[f"{layer}.qkv"][part])


@pytest.mark.parametrize("shape", [(7, 3), (0,), ()])
@pytest.mark.parametrize("sizes", [None, lambda config: (4, 1)])
def test_rows_that_cannot_be_split_are_a_mismatch(shape: tuple[int, ...], sizes: Any) -> None:
    made = plan([split("a", "b", "c", sizes=sizes)], ["a"])
    if shape == (0,) and sizes is None:
        assert made.shapes(lambda name: shape) == {"b": (0,), "c": (0,)}
        return
    with pytest.raises(WeightMismatch, match="tensor a"):
        made.shapes(lambda name: shape)


def test_a_split_needs_a_size_for_each_target() -> None:
    with pytest.raises(InvalidPlugin, match="2 targets and 3 sizes"):
        plan([split("a", "b", "c", sizes=lambda config: (1, 1, 1))], ["a"])


def test_cat_joins_rows_in_the_order_of_its_sources() -> None:
    tensors = Tensors(**{"0.k": (2, 3), "0.q": (4, 3), "1.q": (4, 3), "1.k": (2, 3)})
    made = plan([cat("*.qk", "*.q", "*.k")], tensors)
    for layer in "01":
        tensors.check(made, f"{layer}.qk", np.concatenate([tensors[f"{layer}.q"], tensors[f"{layer}.k"]]))
    assert made.recipes["0.qk"] == Join((Stored("0.q"), Stored("0.k")), stacked=False)


def test_stack_counts_and_does_not_sort_by_text() -> None:
    tensors = Tensors(**{f"l.{layer}.e.{index}.w": (2, 3) for layer in (0, 1) for index in reversed(range(11))})
    made = plan([stack("l.*.experts", "l.*.e.#.w")], tensors)
    assert list(made.recipes) == ["l.0.experts", "l.1.experts"]
    for layer in (0, 1):
        expected = np.stack([tensors[f"l.{layer}.e.{index}.w"] for index in range(11)])
        tensors.check(made, f"l.{layer}.experts", expected)


def test_rows_and_map_get_the_tensor_and_the_config() -> None:
    tensors = Tensors(a=(2, 3), b=(2, 3))
    config = {"factor": 3.0}
    made = plan([rows("a", lambda t, c: t.flip(0) * c["factor"]), map("b", lambda t, c: t.T)], tensors, config)
    tensors.check(made, "a", tensors["a"][::-1] * np.float32(3))
    tensors.check(made, "b", tensors["b"].T)


def test_changes_apply_in_the_order_of_the_rules() -> None:
    tensors = Tensors(a=(2, 3))
    made = plan([rows("a", lambda t, c: t + 1), rows("*", lambda t, c: t * 2)], tensors)
    tensors.check(made, "a", (tensors["a"] + np.float32(1)) * np.float32(2))


def test_only_map_breaks_packed_blocks() -> None:
    def same(tensor: torch.Tensor, config: Any) -> torch.Tensor:
        return tensor

    made = plan([rows("a", same), map("b", same), split("c", "c1", "c2")], ["a", "b", "c"]).recipes
    rowwise = {name: recipe.rowwise for name, recipe in made.items() if isinstance(recipe, Step)}
    assert rowwise == {"a": True, "b": False, "c1": True, "c2": True}


def test_cat_of_changed_pieces() -> None:
    tensors = Tensors(qkv=(6, 2), extra=(1, 2))
    rules = [rows("qkv", lambda t, c: t.flip(0)), split("qkv", "q", "k", "v"), cat("joined", "v", "extra", "q")]
    made = plan(rules, tensors)
    turned = tensors["qkv"][::-1]
    tensors.check(made, "joined", np.concatenate([turned[4:], tensors["extra"], turned[:2]]))
    tensors.check(made, "k", turned[2:4])


def test_stack_of_mapped_parts() -> None:
    tensors = Tensors(**{f"e.{index}": (2, 3) for index in range(3)})
    made = plan([map("e.*", lambda t, c: t.T), stack("experts", "e.#")], tensors)
    tensors.check(made, "experts", np.stack([tensors[f"e.{index}"].T for index in range(3)]))


def test_split_of_a_cat() -> None:
    tensors = Tensors(a=(3, 2), b=(1, 2))
    made = plan([cat("ab", "a", "b"), split("ab", "x", "y")], tensors)
    whole = np.concatenate([tensors["a"], tensors["b"]])
    tensors.check(made, "x", whole[:2])
    tensors.check(made, "y", whole[2:])


def test_stack_of_cats() -> None:
    tensors = Tensors(**{f"e.{index}.{name}": (2, 3) for index in range(2) for name in ("gate", "up")})
    made = plan([cat("e.*.both", "e.*.gate", "e.*.up"), stack("experts", "e.#.both")], tensors)
    expected = [np.concatenate([tensors[f"e.{index}.gate"], tensors[f"e.{index}.up"]]) for index in range(2)]
    tensors.check(made, "experts", np.stack(expected))


def test_cat_of_stacks() -> None:
    tensors = Tensors(**{f"{name}.{index}": (2, 3) for name in ("a", "b") for index in range(2)})
    made = plan([stack("*.all", "*.#"), cat("both", "a.all", "b.all")], tensors)
    tensors.check(made, "both", np.stack([tensors[name] for name in ("a.0", "a.1", "b.0", "b.1")]))


def test_a_plan_reads_nothing() -> None:
    tensors = Tensors(**{f"e.{index}": (2, 3) for index in range(3)})
    made = plan([rows("e.*", lambda t, c: t * 2), stack("experts", "e.#")], tensors)
    assert made.shapes(lambda name: tensors[name].shape) == {"experts": (3, 2, 3)}
    assert tensors.reads == []


# What cannot be made


def test_missing_parts_of_a_cat_are_named() -> None:
    with pytest.raises(WeightMismatch) as found:
        plan([cat("*.qkv", "*.q", "*.k", "*.v")], ["0.q", "0.k", "0.v", "1.q"])
    assert found.value.missing == ("1.k", "1.v")


def test_missing_members_of_a_stack_are_named() -> None:
    with pytest.raises(WeightMismatch) as found:
        plan([stack("*.all", "*.e.#.w")], ["0.e.0.w", "0.e.4.w", "0.e.2.w"])
    assert found.value.missing == ("0.e.1.w", "0.e.3.w")


@pytest.mark.parametrize("number", ["999999999", "9" * 30, "9" * 5000])
def test_a_huge_member_number_costs_nothing(number: str) -> None:
    try:
        made = plan([stack("all", "e.#")], ["e.0", f"e.{number}"])
    except WeightMismatch as error:
        assert 0 < len(error.missing) < 2000
    else:
        assert f"e.{number}" in made.recipes  # left over, so that the load names it as unexpected


def test_a_stack_counts_in_one_place() -> None:
    with pytest.raises(InvalidPlugin, match="#"):
        plan([stack("all", "e.*")], ["e.0"])


@pytest.mark.parametrize("rule", [stack("all", "e.#"), cat("all", "e.0", "e.1")])
@pytest.mark.parametrize("shapes", [((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 3), ()), ((2, 3), (2, 4)), ((3,), (2, 3))])
def test_parts_of_different_shapes_are_never_broadcast(rule: Rule, shapes: tuple[tuple[int, ...], ...]) -> None:
    made = plan([rule], ["e.0", "e.1"])
    with pytest.raises(WeightMismatch, match=r"e\.1"):
        made.shapes(dict(zip(("e.0", "e.1"), shapes, strict=True)).__getitem__)


def test_a_change_that_fails_on_a_wrong_shape_is_a_mismatch() -> None:
    made = plan([map("a", lambda t, c: t.view(4, 4))], ["a"])
    assert made.shapes(lambda name: (16,)) == {"a": (4, 4)}
    with pytest.raises(WeightMismatch, match="parameter a"):
        made.shapes(lambda name: (15,))


# Ties

TIE = tie("lm_head.weight", "model.embed.weight")


def test_tied_by_the_config_shares_the_embedding() -> None:
    made = plan([TIE], ["model.embed.weight"], {"tie_word_embeddings": True})
    assert made.ties == {"lm_head.weight": "model.embed.weight"}
    assert list(made.recipes) == ["model.embed.weight"] and made.dropped == ()


def test_tied_with_an_own_tensor_drops_it() -> None:
    made = plan([TIE], ["lm_head.weight", "model.embed.weight"], {"tie_word_embeddings": True})
    assert made.ties == {"lm_head.weight": "model.embed.weight"}
    assert names_of([TIE], ["lm_head.weight", "model.embed.weight"], {"tie_word_embeddings": True}) == {
        "model.embed.weight": ("model.embed.weight",)
    }
    assert made.dropped == ("lm_head.weight",)


def test_tied_with_the_head_alone_makes_the_embedding_of_it() -> None:
    made = plan([TIE], ["lm_head.weight"], {"tie_word_embeddings": True})
    assert made.recipes == {"model.embed.weight": Stored("lm_head.weight")}
    assert made.ties == {"lm_head.weight": "model.embed.weight"} and made.dropped == ()


@pytest.mark.parametrize("config", [None, {}, {"tie_word_embeddings": False}])
def test_untied_keeps_both(config: Any) -> None:
    made = plan([TIE], ["lm_head.weight", "model.embed.weight"], config)
    assert made == plan([], ["lm_head.weight", "model.embed.weight"])


# Memory


class Allocations(TorchDispatchMode):
    """The largest storage, in bytes, that any operation returned besides those of `known`."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return made


PAIRS = [cat(f"pair.{index}", f"e.{2 * index}", f"e.{2 * index + 1}") for index in range(4)]


@pytest.mark.parametrize(
    "rules",
    [[stack("all", "e.#")], [cat("all", *(f"e.{index}" for index in range(8)))], [*PAIRS, stack("all", "pair.#")]],
    ids=["stack", "cat", "stack of cats"],
)
def test_filling_makes_nothing_larger_than_one_part(rules: list[Rule]) -> None:
    tensors = Tensors(**{f"e.{index}": (64, 32) for index in range(8)})
    made = plan([rows("e.*", lambda t, c: t * 2), *rules], tensors)
    target = torch.empty(made.shapes(lambda name: tensors[name].shape)["all"])
    with Allocations(target) as allocations:
        made.recipes["all"].fill(target, tensors.read)
    assert allocations.largest == tensors["e.0"].nbytes
    assert tensors.reads == [f"e.{index}" for index in range(8)]  # each once, in order
    np.testing.assert_array_equal(target.numpy().ravel(), 2 * np.stack(list(tensors.values())).ravel())
