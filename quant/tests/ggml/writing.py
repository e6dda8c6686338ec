"""Writing files as llama.cpp did before GGUF: the outside writer of these tests, in struct and numpy alone.

After `OutputFile` and `permute` of convert.py, and for blocks the reference code of ggml.c, as of April and May 2023.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy

VERSIONS = (("ggml", 0), ("ggmf", 1), ("ggjt", 1), ("ggjt", 2), ("ggjt", 3))
MAGICS = {"ggml": 0x67676D6C, "ggmf": 0x67676D66, "ggjt": 0x67676A74}
F32, F16, Q4_0, Q4_1, Q4_2, Q4_3, Q5_0, Q5_1, Q8_0 = range(9)
FORMER = (("ggml", 0), ("ggmf", 1), ("ggjt", 1))
CASES = tuple((version, code) for version in VERSIONS for code in range(9) if code not in (4, 5) or version in FORMER)
"""Every version with every type that it had before the k-quants."""
LAYER = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
MODEL = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}


@dataclass
class Tensor:
    """One tensor as a file has it: rows first, and already in bytes."""

    name: str
    shape: tuple[int, ...]
    code: int
    data: bytes


@dataclass
class Written:
    """A file in parts."""

    version: tuple[str, int]
    sizes: tuple[int, ...]
    tokens: Sequence[bytes]
    scores: Sequence[float]
    tensors: Sequence[Tensor]
    values: dict[str, numpy.ndarray] = field(default_factory=dict)
    """What the tensors mean, under the names of Hugging Face, rows of queries and keys as Hugging Face has them."""

    def content(self) -> bytes:
        mark, number = self.version
        made = struct.pack("<I", MAGICS[mark]) + (struct.pack("<I", number) if mark != "ggml" else b"")
        made += struct.pack("<7I", *self.sizes)
        for token, score in zip(self.tokens, self.scores, strict=True):
            made += struct.pack("<I", len(token)) + token + (struct.pack("<f", score) if mark != "ggml" else b"")
        for tensor in self.tensors:
            name = tensor.name.encode()
            made += struct.pack("<3I", len(tensor.shape), len(name), tensor.code)
            made += struct.pack(f"<{len(tensor.shape)}I", *tensor.shape[::-1]) + name
            if mark == "ggjt":
                made += bytes(-len(made) % 32)
            made += tensor.data
        return made

    def write(self, path: Path) -> Path:
        path.write_bytes(self.content())
        return path


def llama(
    weights: Mapping[str, numpy.ndarray],
    config: Mapping[str, int],
    version: tuple[str, int],
    code: int = F32,
    tokens: Sequence[bytes] | None = None,
    scores: Sequence[float] | None = None,
) -> Written:
    """A Llama of Hugging Face in a version, its matrices in a type."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    tensors, values = [], {}
    for name, weight in weights.items():
        turned = next((count for part, count in heads.items() if part in name), None)
        stored = weight if turned is None else permuted(weight, turned)
        kind = code if stored.ndim == 2 else F32
        data, meant = encoded(stored, kind, version)
        tensors.append(Tensor(meta_name(name), stored.shape, kind, data))
        values[name] = meant if turned is None else permuted(meant, turned, back=True)
    width, count = config["hidden_size"], config["vocab_size"]
    head_dim = width // config["num_attention_heads"]
    sizes = (count, width, 256, config["num_attention_heads"], config["num_hidden_layers"], head_dim, code)
    tokens = [f"t{place}".encode() for place in range(count)] if tokens is None else tokens
    return Written(version, sizes, tokens, scores or [-float(at) for at in range(len(tokens))], tensors, values)


def meta_name(name: str) -> str:
    base = name.removesuffix(".weight")
    if base in MODEL:
        return f"{MODEL[base]}.weight"
    _, _, layer, inner = base.split(".", 3)
    return f"layers.{layer}.{LAYER[inner]}.weight"


def permuted(weight: numpy.ndarray, heads: int, *, back: bool = False) -> numpy.ndarray:
    """From the halves of Hugging Face to the neighbours of Meta, or back."""
    parts = (heads, -1, 2) if back else (heads, 2, -1)
    return weight.reshape(*parts, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def encoded(weight: numpy.ndarray, code: int, version: tuple[str, int]) -> tuple[bytes, numpy.ndarray]:
    """The bytes of a tensor, and the numbers that they mean."""
    if code == F32:
        return weight.astype("<f4").tobytes(), weight.astype(numpy.float32)
    if code == F16:
        return weight.astype("<f2").tobytes(), weight.astype("<f2").astype(numpy.float32)
    if version == ("ggjt", 3):
        kind = gguf.GGMLQuantizationType(code)
        blocks = gguf.quants.quantize(numpy.ascontiguousarray(weight, numpy.float32), kind)
        return blocks.tobytes(), gguf.quants.dequantize(blocks, kind)
    return _former(weight, code, paired=version != ("ggjt", 2))


def _former(weight: numpy.ndarray, code: int, *, paired: bool) -> tuple[bytes, numpy.ndarray]:
    length = 16 if code in (Q4_2, Q4_3) else 32
    scale = numpy.dtype("<f2" if code in (Q4_2, Q4_3, Q5_0, Q5_1) else "<f4")
    bits = {Q8_0: 8, Q5_0: 5, Q5_1: 5}.get(code, 4)
    x = weight.astype(numpy.float32).reshape(-1, length)
    if code in (Q4_1, Q4_3, Q5_1):  # x = d q + m, d before m
        m = x.min(1, keepdims=True).astype(scale)
        d = ((x.max(1, keepdims=True) - m) / (2**bits - 1)).astype(scale)
        low, high, middle, head = 0, 2**bits - 1, 0, numpy.concatenate((d, m), 1)
    else:  # x = d (q - middle)
        m = numpy.zeros((len(x), 1), scale)
        d = (abs(x).max(1, keepdims=True) / (2 ** (bits - 1) - 1)).astype(scale)
        low, high, middle, head = 0, 2**bits - 1, 2 ** (bits - 1), d
    steps = (x - m.astype(numpy.float32)) / d.astype(numpy.float32)
    q = numpy.clip(numpy.round(steps) + middle, low, high).astype(numpy.uint8)
    means = (q.astype(numpy.float32) - middle) * d.astype(numpy.float32)
    if m.any():
        means += m.astype(numpy.float32)
    parts = [head.astype(scale).view(numpy.uint8)]
    if bits == 8:
        parts.append((q.astype(numpy.int16) - 128).astype(numpy.int8).view(numpy.uint8))
    else:
        if bits == 5:
            parts.append(numpy.packbits(q >> 4, axis=1, bitorder="little"))
        four = q & 15
        first, second = (four[:, ::2], four[:, 1::2]) if paired else (four[:, : length // 2], four[:, length // 2 :])
        parts.append(first | (second << 4))
    return numpy.concatenate(parts, 1).tobytes(), means.reshape(weight.shape)
