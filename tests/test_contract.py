"""The contract changes on purpose or not at all."""

import dataclasses
import inspect
import re
from pathlib import Path

from bestiary import hookspecs, protocols, records, weights
from bestiary.registry import default_registry

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "contract.txt"
HOOKS = [name for name in vars(hookspecs) if name.startswith("bestiary_")]


def contract() -> str:
    """Every signature that a plugin may rely on, as text."""
    lines = [f"API {records.API}"]
    lines += [f"hook {name}{inspect.signature(getattr(hookspecs, name))}" for name in HOOKS]
    for name, record in sorted(vars(records).items()):
        if dataclasses.is_dataclass(record):
            for field in dataclasses.fields(record):
                needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
                lines.append(f"record {name}.{field.name}: {_spelled(field.type)}{'' if needed else ' (optional)'}")
    for protocol in (protocols.Repository, protocols.Checkpoint, protocols.PackingPlan):
        for name, member in sorted(vars(protocol).items()):
            if inspect.isfunction(member) and not name.startswith("_"):
                lines.append(f"protocol {protocol.__name__}.{name}{inspect.signature(member)}")
    verbs = sorted(weights._VERBS)
    lines += [f"verb {verb}{inspect.signature(getattr(weights, verb))}" for verb in verbs]
    return "\n".join(lines) + "\n"


def _spelled(kind: object) -> str:
    return kind if isinstance(kind, str) else re.sub(r"\b(typing|collections\.abc|bestiary\.records)\.", "", str(kind))


def test_the_contract_is_the_golden_one() -> None:
    assert contract() == GOLDEN.read_text(), (
        "the contract changed: if that is meant, raise bestiary.records.API and write tests/golden/contract.txt anew "
        "with `python tests/test_contract.py`"
    )


def test_every_hook_has_one_sentence_and_a_row_in_the_documentation() -> None:
    page = (ROOT / "docs/hooks.md").read_text()
    for name in HOOKS:
        text = inspect.getdoc(getattr(hookspecs, name)) or ""
        assert re.fullmatch(r"[A-Z][^.]+\.", text), f"{name}: {text!r}"
        assert f"| `{name}(" in page


def test_the_documented_hooks_exist() -> None:
    page = (ROOT / "docs/hooks.md").read_text()
    assert set(re.findall(r"`(bestiary_[a-z_]+)\(", page)) == set(HOOKS)


def test_every_error_is_documented() -> None:
    from bestiary import errors

    page = (ROOT / "docs/errors.md").read_text()
    leaves = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.BestiaryError)
        and name not in ("BestiaryError", "PluginError", "SourceError")
    ]
    for name in leaves:
        assert f"`{name}`" in page, name


def test_the_hook_page_fits_a_screen() -> None:
    assert len(inspect.getsource(hookspecs).splitlines()) <= 65


def test_the_catalog_lists_what_the_plugins_register() -> None:
    from bestiary.catalog import DISTRIBUTIONS, MODEL_TYPES

    names: dict[str, set[str]] = {}
    types: dict[str, set[str]] = {}
    for record, plugin in default_registry().records(records.Architecture):
        names.setdefault(plugin.distribution, set()).update((record.name, *record.aliases))
        types.setdefault(plugin.distribution, set()).update(record.model_types)
    assert {name: set(listed) for name, listed in DISTRIBUTIONS.items()} == names
    assert {name: set(listed) for name, listed in MODEL_TYPES.items()} == {
        name: kinds for name, kinds in types.items() if kinds
    }


if __name__ == "__main__":
    GOLDEN.write_text(contract())
