"""What a folder of UQFF files holds, and what is wrong with it; reads headers and descriptions, no weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bestiary.errors import BestiaryError, CheckpointError
from bestiary.protocols import Repository
from bestiary.sources.folder import Folder
from bestiary_quant.blocks.types import TYPES
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.uqff import checkpoint, selection
from bestiary_quant.uqff.form import CONFIG, VERSION
from bestiary_quant.uqff.selection import Model

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class LayerReport:
    """One layer: what the file calls it, its type, its shape in numbers, and its bytes in the file without the bias."""

    key: str
    kind: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class ModelReport:
    """One model of a folder."""

    label: str
    files: tuple[str, ...]
    nbytes: int
    version: str = ""
    layers: tuple[LayerReport, ...] = ()
    counts: Mapping[str, int] | None = None
    """Layers of each type."""
    plain: int = 0
    """Tensors that are no layers: norms, biases, and what was left as it is."""
    problem: str = ""
    """Why it cannot be opened."""


@dataclass(frozen=True)
class FolderReport:
    """A folder."""

    origin: str
    models: tuple[ModelReport, ...]
    problems: tuple[str, ...]
    """Everything that is wrong, those of the models too."""

    def as_json(self) -> dict[str, Any]:
        """Of plain objects, lists and numbers."""
        return asdict(self)


def report(folder: Path | Repository, *, strict: bool = False) -> FolderReport:
    """What lies in a folder, or in a repository that is on this machine.

    Raises CheckpointError where nothing there is UQFF; where `strict`, also for the first of the problems.
    """
    repository = Folder(folder, str(folder)) if isinstance(folder, Path) else folder
    problems: list[str] = []
    found = selection.of(repository)
    if not found:
        raise CheckpointError("There is no .uqff file.", where=repository.origin, fix="check the name of the folder")
    names = repository.files()
    if CONFIG not in names:
        problems.append(f"{CONFIG} is missing, without which the folder cannot be loaded.")
    if not names.keys() & set(_TOKENIZERS):
        problems.append("No tokenizer lies here.")
    models = tuple(_model(repository, model) for model in found)
    problems.extend(f"{model.label}: {model.problem}" for model in models if model.problem)
    if strict and problems:
        raise CheckpointError(problems[0], where=repository.origin, fix="fetch the files again, or make them again")
    return FolderReport(repository.origin, models, tuple(problems))


def _model(repository: Repository, model: Model) -> ModelReport:
    if model.missing:
        lacking = f"{', '.join(model.missing[:5])} missing"
        return ModelReport(model.label, model.files, model.nbytes, problem=lacking)
    try:
        opened = checkpoint.open(repository, model.files)
    except BestiaryError as error:
        return ModelReport(model.label, model.files, model.nbytes, problem=str(error))
    try:
        layers = tuple(
            LayerReport(layer.key, layer.weight.kind, layer.weight.shape, opened.nbytes(layer.name))
            for layer in opened.layers.values()
        )
        counts = dict(sorted(Counter(layer.kind for layer in layers).items()))
        version = ".".join(map(str, opened.version))
        plain = len(opened.names()) - len(layers)
        return ModelReport(model.label, model.files, model.nbytes, version, layers, counts, plain)
    finally:
        opened.close()


def mistralrs_report(folder: Path) -> dict[str, Any]:
    """uqff_report.json of a folder, as mistral.rs writes and reads it (schema 1).  Raises CheckpointError."""
    repository = Folder(folder, str(folder))
    outputs = []
    for model in report(repository, strict=False).models:
        if model.problem:
            raise CheckpointError(model.problem, where=folder)
        named = {kind: _spelled(kind) for kind in model.counts or ()}
        outputs.append(
            {
                "quant": model.label,
                "shards": [name for name in model.files if name.endswith(".uqff")],
                "layers": len(model.layers),
                "actual_counts": {named[kind]: count for kind, count in (model.counts or {}).items()},
                "fallback_count": 0,
                "layer_details": [
                    {"module": layer.key, "stored": named[layer.kind], "shape": list(layer.shape)}
                    for layer in model.layers
                ],
            }
        )
    return {
        "schema": 1,
        "generated_by": {"tool": "bestiary"},
        "uqff_version": ".".join(map(str, VERSION)),
        "outputs": outputs,
    }


def _spelled(kind: str) -> str:
    """A type as mistral.rs spells it: "Q4_K" is "q4k", and plain numbers in a layer are "unquant"."""
    known = {scheme.kind.name: scheme.name for scheme in SCHEMES.values() if scheme.kind is not None}
    if kind in {plain.name for plain in TYPES.values() if plain.dtype is not None}:
        return "unquant"
    return known.get(kind, kind.lower())
