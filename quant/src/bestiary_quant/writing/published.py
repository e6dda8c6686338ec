"""Under which names the weights of a network are published: the opposite of an architecture's weight map.

Stacked experts go to the names of single ones, and renamed tensors to those that they had.  What comes out is planned
again: only names of which the weight map makes each parameter, unchanged, are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bestiary.errors import OptionError
from bestiary.weights import Join, Recipe, Rule, Stored, plan

_FORMS = {"**": "(.+)", "*": "([^.]+)"}


def published_names(
    names: Iterable[str], rules: Sequence[Rule], shapes: Mapping[str, tuple[int, ...]], config: Any
) -> dict[str, tuple[str, ...]]:
    """One name for each parameter, or one for each of its experts.  Raises OptionError where rules cannot be undone."""
    made = {name: _undone(name, rules, shapes[name]) for name in names}
    flat = [stored for group in made.values() for stored in group]
    found = plan(rules, flat, config).recipes if len(set(flat)) == len(flat) else {}
    for name, group in made.items():
        if _plain_sources(found.get(name)) != group:
            raise OptionError(
                f"The weight {name} is made from others as the architecture is published, and cannot be written so.",
                fix="write the model as GGUF, with --to gguf:SCHEME",
            )
    return made


def _undone(name: str, rules: Sequence[Rule], shape: tuple[int, ...]) -> tuple[str, ...]:
    group: tuple[str, ...] = (name,)
    for rule in reversed(rules):
        if rule.verb == "rename":
            group = tuple(_back(stored, rule) or stored for stored in group)
        elif rule.verb == "stack" and len(group) == 1:
            single = _back(group[0], rule)
            if single is not None:
                group = tuple(single.replace("#", str(number)) for number in range(shape[0]))
    return group


def _back(name: str, rule: Rule) -> str | None:
    """The source of which a rule makes the name, with a # where it collects numbers; None where it does not."""
    parts = re.split(r"(\*\*|\*)", rule.targets[0])
    match = re.fullmatch("".join(_FORMS.get(part) or re.escape(part) for part in parts), name)
    if match is None:
        return None
    filled, groups = "", iter(match.groups())
    for part in re.split(r"(\*\*|\*)", rule.sources[0]):
        filled += next(groups, "") if part in _FORMS else part
    return filled


def _plain_sources(recipe: Recipe | None) -> tuple[str, ...] | None:
    """The tensors of which a recipe makes a parameter without changing them."""
    if isinstance(recipe, Stored):
        return (recipe.name,)
    if isinstance(recipe, Join) and recipe.stacked and all(isinstance(part, Stored) for part in recipe.parts):
        return recipe.sources()
    return None
