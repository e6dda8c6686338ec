"""Weight maps: from the names in a checkpoint to the parameters of a model, by a tuple of frozen rules.

Eight verbs.  In a pattern `*` is one part of a dotted name, `**` any number of them, and `#` a number to collect.

    drop(pattern)                   the tensor is not wanted
    rename(old, new)                wildcards in `new` are filled, in order, with what they matched in `old`
    split(source, *targets, sizes=) one tensor becomes several along its rows; equal parts unless sizes(config) says
    cat(target, *sources)           several tensors become one along their rows
    stack(target, source)           tensors numbered by `#` become one with a new leading dimension
    tie(target, source)             two parameters share one tensor where the config ties word embeddings
    rows(pattern, fn)               fn(tensor, config) moves or scales whole rows: it also holds on packed blocks
    map(pattern, fn)                fn(tensor, config) does anything else: packed weights are dequantised first

Rules apply in order, each to the names that the earlier ones left.  `plan` reads names only, never data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from bestiary.errors import InvalidPlugin, WeightMismatch

if TYPE_CHECKING:
    import torch

    from bestiary.nn.packed import Packed

    Change = Callable[[torch.Tensor, Any], torch.Tensor]
    Read = Callable[[str], torch.Tensor]
    ReadPacked = Callable[[str], Packed | None]


# The verbs


@dataclass(frozen=True)
class Rule:
    verb: str
    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()
    argument: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"{self.verb}({', '.join(repr(name) for name in self.targets + self.sources)})"


def drop(pattern: str) -> Rule:
    return Rule("drop", (pattern,))


def rename(old: str, new: str) -> Rule:
    return Rule("rename", (old,), (new,))


def split(source: str, *targets: str, sizes: Callable[[Any], Sequence[int]] | None = None) -> Rule:
    return Rule("split", (source,), targets, sizes)


def cat(target: str, *sources: str) -> Rule:
    return Rule("cat", sources, (target,))


def stack(target: str, source: str) -> Rule:
    return Rule("stack", (source,), (target,))


def tie(target: str, source: str) -> Rule:
    return Rule("tie", (source,), (target,))


def rows(pattern: str, fn: Change) -> Rule:
    return Rule("rows", (pattern,), (), fn)


def map(pattern: str, fn: Change) -> Rule:
    return Rule("map", (pattern,), (), fn)


# Recipes: how one parameter is made


@dataclass(frozen=True)
class Stored:
    """A tensor of the checkpoint, as it is."""

    name: str

    def sources(self) -> tuple[str, ...]:
        return (self.name,)

    def make(self, read: Read) -> torch.Tensor:
        return read(self.name)

    def fill(self, target: torch.Tensor, read: Read) -> None:
        target.copy_(self.make(read))

    def packed(self, read: ReadPacked) -> Packed | None:
        """The weight as the checkpoint packs it; None where it must be made of plain numbers."""
        return read(self.name)


@dataclass(frozen=True)
class Step:
    """One change of a tensor; `rowwise` says that it also holds on packed blocks."""

    part: Recipe
    change: Callable[[torch.Tensor], torch.Tensor]
    rowwise: bool

    def sources(self) -> tuple[str, ...]:
        return self.part.sources()

    def make(self, read: Read) -> torch.Tensor:
        return self.change(self.part.make(read))

    def fill(self, target: torch.Tensor, read: Read) -> None:
        target.copy_(self.make(read))

    def packed(self, read: ReadPacked) -> Packed | None:
        from bestiary.nn.packed import is_weight, moved

        part = self.part.packed(read) if self.rowwise else None
        return moved(part, self.change) if is_weight(part) else None


@dataclass(frozen=True)
class Join:
    """Several recipes one below the other (`stacked` False) or along a new leading dimension (True)."""

    parts: tuple[Recipe, ...]
    stacked: bool

    def sources(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.sources())

    def make(self, read: Read) -> torch.Tensor:
        tensors = [part.make(read) for part in self.parts]
        self._check_shapes(tensors)
        if self.stacked:
            made = tensors[0].new_empty((len(tensors), *tensors[0].shape))
        else:
            made = tensors[0].new_empty((sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:]))
        for slot, tensor in zip(self._slots(made, tensors), tensors, strict=True):
            slot.copy_(tensor)
        return made

    def fill(self, target: torch.Tensor, read: Read) -> None:
        # Part by part, so that a stack of experts never exists twice.
        if self.stacked:
            for slot, part in zip(target, self.parts, strict=True):
                part.fill(slot, read)
            return
        start = 0
        for part in self.parts:
            tensor = part.make(read)
            target[start : start + len(tensor)].copy_(tensor)
            start += len(tensor)

    def packed(self, read: ReadPacked) -> Packed | None:
        if not self.stacked:
            return None  # parts that may be packed differently
        from bestiary.nn.packed import PackedList, is_weight

        parts = [part.packed(read) for part in self.parts]
        held = [part for part in parts if is_weight(part)]
        if len(held) < len(parts):
            return None
        self._check_joined([part.shape for part in held])
        return PackedList(held)

    def _check_shapes(self, tensors: Sequence[torch.Tensor]) -> None:
        self._check_joined([tuple(tensor.shape) for tensor in tensors])

    def _check_joined(self, given: Sequence[tuple[int, ...]]) -> None:
        # Without it a part that is too small would be repeated into its place.
        for part, shape in zip(self.parts, given, strict=True):
            shapes = given[0], shape
            if shapes[0] != shapes[1] if self.stacked else not shapes[1] or shapes[0][1:] != shapes[1][1:]:
                raise WeightMismatch(
                    f"{', '.join(part.sources())} of shape {list(shapes[1])} cannot be joined with "
                    f"{', '.join(self.parts[0].sources())} of shape {list(shapes[0])}."
                )

    def _slots(self, made: torch.Tensor, tensors: Sequence[torch.Tensor]) -> Iterable[torch.Tensor]:
        if self.stacked:
            return made
        import torch

        return torch.split(made, [len(tensor) for tensor in tensors])


Recipe = Stored | Step | Join


@dataclass(frozen=True)
class Plan:
    """A recipe for every parameter, the parameters that share another's tensor, and the tensors that nobody wants."""

    recipes: Mapping[str, Recipe]
    ties: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    def shapes(self, shape: Callable[[str], Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter that the plan makes, from the shapes in the checkpoint, without data.

        Raises WeightMismatch where a rule cannot work on tensors of these shapes.
        """
        import torch

        def empty(name: str) -> torch.Tensor:
            return torch.empty(tuple(shape(name)), device="meta")

        made = {}
        for name, recipe in self.recipes.items():
            try:
                made[name] = tuple(recipe.make(empty).shape)
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                given = ", ".join(f"{source} {list(shape(source))}" for source in recipe.sources())
                raise WeightMismatch(f"The parameter {name} cannot be made from {given}: {error}") from error
        return made


# Planning


def plan(rules: Iterable[Rule], names: Iterable[str], config: Any = None) -> Plan:
    """Turn rules and tensor names into one recipe per parameter.

    `config` is given to the functions of `split`, `rows` and `map`, and its `tie_word_embeddings` switches `tie` on.
    Raises WeightMismatch where two tensors would become one parameter, or where parts of a `cat` or `stack` are absent.
    """
    made: dict[str, Recipe] = {name: Stored(name) for name in names}
    ties: dict[str, str] = {}
    dropped: list[str] = []
    for rule in rules:
        _VERBS[rule.verb](rule, made, config, ties, dropped)
    return Plan(made, ties, tuple(dropped))


def _put(made: dict[str, Recipe], name: str, recipe: Recipe, rule: Rule) -> None:
    if name in made:
        both = ", ".join((*made[name].sources(), *recipe.sources()))
        raise WeightMismatch(f"Two tensors would become the parameter {name}: {both}.", where=f"the rule {rule}")
    made[name] = recipe


def _drop(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    for name, _ in _matches(rule.sources[0], made):
        dropped.extend(made.pop(name).sources())


def _rename(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    moved = [(_fill(rule.targets[0], groups), made.pop(name)) for name, groups in _matches(rule.sources[0], made)]
    for name, recipe in moved:
        _put(made, name, recipe, rule)


def _split(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    sizes = tuple(rule.argument(config)) if rule.argument else None
    if sizes is not None and len(sizes) != len(rule.targets):
        raise InvalidPlugin(
            f"A split has {len(rule.targets)} targets and {len(sizes)} sizes.", where=f"the rule {rule}"
        )
    for name, groups in _matches(rule.sources[0], made):
        recipe = made.pop(name)
        for index, target in enumerate(rule.targets):
            piece = partial(_piece, index=index, count=len(rule.targets), sizes=sizes, name=name)
            _put(made, _fill(target, groups), Step(recipe, piece, rowwise=True), rule)


def _piece(tensor: torch.Tensor, index: int, count: int, sizes: tuple[int, ...] | None, name: str) -> torch.Tensor:
    total = len(tensor) if tensor.ndim else 0
    if not tensor.ndim or (sizes is None and total % count) or (sizes is not None and sum(sizes) != total):
        parts = f"{count} equal parts" if sizes is None else f"parts of {', '.join(str(size) for size in sizes)}"
        raise WeightMismatch(f"The tensor {name} has {total} rows, which cannot be split into {parts}.")
    lengths = sizes or (total // count,) * count
    start = sum(lengths[:index])
    return tensor[start : start + lengths[index]]


def _cat(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    for _, groups in _matches(rule.sources[0], made):
        parts = [_fill(source, groups) for source in rule.sources]
        absent = [part for part in parts if part not in made]
        if absent:
            raise WeightMismatch("Parts of one parameter are missing.", where=f"the rule {rule}", missing=absent)
        _put(made, _fill(rule.targets[0], groups), Join(tuple(made.pop(part) for part in parts), stacked=False), rule)


def _stack(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    groups_of: dict[tuple[str, ...], dict[int, str]] = {}
    wildcards = re.findall(r"\*\*|\*|#", rule.sources[0])
    if wildcards.count("#") != 1:
        raise InvalidPlugin("The source of a stack numbers its members with one #.", where=f"the rule {rule}")
    place = wildcards.index("#")
    for name, groups in _matches(rule.sources[0], made):
        rest = groups[:place] + groups[place + 1 :]
        groups_of.setdefault(rest, {})[int(groups[place])] = name
    for rest, members in groups_of.items():
        # A name may hold any number: as many places as there are members, and some more, show every honest gap.
        places = range(min(max(members), len(members) + 1000))
        gaps = [index for index in places if index not in members]
        absent = [_fill(rule.sources[0], _insert(rest, place, str(index))) for index in gaps]
        if absent:
            raise WeightMismatch("Members of a stack are missing.", where=f"the rule {rule}", missing=absent)
        parts = tuple(made.pop(members[index]) for index in sorted(members))
        _put(made, _fill(rule.targets[0], rest), Join(parts, stacked=True), rule)


def _tie(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    if config is not None and config.get("tie_word_embeddings"):
        target, source = rule.targets[0], rule.sources[0]
        if source not in made and target in made:
            made[source] = made.pop(target)
        elif target in made:
            dropped.extend(made.pop(target).sources())
        ties[target] = source


def _change(rule: Rule, made: dict[str, Recipe], config: Any, ties: dict[str, str], dropped: list[str]) -> None:
    fn = rule.argument
    assert fn is not None
    for name, _ in _matches(rule.sources[0], made):
        made[name] = Step(made[name], lambda tensor, fn=fn: fn(tensor, config), rowwise=rule.verb == "rows")  # type: ignore[misc]


_VERBS = {
    "drop": _drop,
    "rename": _rename,
    "split": _split,
    "cat": _cat,
    "stack": _stack,
    "tie": _tie,
    "rows": _change,
    "map": _change,
}


# Patterns


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|#)", pattern)
    forms = {"**": "(.+)", "*": "([^.]+)", "#": "([0-9]{1,9})"}
    return re.compile("".join(forms.get(part) or re.escape(part) for part in parts))


def _matches(pattern: str, names: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    expression = _expression(pattern)
    found = ((name, expression.fullmatch(name)) for name in names)
    return [(name, match.groups()) for name, match in found if match]


def _fill(pattern: str, groups: Sequence[str]) -> str:
    parts = re.split(r"\*\*|\*|#", pattern)
    if len(parts) - 1 > len(groups):
        raise InvalidPlugin(f'"{pattern}" has more wildcards than the pattern that fills them.')
    filled = zip(parts, (*groups[: len(parts) - 1], ""), strict=True)
    return "".join(part + group for part, group in filled)


def _insert(groups: tuple[str, ...], place: int, value: str) -> tuple[str, ...]:
    return (*groups[:place], value, *groups[place:])
