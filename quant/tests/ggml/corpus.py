"""Hostile files, each with words of the error that it must give; None where it is harmless and must open."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

F32, Q4_0, Q4_2, Q5_0, Q4_K = 0, 2, 4, 6, 12
LAYER = ("attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm")
LAYER += ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
NAMES = tuple(
    f"{name}.weight" for name in ("tok_embeddings", "norm", "output", *(f"layers.0.{part}" for part in LAYER))
)
JT3, JT2, JT1, MF1, ML = b"tjgg\3\0\0\0", b"tjgg\2\0\0\0", b"tjgg\1\0\0\0", b"fmgg\1\0\0\0", b"lmgg"
MOST = (1 << 32) - 1


class Case(NamedTuple):
    name: str
    content: bytes
    says: str | None


def token(text: bytes, score: float | None = 0.0, length: int | None = None) -> bytes:
    raw = struct.pack("<I", len(text) if length is None else length) + text
    return raw if score is None else raw + struct.pack("<f", score)


def tensor(
    name: str | bytes,
    shape: tuple[int, ...] = (4, 4),
    kind: int = F32,
    data: bytes | None = None,
    *,
    length: int | None = None,
    dimensions: int | None = None,
) -> list[bytes]:
    """What stands before the padding, and what after it.  Dimensions in the file's order: columns first."""
    raw = name.encode() if isinstance(name, str) else name
    count = len(shape) if dimensions is None else dimensions
    head = struct.pack("<3I", count, len(raw) if length is None else length, kind)
    return [head + struct.pack(f"<{len(shape)}I", *shape) + raw, bytes(64) if data is None else data]


SOUND = [tensor(name, (4,), data=bytes(16)) if "norm" in name else tensor(name) for name in NAMES]


def file(
    magic: bytes = JT3,
    sizes: tuple[int, ...] = (4, 4, 256, 1, 1, 4, 0),
    tokens: list[bytes] | None = None,
    tensors: list[list[bytes]] | None = None,
    end: bytes = b"",
) -> bytes:
    """A file, sound unless its parts are not."""
    made = magic + struct.pack("<7I", *sizes)
    made += b"".join([token(b"a", None if magic == ML else 0.0)] * 4 if tokens is None else tokens)
    for head, data in SOUND if tensors is None else tensors:
        made += head
        if magic.startswith(b"tjgg"):
            made += bytes(-len(made) % 32)
        made += data
    return made + end


VALID = {magic: file(magic) for magic in (JT3, JT2, JT1, MF1, ML)}


def cases() -> Iterator[Case]:
    yield from (Case(f"sound {magic!r}", content, None) for magic, content in VALID.items())
    yield from _beginnings()
    yield from _tokens()
    yield from _tensors()


def _beginnings() -> Iterator[Case]:
    yield Case("empty", b"", "empty")
    yield Case("GGUF", b"GGUF" + VALID[JT3][4:], "GGUF")
    yield Case("big-endian", b"ggjt\0\0\0\3" + VALID[JT3][8:], "not a file of llama.cpp before GGUF")
    yield Case("an adapter", b"algg\1\0\0\0" + bytes(100), "not a file of llama.cpp before GGUF")
    yield Case("web page", b"<!DOCTYPE html><html>" + bytes(100), "web page")
    yield Case("pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull")
    yield Case("zip", b"PK\3\4" + bytes(100), "run code")
    for magic, number in ((b"tjgg", 0), (b"tjgg", 4), (b"tjgg", MOST), (b"fmgg", 0), (b"fmgg", 2)):
        yield Case(f"version {number} of {magic!r}", file(magic + struct.pack("<I", number)), f"of version {number}")
    for place, field in enumerate(("vocab", "embd", "mult", "head", "layer", "rot", "ftype")):
        for value in (0, 1 << 31, MOST):
            sizes = (*(4, 4, 256, 1, 1, 4, 0)[:place], value, *(4, 4, 256, 1, 1, 4, 0)[place + 1 :])
            checked = field in ("vocab", "embd", "head", "layer")
            yield Case(f"{field} {value}", file(sizes=sizes), f"The number {field} of the model" if checked else None)
    yield Case("4096 layers", file(sizes=(4, 4, 256, 1, 4096, 4, 0)), "lacks layers.1.attention_norm.weight")
    yield Case("another model of ggml", ML + struct.pack("<7I", 51865, 1500, 384, 6, 4, 448, 384), "other models than")


