"""Who may import whom: read from the source, so that no import is missed because it is not run."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = sorted(
    path.parent
    for path in [
        ROOT / "core/pyproject.toml",
        ROOT / "quant/pyproject.toml",
        ROOT / "kernels/pyproject.toml",
        *ROOT.glob("plugins/*/*/pyproject.toml"),
    ]
)
FORBIDDEN_TO_ALL = {
    "transformers",
    "diffusers",
    "gguf",
    "PIL",
    "soundfile",
    "soxr",
    "triton",
    "fastapi",
    "uvicorn",
    "pickle",
}
OWN = {"quant": {"gguf"}}
"""What is for one distribution alone; a folder named after a library is for that library too."""
FOLDERS = {"PIL": "media", "soundfile": "audio", "soxr": "audio"}
"""Folders with another name than the library that they are for."""
MODULES = {"pyyaml": "yaml", "pillow": "PIL"}
"""Libraries whose modules have other names."""
LIGHT = (
    "__init__",
    "hookspecs",
    "records",
    "protocols",
    "registry",
    "builtin",
    "catalog",
    "errors",
    "nearest",
    "weights",
)


def modules_of(distribution: Path) -> list[Path]:
    return sorted((distribution / "src").rglob("*.py"))


def imports_of(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """The first part of every imported name; with `top_level` those that run at import, TYPE_CHECKING aside."""
    tree = ast.parse(path.read_text())
    nodes = _at_import(tree.body) if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield (node.module or "").partition(".")[0]


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for inner in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _at_import(getattr(node, inner, []))


def folders_of(path: Path) -> set[str]:
    """The folders of a file, and the libraries that these are for."""
    parts = set(path.parent.parts)
    return parts | {library for library, folder in FOLDERS.items() if folder in parts}


def sees(project: dict[str, Any]) -> set[str]:
    """What a distribution gets with the part of the core that reads pictures."""
    return {"PIL"} if any(text.startswith("bestiary-core[vision]") for text in project["dependencies"]) else set()


def declared(distribution: Path) -> set[str]:
    """The Bestiary modules of the distributions that a pyproject.toml asks for."""
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    names = [text.partition(">")[0].partition("[")[0].strip() for text in project["dependencies"]]
    return {name.replace("-", "_") for name in names if name.startswith("bestiary-")}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_imports_stay_within_the_declared_distributions(distribution: Path) -> None:
    own = next((distribution / "src").iterdir()).name
    allowed = {own, *declared(distribution)} | ({"bestiary"} if own != "bestiary" else set())
    pictures = sees(tomllib.loads((distribution / "pyproject.toml").read_text())["project"])
    for path in modules_of(distribution):
        if "testing" in path.parts:
            continue
        found = set(imports_of(path))
        foreign = {name for name in found if name.startswith("bestiary")} - allowed
        assert not foreign, f"{path} imports {foreign}"
        unwanted = found & (FORBIDDEN_TO_ALL - OWN.get(distribution.name, set()) - folders_of(path) - pictures)
        assert not unwanted, f"{path} imports {unwanted}"


def test_the_contract_imports_no_torch() -> None:
    for name in LIGHT:
        path = ROOT / "core/src/bestiary" / f"{name}.py"
        assert "torch" not in set(imports_of(path, top_level=True)), path


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_third_party_imports_are_declared(distribution: Path) -> None:
    import sys

    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    asked = {text.partition(">")[0].partition("[")[0].strip().replace("-", "_") for text in project["dependencies"]}
    if distribution.name != "core":
        asked |= {"torch", "numpy"}  # what the core cannot be installed without
    own = {path.name for path in (distribution / "src").iterdir()} | {"bestiary"}
    extras = [text for texts in project.get("optional-dependencies", {}).values() for text in texts]
    optional = {text.partition(">")[0].partition("[")[0].strip().replace("-", "_") for text in extras}
    asked, optional = ({MODULES.get(name, name) for name in names} for names in (asked, optional))
    asked |= sees(project)
    known = set(sys.stdlib_module_names) | asked | own | {"importlib"}
    for path in modules_of(distribution):
        if "testing" not in path.parts:
            foreign = set(imports_of(path)) - known - optional
            # An extra is imported where it is used, or at the top of what is for it alone.
            foreign |= set(imports_of(path, top_level=True)) - known - (optional & folders_of(path))
            assert not foreign, f"{path} imports {foreign}, which pyproject.toml does not ask for"


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for distribution in DISTRIBUTIONS
        for path in modules_of(distribution)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_the_llama_plugin_stays_small() -> None:
    """Six architectures in 120 lines, beside their tests' configurations and the formats of their tool calls."""
    folder = ROOT / "plugins/text/llama/src/bestiary_llama"
    own = [path for path in folder.glob("*.py") if path.name not in ("tiny.py", "tools.py")]
    lines = {path.name: len(path.read_text().splitlines()) for path in own}
    assert sum(lines.values()) < 120, lines
