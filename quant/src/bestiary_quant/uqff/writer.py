"""Writing a model as UQFF 1.2, weight by weight as they are made: what is in memory is one weight, and the norms.

What is packed becomes a layer, with its bias, and so do plain stacks of experts.  Everything else goes into the
residual, where mistral.rs looks for whatever is no layer, plain linear layers and embeddings included.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bestiary.checkpoints.safetensors_file import SafetensorsFile
from bestiary.errors import CheckpointError, ConfigError, OptionError, shown
from bestiary.nn.packed import Packed
from bestiary.protocols import Repository
from bestiary.records import Progress
from bestiary.sources.names import name_fault
from bestiary_quant.uqff.assets import configuration, copy_assets
from bestiary_quant.uqff.form import REPORT, RESIDUAL, SUFFIX, VERSION, key_of
from bestiary_quant.uqff.pieces import Piece, pieces, plain
from bestiary_quant.uqff.report import FolderReport, mistralrs_report, report
from bestiary_quant.uqff.shards import Shards, Writing, room_for
from bestiary_quant.uqff.staging import staged

SHARD = 10 << 30
"""Bytes of a shard, as mistral.rs has it; only a layer that is larger makes a larger one."""
_JOINED = ("phi3", "phi4mm")
"""Types of models whose projections mistral.rs wants joined, `qkv_proj` and `gate_up_proj`."""
_METADATA = {"uqff.producer": "bestiary", "uqff.version": ".".join(map(str, VERSION))}
_HEADROOM = 1 << 20
_ENTRIES = 12
"""Of a layer in HQQ, with its bias."""


def write(
    folder: Path,
    stream: Iterable[tuple[str, torch.Tensor | Packed]],
    *,
    name: str,
    repository: Repository | None = None,
    config: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    expected: int = 0,
    shard_bytes: int = SHARD,
    progress: Callable[[Progress], None] | None = None,
) -> FolderReport:
    """Write `<name>-0.uqff`, ..., residual.safetensors, the assets of `repository`, and uqff_report.json.

    `stream` has the parameters of the model under their names, in any order.  `config` is config.json, where the
    repository has none or another is due; `names` are all names to come, so that headers are no larger than need be;
    `expected` is how many bytes of weights there will be, for progress and to ask the disk beforehand.

    The folder appears whole or not at all.  Where it has a model of another name already, this one is put beside it if
    what is not packed is the same in both.
    Raises OptionError for a weight that UQFF has no form for, ConfigError where there is no config.json, and
    CheckpointError where the disk is full.
    """
    if not name or name_fault(f"{name}-0{SUFFIX}") or "/" in name or name.startswith("."):
        raise OptionError(f"{shown(name)} cannot begin the name of a file.", fix='a type is usual: "q4k"')
    if shard_bytes < 1:
        raise OptionError(f"shard_bytes is {shown(shard_bytes)}; a number of bytes is due.")
    written = configuration(repository, config)
    model_type = written.get("model_type")
    if model_type in _JOINED:
        raise OptionError(f"mistral.rs wants the projections of {model_type} joined, and they are parted here.")
    with staged(folder) as place:
        _check_room(place, expected, folder)
        writing = _Model(place, name, names, shard_bytes, str(model_type or ""), _counter(expected, progress))
        try:
            for parameter, weight in stream:
                writing.add(parameter, weight)
            writing.finish()
        finally:
            writing.abandon()
        copy_assets(repository, written, place)
        listed = mistralrs_report(place)
        if folder.is_dir() and any(folder.iterdir()):
            listed = _beside(folder, place, name, listed)
        (place / REPORT).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    return report(folder)


class _Model:
    """The files of one model while they are written."""

    def __init__(
        self,
        place: Path,
        stem: str,
        names: Sequence[str] | None,
        most: int,
        model_type: str,
        written: Callable[[str, int], None],
    ) -> None:
        self._current = ""

        def counted(nbytes: int) -> None:
            written(self._current, nbytes)

        self._shards = Shards(place, stem, most, room_for(names, _ENTRIES), _METADATA, counted)
        self._residual = Writing(place / RESIDUAL, room_for(names, 1), _METADATA, counted)
        self._expected, self._type = None if names is None else frozenset(names), model_type
        self._keys: dict[str, None] = {}
        self._vectors: dict[str, torch.Tensor] = {}
        self._seen: set[str] = set()

    def add(self, name: str, weight: torch.Tensor | Packed) -> None:
        if name in self._seen or (self._expected is not None and name not in self._expected):
            raise OptionError(f"The weight {name!r} came {'twice' if name in self._seen else 'unannounced'}.")
        self._seen.add(name)
        self._current = name
        if isinstance(weight, torch.Tensor) and weight.ndim < 2:
            # Whether it is the bias of a layer shows when all layers are known.
            self._vectors[name] = weight.detach().to("cpu", copy=True)
        elif isinstance(weight, torch.Tensor) and weight.ndim == 2:
            self._keep(plain(_plain_name(name, self._type), weight))
        else:
            key = key_of(name, self._type)
            self._keys[key] = None
            self._shards.add(pieces(key, weight))

    def finish(self) -> None:
        if not self._keys:
            raise OptionError("No weight is packed, so that there is nothing to write as UQFF.", fix="choose a quant=")
        for name, vector in self._vectors.items():
            self._current = name
            key = key_of(name.removesuffix(".bias") + ".weight", self._type) if name.endswith(".bias") else ""
            if key in self._keys:
                self._shards.add([plain(f"{key}.bias", vector)])
            else:
                self._keep(plain(_plain_name(name, self._type), vector))
        self._shards.close()
        self._residual.close()

    def abandon(self) -> None:
        self._shards.abandon()
        self._residual.abandon()

    def _keep(self, piece: Piece) -> None:
        if not self._residual.fits([piece]):
            raise OptionError("The residual has more tensors than were announced.", fix="give all names along")
        self._residual.add([piece])


def _plain_name(name: str, model_type: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f"{key_of(f'{stem}.weight', model_type)}{dot}{ending}" if ending in ("weight", "bias") else name


def _counter(expected: int, progress: Callable[[Progress], None] | None) -> Callable[[str, int], None]:
    done = 0

    def written(item: str, nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(Progress("write", done, max(expected, done), item))

    return written


def _check_room(place: Path, expected: int, folder: Path) -> None:
    free = shutil.disk_usage(place).free
    if expected and expected + _HEADROOM > free:
        raise CheckpointError(
            f"The model takes {expected / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB left.",
            where=folder,
            fix="make room, or choose a folder on another disk",
        )


def _beside(folder: Path, place: Path, name: str, listed: dict[str, Any]) -> dict[str, Any]:
    """Leave in `place` the shards alone; the report, with what the folder has already.  Raises OptionError."""
    try:
        there = mistralrs_report(folder)
        same = _tensors(folder / RESIDUAL) == _tensors(place / RESIDUAL)
    except (CheckpointError, ConfigError) as error:
        raise OptionError(
            f"The folder is not empty, and no model can be put beside what lies there: {error.what}",
            where=folder,
            fix="name a folder that does not exist",
        ) from error
    if not same or any(output["quant"].lower() == name.lower() for output in there["outputs"]):
        what = "a model of this name" if same else "a residual with other tensors"
        raise OptionError(f"The folder has {what} already.", where=folder, fix="name a folder that does not exist")
    for path in place.iterdir():
        if path.suffix != SUFFIX:
            path.unlink()
    return {**listed, "outputs": [*there["outputs"], *listed["outputs"]]}


def _tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    with SafetensorsFile(path) as file:
        return {name: (entry.dtype, entry.shape) for name, entry in file.header.entries.items()}
