"""Writes data/, what other programs make of the same numbers.  Not run by the tests.

    python make_references.py numbers <stories260K/hf/model.safetensors>   with bestiary-demo and torch
    python make_references.py llama.cpp                                    with llama-cpp-python and gguf
    python make_references.py mixtures                                     with llama-cpp-python and gguf
    python make_references.py mlx                                          with mlx
    python make_references.py hqq                                          with hqq and torch

Each program can have an environment of its own.  The files in data/ are of llama-cpp-python 0.3.36 (ggml 0.25.3; by
`ggml_quantize_chunk`, and by a dry run of `llama_model_quantize`), mlx 0.32.4 and hqq 0.2.8.post1; each names its
version.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy

DATA = Path(__file__).with_name("data")
PLAIN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
TERNARY = ("TQ1_0", "TQ2_0")
WEIGHTED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
MIXTURES = {
    "q2_k_s": 21,
    "q3_k_s": 11,
    "q3_k_m": 12,
    "q3_k_l": 13,
    "q4_k_s": 14,
    "q4_k_m": 15,
    "q5_k_s": 16,
    "q5_k_m": 17,
}
MODELS = {  # layers, heads, key heads, experts, whether the head is the embedding
    "small": (6, 4, 2, 0, True),
    "untied": (16, 4, 4, 0, False),
    "grouped": (28, 8, 2, 0, True),
    "seventy": (80, 8, 1, 0, False),
    "experts": (32, 8, 2, 8, False),
}
ROLES = {  # of GGUF and of Hugging Face
    "attn_q": "self_attn.q_proj.weight",
    "attn_k": "self_attn.k_proj.weight",
    "attn_v": "self_attn.v_proj.weight",
    "attn_output": "self_attn.o_proj.weight",
    "ffn_gate": "mlp.gate_proj.weight",
    "ffn_up": "mlp.up_proj.weight",
    "ffn_down": "mlp.down_proj.weight",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}


def numbers(stories: str) -> None:
    """32 rows of 512: Gaussian, with heavy tails and offsets, of the demo model, of the stories model."""
    from safetensors.torch import load_file

    import bestiary_demo

    choice = numpy.random.default_rng(0)
    tails = choice.standard_t(3, (8, 512)) * 0.01
    tails[6] += 0.1
    tails[7] -= 0.1
    demo = load_file(Path(bestiary_demo.__file__).with_name("model") / "model.safetensors")
    down = [value.float().numpy() for name, value in sorted(demo.items()) if name.endswith("down_proj.weight")]
    story = load_file(stories)
    flat = [story[name].float().numpy().reshape(-1) for name in sorted(story) if story[name].numel() >= 2048]
    rows = [
        *(choice.standard_normal((8, 512)) * 0.02),
        *tails,
        *(down[place % len(down)][17 * place + 3] for place in range(8)),
        *(values[:512] for values in flat[:: max(1, len(flat) // 8)][:8]),
    ]
    importance = numpy.exp(choice.standard_normal(512) * 1.5).astype(numpy.float32)
    x = numpy.stack(rows).astype(numpy.float16)
    assert x.shape == (32, 512)
    numpy.savez_compressed(DATA / "numbers.npz", x=x, importance=importance)


def ggml() -> Any:
    import llama_cpp

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).with_name("lib") / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        [ctypes.c_int] + [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    )
    library.ggml_version.restype = ctypes.c_char_p
    return library


def llama_cpp_bytes() -> None:
    """The bytes of every type; "NAME" without and "NAME_weighted" with importance."""
    import gguf
    import llama_cpp

    library = ggml()
    given = numpy.load(DATA / "numbers.npz")
    x, importance = given["x"].astype(numpy.float32), given["importance"]
    made = {"version": numpy.array(f"llama-cpp-python {llama_cpp.__version__}, ggml {library.ggml_version().decode()}")}
    for name in (*PLAIN, *TERNARY, *(f"{name}_weighted" for name in WEIGHTED)):
        code = gguf.GGMLQuantizationType[name.removesuffix("_weighted")]
        length, size = gguf.GGML_QUANT_SIZES[code]
        data = numpy.zeros((len(x), x.shape[1] // length * size), dtype=numpy.uint8)
        weights = importance.ctypes.data if name.endswith("_weighted") else None
        written = library.ggml_quantize_chunk(code, x.ctypes.data, data.ctypes.data, 0, *x.shape, weights)
        assert written == data.nbytes
        made[name] = data
    numpy.savez_compressed(DATA / "llama_cpp.npz", **made)


def mixtures() -> None:
    """The type of each tensor of models without numbers, under each mixture."""
    import llama_cpp

    found: dict[str, Any] = {
        "version": f"llama-cpp-python {llama_cpp.__version__}, ggml {ggml().ggml_version().decode()}"
    }
    lines: list[str] = []
    log = llama_cpp.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
    llama_cpp.llama_log_set(log, None)
    with tempfile.TemporaryDirectory() as folder:
        for name, (layers, heads, keys, experts, tied) in MODELS.items():
            path = Path(folder, "model.gguf")
            write_model(path, layers, heads, keys, experts, tied)
            types: dict[str, dict[str, str]] = {}
            for mixture, code in MIXTURES.items():
                lines.clear()
                options = llama_cpp.llama_model_quantize_default_params()
                options.ftype, options.dry_run, options.nthread = code, True, 1
                target = str(Path(folder, "out.gguf")).encode()
                assert llama_cpp.llama_model_quantize(str(path).encode(), target, ctypes.byref(options)) == 0, lines
                types[mixture] = by_role("".join(lines))
            found[name] = {"layers": layers, "heads_per_key": heads // keys, "experts": experts, "types": types}
    (DATA / "mixtures.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


def write_model(path: Path, layers: int, heads: int, keys: int, experts: int, tied: bool) -> None:
    import gguf

    dim, hidden, head = 512, 256, 512 // heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(dim)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (32, dim), "output_norm.weight": (dim,)}
    if not tied:
        shapes["output.weight"] = (32, dim)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (dim,),
            f"blk.{layer}.ffn_norm.weight": (dim,),
            f"blk.{layer}.attn_q.weight": (dim, dim),
            f"blk.{layer}.attn_k.weight": (keys * head, dim),
            f"blk.{layer}.attn_v.weight": (keys * head, dim),
            f"blk.{layer}.attn_output.weight": (dim, dim),
        }
        kind, stack = ("_exps", (experts,)) if experts else ("", ())
        if experts:
            shapes[f"blk.{layer}.ffn_gate_inp.weight"] = (experts, dim)
        shapes[f"blk.{layer}.ffn_gate{kind}.weight"] = (*stack, hidden, dim)
        shapes[f"blk.{layer}.ffn_up{kind}.weight"] = (*stack, hidden, dim)
        shapes[f"blk.{layer}.ffn_down{kind}.weight"] = (*stack, dim, hidden)
    for name, shape in shapes.items():
        writer.add_tensor(name, numpy.zeros(shape, dtype=numpy.float32 if len(shape) == 1 else numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_role(log: str) -> dict[str, str]:
    """For each role, under the names of Hugging Face, the digit of the type in each layer: 4 of q4_K, 8 of q8_0."""
    found: dict[str, str] = {}
    for line in log.splitlines():
        if not line.startswith("[") or " -> " not in line or not line.rstrip().endswith(")"):
            continue
        name, kind = line.split("]", 1)[1].split()[0], line.rstrip().rsplit("(q", 1)[1]
        role = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}.get(name)
        role = role or ROLES[name.split(".")[2]]
        found[role] = found.get(role, "") + kind[0]
    return found


def mlx() -> None:
    """Codes, scales and offsets of `mx.quantize` of every fourth row, and the numbers of the first of them."""
    from importlib.metadata import version

    import mlx.core

    x = mlx.core.array(numpy.load(DATA / "numbers.npz")["x"][::4].astype(numpy.float32))
    made = {"version": numpy.array(f"mlx {version('mlx')}")}
    for bits in (2, 3, 4, 6, 8):
        for group in (32, 64):
            parts = mlx.core.quantize(x, group_size=group, bits=bits)
            whole = mlx.core.dequantize(*parts, group_size=group, bits=bits)
            for part, values in zip(("codes", "scales", "offsets"), parts, strict=True):
                made[f"{bits}_{group}_{part}"] = numpy.array(values)
            made[f"{bits}_{group}_values"] = numpy.array(whole)[:1]
    numpy.savez_compressed(DATA / "mlx.npz", **made)


def hqq() -> None:
    """What the authors' package leaves of error: the mean size and the mean square, for both axes."""
    from importlib.metadata import version

    import torch
    from hqq.core.quantize import Quantizer

    x = torch.from_numpy(numpy.load(DATA / "numbers.npz")["x"]).float().reshape(128, 128)
    found: dict[str, Any] = {"version": f"hqq {version('hqq')}"}
    for bits in (4, 8):
        for axis in (0, 1):
            codes, meta = Quantizer.quantize(x, nbits=bits, group_size=64, axis=axis, device="cpu")
            error = Quantizer.dequantize(codes, meta | {"compute_dtype": torch.float32}) - x
            found[f"{bits}_{axis}"] = [float(error.abs().mean()), float(error.square().mean())]
    (DATA / "hqq.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    if sys.path[0] == str(Path(__file__).parent):
        del sys.path[0]
    {"numbers": numbers, "llama.cpp": llama_cpp_bytes, "mixtures": mixtures, "mlx": mlx, "hqq": hqq}[sys.argv[1]](
        *sys.argv[2:]
    )
