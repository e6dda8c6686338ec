"""Writing a model as safetensors in a folder, packed as other programs read it, or plain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bestiary.errors import CheckpointError, OptionError
from bestiary.nn.packed import Packed
from bestiary.records import Progress
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.writing.assets import assets, configuration
from bestiary_quant.writing.contents import as_bytes
from bestiary_quant.writing.layout import plain
from bestiary_quant.writing.layouts import LAYOUTS, Layout, Notes
from bestiary_quant.writing.partial import PartialFiles, told
from bestiary_quant.writing.published import published_names
from bestiary_quant.writing.shards import INDEX, SHARD, Shards, header_bytes, stale

if TYPE_CHECKING:
    from bestiary.loading import WeightStream

log = logging.getLogger("bestiary_quant.writing")

_PACKED = ("linear", "experts")
"""Roles that every layout packs; programs expect embeddings and heads plain."""
_TYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int8: "I8",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.uint32: "U32",
}


def known_layout(scheme: str) -> str:
    """The scheme as this package spells it.  Raises OptionError for one that safetensors are not written in."""
    from bestiary_quant.calibration.methods import method_of
    from bestiary_quant.making.schemes import find

    method = method_of(scheme)
    try:
        name = method.name if method is not None else find(scheme).name
    except OptionError:
        name = ""
    if name not in LAYOUTS:
        raise OptionError(
            f"Safetensors are not written in the scheme {scheme[:100]!r}.", fix=f"one of {', '.join(LAYOUTS)}"
        )
    return name


def write_safetensors(
    folder: Path,
    stream: WeightStream,
    scheme: str | None = None,
    *,
    shard_bytes: int = SHARD,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Mapping[Path, int]:
    """Write weights, configuration and what belongs to them; the sizes of the files in bytes.

    `scheme` decides the layout of packed weights; those that it does not know, embeddings and heads in most, are
    written plain.  The weights have the names under which models of the architecture are published, experts one by
    one.  Raises OptionError for a folder with other weights, unless `force` replaces them, and CheckpointError.
    """
    layout = None if scheme is None else LAYOUTS[known_layout(scheme)]
    check_folder(folder, stream, force)
    identified, puller = stream.identified, stream.puller
    shapes = {name: puller.shape(name) for name in puller.names}
    names = published_names(puller.names, identified.architecture.weights, shapes, identified.config)
    header = sum(4 * header_bytes(f"{stored}.qweight") for group in names.values() for stored in group)
    roles = {site.name: site.role for site in stream.sites}
    total, done, notes = sum(puller.nbytes(name) for name in puller.names), 0, Notes()
    with PartialFiles() as files:
        shards = Shards(files, folder, header, shard_bytes)
        for name, weight in stream:
            way = layout if layout is not None and (layout.embeddings or roles.get(name) in _PACKED) else None
            if way is None and layout is not None and not isinstance(weight, torch.Tensor):
                weight = puller.plain(name)  # as the checkpoint has it, and not what packing made of it
            for stored, part in _parts(names[name], weight):
                made = _packed(way, stored, part, notes)
                if made is None:
                    made = {stored: plain(part).to(puller.dtype)}
                    if name in roles and "embed" not in name:
                        notes.plain.append(stored.removesuffix(".weight"))
                for key, tensor in made.items():
                    shards.add(key, _TYPES[tensor.dtype], tuple(tensor.shape), [as_bytes(tensor)])
            done += puller.nbytes(name)
            if progress is not None:
                progress(Progress("write", done, total, name))
        shards.finish()
        said = {}
        if layout is not None and notes.forms:
            said = dict.fromkeys(layout.keys, layout.config(notes))
        elif layout is not None:
            raise OptionError(f"No weight of the model can be packed as {scheme}.")
        dtype = str(puller.dtype).removeprefix("torch.")
        for name, content in assets(identified):
            files.write(folder / name, content)
        files.write(folder / "config.json", configuration(identified, dtype, said))
        written = files.finish()
    for path in stale(folder, written):
        with told(path):
            path.unlink()
    return written


def check_folder(folder: Path, stream: WeightStream, force: bool) -> None:
    """Raises OptionError where the folder has weights already, or is the one that is read."""
    if stream.identified.repository.local and str(folder.resolve()) == stream.identified.repository.origin:
        raise OptionError("The folder is the one that is read.", where=folder, fix="write elsewhere, with -o")
    if folder.exists() and not folder.is_dir():
        raise OptionError("This is a file; a folder is due.", where=folder, fix="write elsewhere, with -o")
    if not force and folder.is_dir() and (any(folder.glob("*.safetensors")) or (folder / INDEX).exists()):
        raise OptionError(
            "The folder has weights already.", where=folder, fix="--force replaces them, -o writes elsewhere"
        )


def _parts(names: tuple[str, ...], weight: torch.Tensor | Packed) -> Iterator[tuple[str, torch.Tensor | Packed]]:
    if len(names) == 1:
        yield names[0], weight
        return
    if len(names) != weight.shape[0]:
        raise CheckpointError(f"A stack of {weight.shape[0]} experts is to become {len(names)} tensors: {names[0]}.")
    for number, name in enumerate(names):
        yield name, weight[number]  # type: ignore[index]  # of several names it is a stack


def _packed(
    layout: Layout | None, name: str, weight: torch.Tensor | Packed, notes: Notes
) -> dict[str, torch.Tensor] | None:
    """The tensors of a packed weight by their names; None where it is written plain."""
    if isinstance(weight, torch.Tensor) or layout is None or not name.endswith(".weight"):
        return None
    made = layout.tensors(weight)
    module = name.removesuffix(".weight")
    if made is None:
        log.warning("%s is written plain: it is packed in another way than the rest", name)
        return None
    if isinstance(weight, CodedMatrix):
        zeros = weight.scaling.zeros
        notes.forms[module] = weight.codes.bits, weight.scaling.run
        notes.ordered = notes.ordered or weight.scaling.order is not None
        middle = 1 << weight.codes.bits - 1
        notes.symmetric = notes.symmetric and (zeros is None or bool((zeros == middle).all()))
    else:
        notes.forms[module] = 4, 32
    return {f"{module}.{ending}": tensor for ending, tensor in made.items()}
