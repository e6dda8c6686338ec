"""A file before GGUF: sizes, vocabulary and tensors, parsed in one walk, checked before anything is allocated.

Seven numbers of 32 bits (vocabulary, width, multiple of the feed-forward width, heads, layers, width of what is turned,
and the type that most tensors have), then the tokens, then to the end of the file tensors, each with its data behind
its name.  So the shapes are known only where the whole file is.  Nothing here imports torch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bestiary.checkpoints import refuse
from bestiary.errors import CheckpointError
from bestiary_quant.ggml.versions import MARKS, VERSIONS, Version
from bestiary_quant.gguf.cursor import AGAIN, U32, Buffer, Cursor
from bestiary_quant.gguf.header import MAX_NAME, MAX_TENSORS, Entry

MAX_LAYERS = 4096
MAX_TOKENS = 1 << 19
"""As in the tokenizers of GGUF files; Llamas have 32,000 and a few added ones."""
MAX_TOKEN = 1 << 14
"""Bytes of a token."""
MAX_TEXT = 1 << 24
"""Bytes of all tokens together, which are held; those of Llama have 240,000."""
SINGLE = struct.Struct("<f")
OTHERS = "take a GGUF file of the same model; files of other models than Llama, which had such marks too, are not read"
SMALL_BLOCKS = "blocks of 64, which some builds of llama.cpp wrote, are not read: take a GGUF file of the same model"
MODEL = ("tok_embeddings.weight", "norm.weight", "output.weight")
LAYER = (
    "attention_norm.weight",
    "attention.wq.weight",
    "attention.wk.weight",
    "attention.wv.weight",
    "attention.wo.weight",
    "ffn_norm.weight",
    "feed_forward.w1.weight",
    "feed_forward.w2.weight",
    "feed_forward.w3.weight",
)


@dataclass(frozen=True)
class Sizes:
    """The seven numbers, in the order of the file."""

    vocab: int
    embd: int
    mult: int
    head: int
    layer: int
    rot: int
    ftype: int


@dataclass(frozen=True)
class GgmlHeader:
    """All that a file says but the data; tensors have the names that Meta gave them, in the order of the file."""

    version: Version
    sizes: Sizes
    tokens: tuple[bytes, ...]
    scores: tuple[float, ...] | None
    """None where the version has none."""
    tensors: Mapping[str, Entry]
    origin: str


def sniff(name: str, head: bytes) -> bool:
    """Whether a file begins with one of the marks: the ending `.bin` says nothing, for pickles have it as well."""
    return head[:4] in MARKS


def parse(data: Buffer, origin: str) -> GgmlHeader:
    """The header of the whole file `data`.

    Raises CheckpointError, which names the byte or the tensor, unless all of this holds: mark, version and types are
    known; names are printable text and none comes twice; rows are whole blocks; the file ends where a tensor does; and
    no tensor of a Llama with that many layers is absent.
    """
    cursor = Cursor(data, len(data), origin)
    version = _read_version(cursor)
    try:
        return _parse(cursor, version)
    except CheckpointError as error:
        if error.fix == AGAIN and not version.number:
            error.fix = OTHERS  # the mark without a version was that of all programs of ggml
        raise


def _parse(cursor: Cursor, version: Version) -> GgmlHeader:
    sizes = Sizes(*(cursor.number(U32, f"the number {field} of the model") for field in Sizes.__annotations__))
    _check_sizes(sizes, cursor)
    tokens, scores = _read_tokens(cursor, version, sizes.vocab)
    tensors: dict[str, Entry] = {}
    while cursor.at < cursor.size:
        if len(tensors) == MAX_TENSORS:
            raise cursor.error(f"more than {MAX_TENSORS} tensors")
        name, entry = _read_entry(cursor, version)
        if name in tensors:
            raise cursor.error(f"the tensor {name!r} comes twice")
        tensors[name] = entry
    _check_complete(tensors, sizes.layer, cursor.origin)
    return GgmlHeader(version, sizes, tokens, scores, tensors, cursor.origin)


def _read_version(cursor: Cursor) -> Version:
    head = bytes(cursor.data[:64])
    mark = MARKS.get(head[:4])
    if mark is None:
        raise refuse.foreign(head, cursor.origin) or CheckpointError(
            f"This is not a file of llama.cpp before GGUF: it begins with {head[:4]!r}.", where=cursor.origin, fix=AGAIN
        )
    cursor.skip(4, "the mark of the format")
    number = cursor.number(U32, "the version") if mark != "ggml" else 0
    for version in VERSIONS:
        if (version.mark, version.number) == (mark, number):
            return version
    known = ", ".join(str(version) for version in VERSIONS)
    raise CheckpointError(
        f"The file is {mark} of version {number}; known are {known}.", where=cursor.origin, fix=OTHERS
    )


def _check_sizes(sizes: Sizes, cursor: Cursor) -> None:
    most = {"vocab": MAX_TOKENS, "embd": 1 << 20, "head": 1 << 16, "layer": MAX_LAYERS}
    for field, limit in most.items():
        if not 0 < (value := getattr(sizes, field)) <= limit:
            raise CheckpointError(
                f"The number {field} of the model is {value}; 1 to {limit} are allowed.",
                where=cursor.origin,
                fix=OTHERS,
            )


def _read_tokens(cursor: Cursor, version: Version, count: int) -> tuple[tuple[bytes, ...], tuple[float, ...] | None]:
    if count > (cursor.size - cursor.at) // (8 if version.scored else 4):
        raise cursor.error(f"{count} tokens are announced, and {cursor.size - cursor.at} bytes are left in the file")
    tokens, scores, held = [], [], 0
    for _ in range(count):
        length = cursor.number(U32, "the length of a token")
        held += length
        if length > MAX_TOKEN or held > MAX_TEXT:
            raise cursor.error(
                f"a token has {length} bytes and all have {held}; {MAX_TOKEN} and {MAX_TEXT} are allowed"
            )
        start = cursor.at
        cursor.skip(length, "a token")
        tokens.append(bytes(cursor.data[start : cursor.at]))
        if version.scored:
            scores.append(cursor.number(SINGLE, "the score of a token"))
    return tuple(tokens), tuple(scores) if version.scored else None


def _read_entry(cursor: Cursor, version: Version) -> tuple[str, Entry]:
    dimensions = cursor.number(U32, "the count of dimensions of a tensor")
    length = cursor.number(U32, "the length of the name of a tensor")
    code = cursor.number(U32, "the type of a tensor")
    if dimensions not in (1, 2) or not 0 < length <= MAX_NAME:
        raise cursor.error(
            f"a tensor has {dimensions} dimensions and a name of {length} bytes; 1 or 2 and 1 to {MAX_NAME} are allowed"
        )
    sizes = [cursor.number(U32, "a dimension of a tensor") for _ in range(dimensions)]
    name = _read_name(cursor, length)
    if 0 in sizes:
        raise cursor.error(f"the tensor {name!r} has the impossible shape {sizes[::-1]}")
    kind = version.types.get(code)
    if kind is None:
        known = ", ".join(f"{number} ({known.name})" for number, known in version.types.items())
        raise cursor.error(f"the tensor {name!r} has the type {code}; those of {version} are {known}")
    if sizes[0] % kind.length:
        error = cursor.error(
            f"the tensor {name!r} has rows of {sizes[0]} numbers, and {kind.name} comes in blocks of {kind.length}"
        )
        error.fix = SMALL_BLOCKS if kind.length == 256 else error.fix
        raise error
    cursor.skip(-cursor.at % version.alignment, f"the padding before the tensor {name!r}")
    start = cursor.at
    cursor.skip(kind.row(sizes[0]) * math.prod(sizes[1:]), f"the tensor {name!r}")
    return name, Entry(kind, tuple(sizes[::-1]), start, cursor.at)


def _read_name(cursor: Cursor, length: int) -> str:
    start = cursor.at
    cursor.skip(length, "the name of a tensor")
    try:
        name = bytes(cursor.data[start : cursor.at]).decode()
    except UnicodeDecodeError:
        raise cursor.error("the name of a tensor is not UTF-8") from None
    if not name.isprintable():
        raise cursor.error(f"the name of a tensor holds control characters: {name[:80]!a}")
    return name


def _due(layers: int) -> Iterator[str]:
    yield from MODEL
    for layer in range(layers):
        yield from (f"layers.{layer}.{name}" for name in LAYER)


def _check_complete(tensors: Mapping[str, Entry], layers: int, origin: str) -> None:
    missing = [name for name in _due(layers) if name not in tensors]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"The file has {len(tensors)} tensors and lacks {', '.join(missing[:3])}{more}: it is truncated, or no "
            f"Llama of {layers} layers.",
            where=origin,
            fix=AGAIN,
        )
