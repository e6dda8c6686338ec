"""Writing a model as GGUF, weight by weight: what is in memory is one of them and the metadata."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.config import Config
from bestiary.errors import CheckpointError, OptionError
from bestiary.records import Packing, Progress
from bestiary_quant.blocks.types import TYPES, BlockType
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf.names import ROTARY
from bestiary_quant.gguf.parts import close_parts, read_content, read_parts
from bestiary_quant.gguf.selection import files
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.writing import values
from bestiary_quant.writing.filetypes import PLAIN, file_type
from bestiary_quant.writing.gguf_file import Announced, GgufFile
from bestiary_quant.writing.layout import always_plain, content, shape_in_file
from bestiary_quant.writing.metadata import config_pairs, general_pairs, gguf_architecture
from bestiary_quant.writing.names import gguf_names
from bestiary_quant.writing.partial import PartialFiles, check_absent
from bestiary_quant.writing.rope import rope_tensors
from bestiary_quant.writing.values import Pairs

if TYPE_CHECKING:
    from bestiary.identified import Identified
    from bestiary.loading import WeightStream

log = logging.getLogger("bestiary_quant.writing")

F32 = TYPES[0]
_BY_NAME = {kind.name: kind for kind in TYPES.values() if kind.packed}
QUANTIZATION_VERSION = 2
"""`GGML_QNT_VERSION`."""


@dataclass(frozen=True)
class Extra:
    """A tensor that belongs to the configuration, and is no weight."""

    name: str
    shape: tuple[int, ...]
    data: bytes


def write_gguf(
    stream: WeightStream,
    path: Path,
    *,
    scheme: str | None = None,
    plain: str = "f16",
    unpack: bool = False,
    split_max_size: int | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Mapping[Path, int]:
    """Write all weights of a stream into `path`, or into several files beside it; their sizes in bytes.

    `scheme` is what was asked for by name, for the file to say so; `plain` the type of matrices that are not packed,
    and `unpack` makes every weight plain.  Of a GGUF file the metadata are copied, and tensors alone change.  Raises
    OptionError for a model that files cannot say and for files that exist, TokenizerError, CheckpointError.
    """
    if plain not in PLAIN:
        raise OptionError(f"Plain weights are of the type {plain}.", fix=f"one of {', '.join(PLAIN)}")
    rest = next(kind for kind in TYPES.values() if kind.name.lower() == plain)
    config = stream.identified.config.text
    architecture, pairs, extras = _source(stream, config)
    names = gguf_names(stream.puller.names, architecture, int(config.num_hidden_layers))
    kinds = {name: _expected(stream, name, names[name], rest, unpack) for name in names}
    announced = [_announced(stream, name, names[name], kinds[name]) for name in names]
    written: Counter[BlockType] = Counter()
    stored = {site.name: _BY_NAME.get(site.stored) for site in stream.sites}
    for name, tensor in zip(names, announced, strict=True):
        kind = kinds[name] or stored.get(name) or rest
        if kind is not F32:
            written[kind] += tensor.nbytes
    pairs["general.file_type"] = values.u32(file_type(plain if unpack else scheme, written))
    pairs["general.quantization_version"] = values.u32(QUANTIZATION_VERSION)
    announced = [Announced(extra.name, extra.shape, len(extra.data)) for extra in extras] + announced
    with PartialFiles() as partial:
        file = GgufFile(partial, path, pairs, announced, split_max_size)
        check_absent(file.paths, force)
        for extra in extras:
            file.add(extra.name, extra.shape, F32, [extra.data])
        total, done = sum(tensor.nbytes for tensor in announced), 0
        for name, weight in stream:
            if name not in names:
                raise CheckpointError(f"The weight {name!r} was not announced.", where=path)
            made = content(name, names[name], weight, config, architecture, rest, unpack)
            _compare(name, kinds[name], made.kind)
            done += file.add(names[name], made.shape, made.kind, made.chunks)
            if progress is not None:
                progress(Progress("write", min(done, total), total, name))
        return file.finish()


def _source(stream: WeightStream, config: Config) -> tuple[str, Pairs, Sequence[Extra]]:
    """The architecture, the metadata and the tensors of the configuration."""
    from bestiary.generation.carried import carried_text
    from bestiary_quant.writing.tokenizer import tokenizer_pairs

    identified = stream.identified
    if identified.evidence.gguf is not None:
        return _copied(identified)
    architecture = gguf_architecture(identified.architecture.name)
    pairs = general_pairs(architecture, _name(identified))
    pairs.update(config_pairs(config, architecture))
    text = carried_text(identified)
    pairs.update(tokenizer_pairs(identified.repository, int(config.vocab_size), config, text))
    if pairs.get("tokenizer.ggml.model") == values.text("none"):
        pairs[f"{architecture}.vocab_size"] = values.u32(config.vocab_size)
    extras = [
        Extra(name, (len(factors),), values.numbers(factors)[16:])
        for name, factors in rope_tensors(config.rope(), int(config.head_dim)).items()
    ]
    return architecture, pairs, extras


def _copied(identified: Identified) -> tuple[str, Pairs, Sequence[Extra]]:
    """What a GGUF file says, as it stands there.  Raises OptionError for an architecture that is not written here."""
    repository = identified.repository
    parts = read_parts(repository, files(repository), fetch=False)
    try:
        metadata: Metadata = parts[0].header.metadata
        architecture = metadata.architecture or ""
        if gguf_architecture(identified.architecture.name) != architecture:
            raise OptionError(f"Models of {identified.architecture.name} are not written as {architecture}.")
        extras = [
            Extra(name, entry.shape, read_content(repository, part, entry))
            for part in parts
            for name, entry in part.header.tensors.items()
            if name in ROTARY and entry.kind is F32
        ]
        return architecture, values.copied(metadata), extras
    finally:
        close_parts(parts)


def _name(identified: Identified) -> str:
    stated: Any = identified.config.get("_name_or_path") or identified.repository.id
    return str(stated).replace("\\", "/").rstrip("/").rpartition("/")[2][:200] or identified.architecture.name


def _expected(stream: WeightStream, name: str, stored: str, rest: BlockType, unpack: bool) -> BlockType | None:
    """The type that a weight is to come in; None where the checkpoint decides."""
    if always_plain(stored, shape_in_file(name, stream.puller.shape(name))):
        return F32
    if unpack:
        return rest
    packing: Packing | None = stream.packing.assigned.get(name) if stream.packing is not None else None
    if packing is None or packing.scheme is None:
        return None
    kind = SCHEMES[packing.scheme].kind if packing.scheme in SCHEMES else None
    if kind is None or kind.code < 0:
        raise OptionError(f"GGUF files do not hold weights of the scheme {packing.scheme}.", where=name)
    return kind


def _announced(stream: WeightStream, name: str, stored: str, kind: BlockType | None) -> Announced:
    shape = shape_in_file(name, stream.puller.shape(name))
    count = 1
    for size in shape[:-1]:
        count *= size
    whole = kind is not None and shape[-1] % kind.length == 0
    nbytes = count * kind.row(shape[-1]) if kind is not None and whole else stream.puller.nbytes(name)
    return Announced(stored, shape, nbytes)


def _compare(name: str, due: BlockType | None, came: BlockType) -> None:
    """What was to be packed may come plain, for only its numbers show that no scheme holds them; nothing else."""
    if due is None or came is due:
        return
    if came.packed:
        raise CheckpointError(f"The weight {name!r} comes as {came.name}; {due.name} was announced.")
    log.warning("%s is written as %s: it is no whole blocks of %s, or has numbers beyond", name, came.name, due.name)
