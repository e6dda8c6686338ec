"""Hostile UQFF folders, each with words of the error that it must give; None where it is harmless and must open."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Entry = tuple[str, tuple[int, ...], bytes]


class Case(NamedTuple):
    name: str
    shard: bytes
    says: str | None
    residual: bytes


def u8(*values: int) -> Entry:
    return "U8", (), bytes(values)


def u32(*values: int) -> Entry:
    """A scalar, or a list of several."""
    return "U32", () if len(values) == 1 else (len(values),), struct.pack(f"<{len(values)}I", *values)


def raw(kind: str, *shape: int, size: int = 1) -> Entry:
    count = 1
    for number in shape:
        count *= number
    return kind, shape, bytes(range(1, 9)) * (count * size // 8) + bytes(count * size % 8)


def f32(*shape: int) -> Entry:
    return raw("F32", *shape, size=4)


def file(entries: Mapping[str, Entry], changed: Mapping[str, Any] | None = None) -> bytes:
    header: dict[str, Any] = {}
    at = 0
    for name, (kind, shape, data) in entries.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps({**header, **(changed or {})}).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in entries.values())


VERSION = {"uqff.version.major": u32(1), "uqff.version.minor": u32(2), "uqff.version.patch": u32(0)}
RESIDUAL = file({"norm.weight": f32(4)})
GGUF = {"format": u8(0), "": raw("U8", 2 * 34), "dtype": u32(8), "shape": u32(2, 32)}
UNQUANT = {"format": u8(1), "": f32(2, 4)}
HQQ = {
    "format": u8(2),
    "": raw("U8", 32, 2),
    "scales": f32(1, 2),
    "zeros": f32(1, 2),
    "shape": u32(2, 64),
    "bits": u8(4),
    "group_size": u32(64),
    "axis": u8(0),
    "optimization_steps": u32(10),
    "round_zeros": u8(0),
    "channel_wise": u8(1),
}
FP8 = {
    "format": u8(3),
    "": raw("F8_E4M3", 2, 4),
    "dequant_w_scale": f32(),
    "dequant_x_scale": f32(),
    "quant_scale": f32(),
    "dtype": u32(9),
}
AFQ = {
    "format": u8(4),
    "": raw("U32", 2, 8, size=4),
    "scales": f32(2, 1),
    "biases": f32(2, 1),
    "bits": u8(4),
    "group_size": u8(64),
}
F8Q8 = {"format": u8(5), "": raw("U8", 66), "num_blocks": u32(2), "shape": u32(2, 32)}
MXFP4 = {"format": u8(6), "": raw("U8", 2, 16), "scales": raw("U8", 2, 1)}
FAMILIES = {"gguf": GGUF, "unquant": UNQUANT, "hqq": HQQ, "fp8": FP8, "afq": AFQ, "f8q8": F8Q8, "mxfp4": MXFP4}


def layer(attributes: Mapping[str, Entry], key: str = "a.b") -> dict[str, Entry]:
    return {f"{key}.weight" + (f".{name}" if name else ""): entry for name, entry in attributes.items()}


def shard(*layers: Mapping[str, Entry], version: Mapping[str, Entry] = VERSION, **more: Entry) -> bytes:
    return file({**version, **{name: entry for one in layers for name, entry in layer(one).items()}, **more})


VALID = file({**VERSION, **{n: e for key, one in FAMILIES.items() for n, e in layer(one, f"model.{key}").items()}})


def cases() -> Iterator[Case]:
    def case(name: str, content: bytes, says: str | None, residual: bytes = RESIDUAL) -> Case:
        return Case(name, content, says, residual)

    def changed(name: str, family: Mapping[str, Entry], says: str | None, **values: Entry | None) -> Case:
        made = {**family, **{key if key != "weight" else "": value for key, value in values.items()}}
        return case(name, shard({key: value for key, value in made.items() if value is not None}), says)

    yield case("sound", VALID, None)
    for name, family in FAMILIES.items():
        yield case(f"sound {name}", shard(family), None)
        yield case(f"{name} of three bytes", shard({**family, "": raw("U8", 3)}), "a.b.weight")
        yield case(f"{name} without a weight", shard({k: v for k, v in family.items() if k}), "a.b.weight")
        yield case(f"{name} of no dimensions", shard({**family, "": raw("U8")}), "a.b.weight")
        yield case(f"{name} with more", shard({**family, "extra": u8(0)}), "has extra, not of it")
        for attribute in family:
            if attribute and attribute != "format":
                yield changed(f"{name} without {attribute}", family, f"lacks {attribute}", **{attribute: None})
                long = raw("U8", 999)
                yield changed(
                    f"{name} with a text as {attribute}", family, f"a.b.weight.{attribute}", **{attribute: long}
                )
        yield case(f"{name} and another", shard(family, version={**VERSION, **layer(family, "c")}), None)
        yield case(f"{name} with a bias", shard(family, **{"a.b.bias": f32(2)}), None)
        yield case(f"{name} with a long bias", shard(family, **{"a.b.bias": f32(3)}), "shape [3]")
        yield case(f"{name} with a bias of bytes", shard(family, **{"a.b.bias": raw("U8", 2)}), "type U8")
    yield from _versions(case)
    yield from _families(case)
    yield from _numbers(changed)
    yield from _residuals(case)


def _versions(case: Any) -> Iterator[Case]:
    def given(name: str, says: str | None, **values: Entry | None) -> Any:
        made = {**VERSION, **{f"uqff.version.{key}": value for key, value in values.items()}}
        kept = {key: value for key, value in made.items() if value is not None}
        return case(name, shard(UNQUANT, version=kept), says)

    yield given("version 1.0", None, minor=u32(0))
    yield given("version 1.1", None, minor=u32(1))
    yield given("version 1.2.9", None, patch=u32(9))
    yield given("version 1.3", "UQFF 1.3.0", minor=u32(3))
    yield given("version 2.0", "UQFF 2.2.0", major=u32(2))
    yield given("version 0.1", "UQFF 0.2.0", major=u32(0))
    yield given("version 2^32 - 1", "UQFF 4294967295", major=u32((1 << 32) - 1))
    yield given("no minor version", "has no version", minor=None)
    yield given("version of bytes", "one U32 is due", major=("U8", (4,), bytes(4)))
    yield given("version of two numbers", "one U32 is due", major=u32(1, 1))
    yield case("before 1.0", file({str(number): raw("U8", 40) for number in range(3)}), "before 1.0")
    yield case("empty", b"", "0 bytes")
    yield case("no tensors", file({}), "has no version")
    yield case("GGUF", b"GGUF\3\0\0\0" + bytes(100), "GGUF")
    yield case("a zip", b"PK\3\4" + bytes(100), "run code")
    yield case("a header of 2^63 bytes", (1 << 63).to_bytes(8, "little") + b"{}", "the limit is")
    many = {f"layers.{number}.weight.format": u8(1) for number in range(10_000)}
    yield case("10000 layers without weights", file({**VERSION, **many}), "There are 10000 layers; 8192 are allowed")


def _families(case: Any) -> Iterator[Case]:
    for number in (7, 8, 255):
        yield case(f"family {number}", shard({**UNQUANT, "format": u8(number)}), f"is {number}, a family")
    yield case("family of 32 bits", shard({**UNQUANT, "format": u32(1)}), "type U32")
    yield case("family of two bytes", shard({**UNQUANT, "format": raw("U8", 2)}), "shape [2]")
    yield case("a weight without a family", shard(UNQUANT, **{"c.weight": f32(2, 2)}), "belongs to no layer")
    yield case("an attribute without a layer", shard(UNQUANT, **{"c.weight.scales": f32(2, 2)}), "belongs to no layer")
    yield case("a tensor of no layer", shard(UNQUANT, c=f32(2, 2)), "belongs to no layer")
    yield case("a bias of no layer", shard(UNQUANT, **{"c.bias": f32(2)}), "belongs to no layer")
    experts = {f"x.{kind}.experts.up_proj.weight": f32(2, 2, 2) for kind in ("mlp", "block_sparse_moe")}
    formats = {f"{name}.format": u8(1) for name in experts}
    yield case("experts of two spellings", shard(UNQUANT, **experts, **formats), "Two tensors")


def _numbers(changed: Any) -> Iterator[Case]:
    large = (1 << 32) - 1
    for code in (4, 5, 16, 20, 31, 39, 40, 42, 1 << 31, large):
        yield changed(f"ggml type {code}", GGUF, f"is {code}, which is no type of ggml", dtype=u32(code))
    yield changed("ggml type with larger blocks", GGUF, "blocks of 256", dtype=u32(12))
    yield changed("ggml type with other sizes", GGUF, "take", dtype=u32(2))
    yield changed("ggml floats", GGUF, "take 256 bytes", dtype=u32(0))
    yield changed("half a block", GGUF, "blocks of 32", shape=u32(4, 16))
    for family, name in ((GGUF, "ggml"), (F8Q8, "f8q8"), (HQQ, "hqq")):
        for shape in ((0, 32), (2, 0), (large, 32), (2, large), (1 << 31, 1 << 31), (1, 1 << 31, 1 << 31)):
            yield changed(f"{name} of the shape {shape}", family, "a.b.weight", shape=u32(*shape))
        yield changed(f"{name} of one size", family, "two or three sizes", shape=("U32", (1,), bytes(4)))
        yield changed(f"{name} of four sizes", family, "two or three sizes", shape=u32(1, 1, 2, 32))
        yield changed(f"{name} of a number", family, "two or three sizes", shape=u32(64))
    for count in (0, 1, 3, large):
        yield changed(f"{count} blocks of f8q8", F8Q8, "have 2 blocks", num_blocks=u32(count))
    for bits in (0, 1, 5, 7, 16, 255):
        yield changed(f"afq of {bits} bits", AFQ, f"has {bits} bits", bits=u8(bits))
    for group in (0, 1, 16, 48, 255):
        yield changed(f"afq in groups of {group}", AFQ, f"groups of {group}", group_size=u8(group))
    yield changed("afq of 8 bits that has 4", AFQ, "do not agree", bits=u8(8))
    yield changed("afq in groups that are larger", AFQ, "do not agree", group_size=u8(128))
    yield changed("afq of other scales", AFQ, "do not agree", scales=f32(3, 1))
    yield changed("afq of other biases", AFQ, "by the others", biases=f32(2, 2))
    yield changed("afq of scales in one dimension", AFQ, "dimensions", scales=f32(2))
    yield changed("afq without columns", AFQ, "none empty", weight=raw("U32", 2, 0), scales=f32(2, 0), biases=f32(2, 0))
    yield changed("afq of bytes", AFQ, "type U8", weight=raw("U8", 2, 8))
    for bits in (0, 5, 6, 255):
        yield changed(f"hqq of {bits} bits", HQQ, f"has {bits} bits", bits=u8(bits))
    yield changed("hqq of 8 bits that has 4", HQQ, "shape [32, 2]", bits=u8(8))
    yield changed("hqq of 3 bits in bytes", HQQ, "type U8", bits=u8(3))
    yield changed("hqq along axis 2", HQQ, "along axis 2", axis=u8(2))
    yield changed("hqq along the other axis", HQQ, "by the others", axis=u8(1))
    for group in (0, 3, 256, large):
        yield changed(f"hqq in groups of {group}", HQQ, f"groups of {group}", group_size=u32(group))
    yield changed("hqq in groups of 1", HQQ, "by the others", group_size=u32(1))
    yield changed("hqq in one group", HQQ, "by the others", group_size=u32(128))
    yield changed("hqq of experts", HQQ, "no stacks", shape=u32(1, 2, 64))
    yield changed("hqq of zeros of another type", HQQ, None, zeros=raw("F16", 1, 2, size=2))
    yield changed("hqq of more zeros", HQQ, "zeros", zeros=f32(1, 3))
    for code in (0, 6, 13, large):
        yield changed(f"fp8 of the type {code}", FP8, f"is {code}; only 9", dtype=u32(code))
    yield changed("fp8 of two scales", FP8, "by the others", dequant_w_scale=f32(2))
    yield changed("fp8 without numbers", FP8, "none empty", weight=raw("F8_E4M3", 2, 0))
    yield changed("mxfp4 of half a block", MXFP4, "blocks of 16", weight=raw("U8", 2, 24))
    yield changed("mxfp4 of fewer scales", MXFP4, "by the others", scales=raw("U8", 1, 1))
    yield changed("mxfp4 without columns", MXFP4, "none empty", weight=raw("U8", 2, 0), scales=raw("U8", 2, 0))
    yield changed("plain numbers of five dimensions", UNQUANT, "dimensions", weight=f32(1, 1, 1, 1, 1))
    yield changed("plain bytes", UNQUANT, "type U8", weight=raw("U8", 2, 4))


def _residuals(case: Any) -> Iterator[Case]:
    plain = {"norm.weight": f32(4)}
    yield case("residual is empty", VALID, "0 bytes", b"")
    yield case("residual is a pickle", VALID, "run code", b"PK\3\4" + bytes(50))
    yield case("residual has a version of its own", VALID, None, file({**VERSION, **plain}))
    yield case("residual has a layer too", VALID, None, file({"model.gguf.weight": f32(2, 32), **plain}))
    yield case("residual has no tensors", VALID, None, file({}))
    lies = {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 16]}
    yield case("residual of 2^62 numbers", VALID, "more than 64 bits", file(plain, {"norm.weight": lies}))
    lies = {"dtype": "U8", "shape": [2 * 34], "data_offsets": [0, 1 << 40]}
    yield case("a weight beyond the end", file({**VERSION, **layer(GGUF)}, {"a.b.weight": lies}), "offsets span")
