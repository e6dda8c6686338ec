"""The layers of the shards, judged by headers and descriptions alone: which weight each is, and how it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bestiary_quant.checkpoints.stored import FLOATS, Stored
from bestiary_quant.uqff.described import number
from bestiary_quant.uqff.families import READERS, Weight
from bestiary_quant.uqff.form import ATTRIBUTES, FAMILIES, parameter
from bestiary_quant.uqff.tensors import UqffTensors

_FORMAT = ".weight.format"


@dataclass(frozen=True)
class Layer:
    """One layer of a file."""

    name: str
    """What the rules of architectures call its weight."""
    key: str
    """What the file calls it."""
    family: str
    weight: Weight
    parts: tuple[str, ...]
    """Names in the file of all that makes the weight, which comes first; the bias is not among them."""


MAX_LAYERS = 8192
"""No honest model has so many: experts are stacks."""


def layers(tensors: UqffTensors) -> Iterator[Layer]:
    """Every layer, in the order of the files.

    Raises CheckpointError where the parts of one do not agree, or where there are too many.
    """
    stored = Stored(tensors)
    attributes: dict[str, set[str]] = {}
    inside = [name for name in stored.names if tensors.in_shard(name)]
    for name in inside:
        key, separator, attribute = name.rpartition(".weight.")
        if separator:
            attributes.setdefault(key, set()).add(attribute)
    if len(attributes) > MAX_LAYERS:
        raise stored.error(f"There are {len(attributes)} layers; {MAX_LAYERS} are allowed.")
    for name in inside:
        layer = _key(name)
        if layer is None or "format" not in attributes.get(layer, ()):
            raise stored.error(
                f"The tensor {name!r} belongs to no layer: there is no {(layer or name) + _FORMAT!r}.",
                fix="the file is damaged, or a newer bestiary-quant knows what that is",
            )
        if name.endswith(_FORMAT):
            yield _layer(stored, layer, attributes[layer] - {"format"})


def _key(name: str) -> str | None:
    key, separator, _ = name.rpartition(".weight.")
    if separator:
        return key
    return next((name.removesuffix(end) for end in (".weight", ".bias") if name.endswith(end)), None)


def _layer(stored: Stored, key: str, attributes: set[str]) -> Layer:
    weight = f"{key}.weight"
    family = number(stored, f"{key}{_FORMAT}", "U8")
    if family >= len(FAMILIES):
        raise stored.error(f"{key + _FORMAT!r} is {family}, a family that a newer bestiary-quant may know.")
    due = ATTRIBUTES[family]
    if attributes != due:
        lacking = f" lacks {', '.join(sorted(due - attributes))};" if due - attributes else ""
        strange = f" has {', '.join(sorted(attributes - due))[:200]}, not of it;" if attributes - due else ""
        raise stored.error(f"The layer {key!r}, of the family {FAMILIES[family]},{lacking}{strange}".rstrip(";") + ".")
    made = READERS[family](stored, weight)
    bias = f"{key}.bias"
    if bias in stored:
        stored.check(bias, FLOATS, made.shape[:-1])
    parts = (weight, f"{key}{_FORMAT}", *(f"{weight}.{attribute}" for attribute in sorted(due)))
    return Layer(parameter(key, len(made.shape)), key, FAMILIES[family], made, parts)
