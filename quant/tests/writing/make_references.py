"""Writes data/, what llama.cpp makes of the files that this package writes.  Not run by the tests.

    python make_references.py files FOLDER      with bestiary-quant: the files of SCHEMES, and the tokens
    python make_references.py answers FOLDER    with llama-cpp-python: data/llama_cpp.npz

The tokens are chosen one by one, of 16 drawn ones the one after which the most probable next token is farthest ahead in
the model with plain weights.  So the logits are those of a random network, in which every layer counts; but no top is
so close to the next that it tells nothing: llama.cpp rounds activations to 8 bits, and Bestiary does not.
The file in data/ is of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy

DATA = Path(__file__).with_name("data")
KINDS = ("llama", "qwen3")
SCHEMES = ("f16", "q8_0", "q6k", "q4_k_m", "q4_0", "iq4_xs")
LENGTH, DRAWN, ROWS = 256, 16, 512
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "gemma", "gemma2", "gemma3")
FEW = (5, 9, 17, 33, 64, 100, 7, 8, 21, 3, 90, 44, 61, 77, 12, 5)
"""Tokens for models of every architecture, whose logits after the last four are kept."""
SHOWN = tuple(range(0, ROWS, 37))
"""Tokens whose logits are kept."""
TEXTS = ("The people would know that they have 123 years.\n\nWhat  about it's THEM?", " over time, just like 中文 é 😀")


def files(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import models

    for kind in KINDS:
        source = models.write_model(kind, folder / kind)
        tokens = choose_tokens(source)
        (folder / f"{kind}.json").write_text(json.dumps(tokens))
        for scheme in SCHEMES:
            models.write_file(source, folder / f"{kind}-{scheme}.gguf", None if scheme == "f16" else scheme)
    for name in ARCHITECTURES:
        source = models.write_architecture(name, folder / f"any-{name}")
        models.write_file(source, folder / f"any-{name}.gguf", None, plain="f32")


def choose_tokens(source: Path) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    draw = numpy.random.default_rng(3)
    tokens: list[int] = []
    cache = DynamicCache()
    with torch.no_grad():
        for _ in range(LENGTH):
            candidates = torch.from_numpy(draw.choice(numpy.arange(3, ROWS), DRAWN, replace=False))
            cache.batch_repeat_interleave(DRAWN)
            rows = model(input_ids=candidates[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
            best = rows.topk(2).values
            chosen = int((best[:, 0] - best[:, 1]).argmax())
            cache.batch_select_indices(torch.tensor([chosen]))
            tokens.append(int(candidates[chosen]))
    return tokens


def run(llama_cpp: Any, path: Path, tokens: list[int]) -> tuple[Any, numpy.ndarray]:
    """A model, and its logits [T, V]."""
    llama = llama_cpp.Llama(
        str(path), n_ctx=LENGTH, n_batch=LENGTH, n_ubatch=LENGTH, logits_all=True, verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False, n_threads=1,
    )  # fmt: skip
    llama.eval(tokens)
    return llama, numpy.array(llama.scores[: len(tokens)], numpy.float32)


def answers(folder: Path) -> None:
    import llama_cpp

    kept = {"version": numpy.array(llama_cpp.__version__)}
    for kind in KINDS:
        tokens = json.loads((folder / f"{kind}.json").read_text())
        kept[f"{kind}/tokens"] = numpy.array(tokens, numpy.int16)
        for scheme in SCHEMES:
            path = folder / f"{kind}-{scheme}.gguf"
            llama, made = run(llama_cpp, path, tokens)
            name = f"{kind}/{scheme}"
            kept[f"{name}/sha256"] = numpy.array(hashlib.sha256(path.read_bytes()).hexdigest())
            kept[f"{name}/top"] = made.argmax(-1).astype(numpy.int16)
            kept[f"{name}/logits"] = made[:, SHOWN].astype(numpy.float16)
            if scheme == "f16":
                for number, text in enumerate(TEXTS):
                    kept[f"{kind}/text{number}"] = numpy.array(llama.tokenize(text.encode(), add_bos=True), numpy.int16)
    for name in ARCHITECTURES:
        path = folder / f"any-{name}.gguf"
        kept[f"any/{name}/sha256"] = numpy.array(hashlib.sha256(path.read_bytes()).hexdigest())
        kept[f"any/{name}/logits"] = run(llama_cpp, path, list(FEW))[1][-4:]
    numpy.savez_compressed(DATA / "llama_cpp.npz", **kept)


if __name__ == "__main__":
    {"files": files, "answers": answers}[sys.argv[1]](Path(sys.argv[2]))
