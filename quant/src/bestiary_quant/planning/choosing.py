"""From what a user calls a packing to the scheme of each weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bestiary.config import Config
from bestiary.errors import OptionError, OutOfMemory, shown
from bestiary.nearest import did_you_mean
from bestiary.records import Site
from bestiary_quant.calibration.methods import METHOD_NAMES, method_of
from bestiary_quant.making.mixtures import MIXTURES, Traits, assign
from bestiary_quant.making.schemes import ALIASES, BITS, METAL_BITS, SCHEMES, find, for_memory, promoted

AUTO = "auto"
ORGANIZATIONS = ("default", "moqe")
NAMES = (*ALIASES, *MIXTURES, *METHOD_NAMES, *map(str, BITS), AUTO)
"""All that `quant` may be, besides numbers and functions."""
_FEWEST_ROWS = 8
"""A weight of fewer rows, such as the gate of a shared expert, is not worth its packing."""

Chosen = dict[str, str | None]


def choose(
    quant: str | int | Callable[[Site], str | None] | None,
    organization: str | None,
    sites: Sequence[Site],
    config: Config,
    device: str,
    available: int | None,
    dtype_bytes: int,
) -> Chosen:
    """The scheme of each weight, None: it stays as it is.  `available` are the bytes that the weights may take.

    Raises OptionError for what is no scheme, and for experts only of a model that has none.
    """
    if organization not in (None, *ORGANIZATIONS):
        near = did_you_mean(str(organization), ORGANIZATIONS)
        raise OptionError(f"organization is {shown(organization)}. {near}".rstrip(), fix='"moqe", or leave it away')
    if organization == "moqe" and quant is None:
        raise OptionError("organization says which weights quant packs, and there is no quant.", fix='give quant="q4k"')
    candidates = [site for site in sites if site.shape[-2] >= _FEWEST_ROWS]
    if organization == "moqe":
        candidates = [site for site in candidates if site.role == "experts"]
        if not candidates:
            raise OptionError("The model has no experts, so that none are packed.", fix="leave organization away")
    chosen: Chosen = dict.fromkeys((site.name for site in sites), None)
    if quant is not None:
        chosen.update(_choose(quant, candidates, config, device, available, dtype_bytes))
    return chosen


def _choose(
    quant: str | int | Callable[[Site], str | None],
    sites: Sequence[Site],
    config: Config,
    device: str,
    available: int | None,
    dtype_bytes: int,
) -> Mapping[str, str | None]:
    if not isinstance(quant, str | int):
        return {site.name: _named(quant(site)) for site in sites}
    name = str(quant).strip().lower()
    if name == AUTO:
        best = _fitting(sites, device, available, dtype_bytes)
        if best is None:
            return {}
        name = best
    if name.isdecimal() and device.startswith("mps"):
        name = METAL_BITS.get(int(name), name)
    if name in MIXTURES:
        return assign(name, [site.name for site in sites], _traits(config))
    if (method := method_of(name)) is not None:
        return {site.name: "q8_0" if site.role in ("head", "embedding") else method.name for site in sites}
    base = find(name)
    sensitive = promoted(base)
    return {site.name: (sensitive if site.role in ("head", "embedding") else base).name for site in sites}


def _named(answer: object) -> str | None:
    if answer is None:
        return None
    if not isinstance(answer, str):
        raise OptionError(f"The function given as quant answered {shown(answer)}; the name of a scheme or None is due.")
    return find(answer).name


def _fitting(sites: Sequence[Site], device: str, available: int | None, dtype_bytes: int) -> str | None:
    """The scheme of most bits that fits the memory; None where plain weights do."""
    numbers = sum(_count(site) for site in sites)
    if available is None or numbers * dtype_bytes <= available:
        return None
    best = for_memory(numbers, available)
    if best is None:
        least = numbers * min(SCHEMES[name].bits for name in BITS.values()) / 8
        raise OutOfMemory(
            f"Even in two bits the weights need {least / 1e9:.1f} GB; {available / 1e9:.1f} GB are there on {device}.",
            fix="a smaller model, or another device",
        )
    return best


def _count(site: Site) -> int:
    total = 1
    for length in site.shape:
        total *= length
    return total


def _traits(config: Config) -> Traits:
    text = config.text
    heads, keys = text.get("num_attention_heads") or 1, text.get("num_key_value_heads") or 1
    return Traits(text.get("num_hidden_layers") or 0, heads // keys, text.get("num_experts") or 0)
