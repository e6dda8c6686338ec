"""Topology files: layers and names with a scheme and a device of their own, in the format of mistral.rs.

    0-8:                                      layers 0 to 7
      isq: Q3K
    12:                                       one layer
      isq: Q8_0
      device: cpu
    /model\\.layers\\.\\d+\\.self_attn\\..*/:      an expression that is found in the name of the weight
      isq: afq4

Later entries win, of scheme and device each by itself; "isq: none" leaves weights plain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bestiary.errors import ConfigError, shown
from bestiary.nearest import did_you_mean
from bestiary_quant.making.schemes import find

MOST_BYTES = 1 << 20
PLAIN = "none"
_KEYS = ("isq", "device")
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
_DEVICE = re.compile(r"(cpu|cuda|metal|mps|hip|xpu)(?:[\[:](\d{1,3})\]?)?")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,6})\.")


@dataclass(frozen=True)
class Entry:
    """One entry of a file; None: it says nothing of that."""

    selector: str
    layers: range | None
    expression: re.Pattern[str] | None
    scheme: str | None
    device: str | None

    def selects(self, name: str) -> bool:
        """Whether it speaks of the weight of this name."""
        if self.expression is not None:
            return self.expression.search(name) is not None
        layer = _LAYER.search(name)
        return layer is not None and self.layers is not None and int(layer[1]) in self.layers


@dataclass(frozen=True)
class Topology:
    """The entries of a file in their order."""

    entries: tuple[Entry, ...]
    origin: str

    def scheme(self, name: str, default: str | None) -> str | None:
        """The scheme of a weight, None: it stays plain; `default` where no entry speaks of it."""
        chosen = [entry.scheme for entry in self.entries if entry.scheme and entry.selects(name)]
        if not chosen:
            return default
        return None if chosen[-1] == PLAIN else chosen[-1]

    def device(self, name: str) -> str | None:
        """The device of a weight in torch's spelling; None where no entry says one."""
        chosen = [entry.device for entry in self.entries if entry.device and entry.selects(name)]
        return chosen[-1] if chosen else None


def read_topology(source: str | Mapping[str, Any]) -> Topology:
    """The topology of a YAML file, or of its content.  Raises ConfigError that names the entry."""
    if isinstance(source, Mapping):
        return _topology(source, "topology")
    if not isinstance(source, str | Path):
        raise ConfigError(f"topology is {shown(source)}; the path of a YAML file, or its content, is due.")
    path = Path(source)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError("The topology file is larger than 1 MB.", where=path, fix="check what it is")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"The topology file cannot be read: {error.strerror}.", where=path) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"This topology file is no valid YAML: {error}.", where=path) from error
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"The topology file holds {shown(content)}; entries such as `0-8: {{isq: Q4K}}` are due.", where=path
        )
    return _topology(content, str(path))


class _Loader(yaml.SafeLoader):
    """Without aliases, by which a small file becomes a huge one, and without keys that come twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases have no place in a topology")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        again = next((key for key in keys if keys.count(key) > 1), None)
        if again is not None:
            raise yaml.YAMLError(f'the entry "{again}" comes twice')
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def _topology(content: Mapping[Any, Any], origin: str) -> Topology:
    return Topology(tuple(_entry(str(selector), values, origin) for selector, values in content.items()), origin)


def _entry(selector: str, values: Any, origin: str) -> Entry:
    where = f'{origin}, "{selector[:200]}"'
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"The entry is {shown(values)}; isq and device are due.", where=where)
    for key in values:
        if key not in _KEYS:
            near = did_you_mean(str(key), _KEYS)
            raise ConfigError(f'An entry has no "{key}". {near}'.rstrip(), where=where, fix="write isq or device")
    layers, expression = _selector(selector, where)
    return Entry(selector, layers, expression, _scheme(values.get("isq"), where), _device(values.get("device"), where))


def _selector(selector: str, where: str) -> tuple[range | None, re.Pattern[str] | None]:
    if len(selector) > 2 and selector.startswith("/") and selector.endswith("/"):
        try:
            return None, re.compile(selector[1:-1])
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"The expression is malformed: {error}.", where=where) from error
    found = _RANGE.fullmatch(selector)
    if found is None:
        raise ConfigError("The entry is for no layers.", where=where, fix='write "0-8", "12" or "/an expression/"')
    first, end = int(found[1]), int(found[2]) if found[2] else int(found[1]) + 1
    if end <= first:
        raise ConfigError(f"The layers {selector} are none: the end comes first.", where=where)
    return range(first, end), None


def _scheme(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ConfigError(f"isq is {shown(value)}; the name of a scheme is due.", where=where)
    return PLAIN if str(value).lower() == PLAIN else find(str(value)).name


def _device(value: object, where: str) -> str | None:
    if value is None:
        return None
    found = _DEVICE.fullmatch(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise ConfigError(f'device is {shown(value)}; "cpu" or "cuda[0]" is due.', where=where)
    kind = {"metal": "mps"}.get(found[1], found[1])
    return kind if found[2] is None else f"{kind}:{int(found[2])}"