def _tokens() -> Iterator[Case]:
    yield Case("524288 tokens", file(sizes=(1 << 19, 4, 256, 1, 1, 4, 0)), "tokens are announced, and")
    yield Case("524289 tokens", file(sizes=((1 << 19) + 1, 4, 256, 1, 1, 4, 0)), "1 to 524288 are allowed")
    for length in (MOST, 1 << 31, 16385):
        yield Case(
            f"token of {length} bytes",
            file(tokens=[token(b"a", length=length)] * 4),
            "; 16384 and 16777216 are allowed",
        )
    large = file(sizes=(1025, 4, 256, 1, 1, 4, 0), tokens=[token(b"a" * 16384)] * 1025)
    yield Case("tokens of more than 16 MB", large, "all have 16793600")
    yield Case("token beyond the end", file(tokens=[token(b"a", length=16384)] * 4), "are left in the file")
    yield Case("one token too few", file(tokens=[token(b"a")] * 3), "malformed")
    yield Case("one token too many", file(tokens=[token(b"a")] * 5), "malformed")
    yield Case("empty tokens", file(tokens=[token(b"")] * 4), None)
    yield Case("tokens that are no text", file(tokens=[token(b"\xff\0")] * 4), None)
    yield Case("scores where there are none", file(ML, tokens=[token(b"a")] * 4), "other models than")


def _tensors() -> Iterator[Case]:
    def given(name: str, says: str | None, *more: list[bytes], magic: bytes = JT3) -> Case:
        return Case(name, file(magic, tensors=[*SOUND, *more]), says)

    yield given("one more", None, tensor("a"))
    yield given("tensor twice", "comes twice", tensor("norm.weight", (4,), data=bytes(16)))
    yield given("empty name", "a name of 0 bytes", tensor(""))
    yield given("name of 1025 bytes", "a name of 1025 bytes", tensor("a" * 1025))
    yield given(f"name of {MOST} bytes", f"a name of {MOST} bytes", tensor("a", length=MOST))
    yield given("name beyond the end", "are left in the file", tensor("a", data=b"", length=1000))
    yield given("name of control characters", "control characters", tensor("a\0\x1b[2J"))
    yield given("name that is no text", "not UTF-8", tensor(b"\xc3("))
    for count in (0, 3, 4, MOST):
        yield given(f"{count} dimensions", f"{count} dimensions", tensor("a", dimensions=count))
    yield given("a dimension of 0", "impossible shape", tensor("a", (0, 4)))
    yield given("a dimension of 0 hides a large one", "impossible shape", tensor("a", (MOST, 0)))
    yield given("exabytes", "are left in the file", tensor("a", (MOST, MOST)))
    yield given("dimensions whose product wraps to 0", "are left in the file", tensor("a", (1 << 31, 1 << 31)))
    yield given("one byte too few", "are left in the file", tensor("a", data=bytes(63)))
    yield given("one byte too many", "malformed", tensor("a", data=bytes(65)))
    yield given("rows of half a block", "blocks of 32", tensor("a", (16, 2), Q4_0))
    yield given("rows of half a small block", "blocks of 16", tensor("a", (8, 2), Q4_2), magic=JT1)
    yield given("rows of a quarter of a block", "blocks of 64, which some builds", tensor("a", (64, 2), Q4_K))
    for magic, codes in ((JT3, (4, 5, 9, 15, 30, MOST)), (JT2, (4, 5, 9, 10, 14)), (JT1, (9, 12)), (MF1, (16,))):
        for code in codes:
            yield given(
                f"type {code} in {magic!r}", f"has the type {code}; those of", tensor("a", (256, 1), code), magic=magic
            )
    yield given("a block of the second layout", None, tensor("a", (32, 1), Q4_0, bytes(20)), magic=JT2)
    yield given("a block of the third layout", None, tensor("a", (32, 1), Q4_0, bytes(18)))
    yield given(
        "a block of the third layout in a second file", "malformed", tensor("a", (32, 1), Q4_0, bytes(18)), magic=JT2
    )
    yield given("five bits in the first layout", None, tensor("a", (32, 1), Q5_0, bytes(22)), magic=ML)
    for number, name in enumerate(NAMES):
        yield Case(f"without {name}", file(tensors=SOUND[:number] + SOUND[number + 1 :]), f"lacks {name}")
    yield Case("no tensors", file(tensors=[]), "lacks tok_embeddings.weight, norm.weight, output.weight and 9 more")
    yield Case("bytes after the last tensor", file(end=bytes(4)), "malformed")
    yield Case("zeros after the last tensor", file(end=bytes(4096)), "0 dimensions")
