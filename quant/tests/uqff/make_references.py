"""Makes data/ with the mistralrs wheel: `python make_references.py PYTHON`, an interpreter that has mistralrs 0.9.5.

    data/q4k          a Qwen2 with biases and tied embeddings, as mistral.rs wrote it
    data/codes        a Mistral whose layers are of many types, packed by mistral.rs and written by Bestiary
    data/blocks       the same in types of ggml
    references.json   what mistral.rs answers from them, and how far Bestiary is from it with every type: where
                      mistral.rs wrote the file ("read") and where Bestiary packed and wrote it ("written")

                      (and of a GGUF file, whose rows of queries and keys mistral.rs leaves as they are there)

With types of ggml it is a tenth, because mistral.rs multiplies them with activations in eight bits; with others it is
1e-5, or some 1e-3 where Bestiary has scales in 16 bits, in which mistral.rs then computes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import running
import tiny
import torch
from safetensors import safe_open

from bestiary.sources.folder import Folder
from bestiary_quant.making.pack import pack
from bestiary_quant.uqff import checkpoint, selection
from bestiary_quant.uqff.writer import write

HERE = Path(__file__).parent
PROMPT = "Once upon a time"
TYPES = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2k", "q3k", "q4k", "q5k", "q6k"),
    *("afq2", "afq3", "afq4", "afq6", "afq8", "hqq4", "hqq8", "fp8", "f8q8", "mxfp4"),
)
"""Without q8_1 and q8k, which mistral.rs writes, and then refuses: "quantized type Q8_1 is not supported yet"."""
MIXES = {
    "codes": {
        "model.embed_tokens": "afq6",
        "model.layers.0.self_attn.q_proj": "hqq4",
        "model.layers.0.self_attn.k_proj": "mxfp4",
        "model.layers.0.self_attn.v_proj": "fp8",
        "model.layers.0.self_attn.o_proj": "afq4",
        "model.layers.0.mlp.gate_proj": "hqq8",
        "model.layers.0.mlp.up_proj": "afq3",
        "model.layers.0.mlp.down_proj": "afq2",
    },
    "blocks": {
        "model.embed_tokens": "q6k",
        "model.layers.0.self_attn.q_proj": "q5k",
        "model.layers.0.self_attn.k_proj": "q2k",
        "model.layers.0.self_attn.v_proj": "q3k",
        "model.layers.0.self_attn.o_proj": "q5_1",
        "model.layers.0.mlp.gate_proj": "q4k",
        "model.layers.0.mlp.up_proj": "q8_0",
        "model.layers.0.mlp.down_proj": "q4_0",
    },
}


class Wheel:
    def __init__(self, python: str) -> None:
        self.python = python

    def run(self, *arguments: object) -> str:
        done = subprocess.run(
            [self.python, str(HERE / "wheel.py"), *map(str, arguments)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "MISTRALRS_CPU_KV_F32": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError("\n".join(line for line in done.stderr.splitlines() if "ValueError" in line))
        return done.stdout

    def write(self, source: Path, kind: str, folder: Path) -> Path:
        self.run("write", source, kind, folder / f"{kind}.uqff")
        return folder

    def answer(self, folder: Path, shard: str) -> running.Top:
        lines = self.run("answer", folder, shard).splitlines()
        top: running.Top = json.loads(next(line for line in lines if line.startswith("ANSWER"))[6:])
        return top


def packed(tensors: dict[str, torch.Tensor], kind: str) -> Iterator[tuple[str, Any]]:
    for name, tensor in tensors.items():
        made = pack(tensor, kind) if tensor.ndim == 2 else None
        yield name, tensor if made is None else made


def opened(folder: Path) -> checkpoint.UqffCheckpoint:
    repository = Folder(folder, "theirs")
    return checkpoint.open(repository, selection.files(repository))


def compared(wheel: Wheel, folder: Path, kind: str) -> dict[str, Any]:
    top = wheel.answer(folder, f"{kind}-0.uqff")
    far, same = running.difference(running.built(folder, kind), running.tokens(folder, PROMPT), top)
    return {"difference": round(far, 5), "same_tokens": same}


def main(python: str) -> None:
    wheel, data = Wheel(python), HERE / "data"
    shutil.rmtree(data, ignore_errors=True)
    found: dict[str, Any] = {"mistralrs": "0.9.5", "prompt": PROMPT, "read": {}, "written": {}, "answers": {}}
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        tiny.save(tiny.QWEN2, scratch / "qwen2")
        wheel.write(scratch / "qwen2", "q4k", data / "q4k")
        found["answers"]["q4k"] = wheel.answer(data / "q4k", "q4k-0.uqff")
        print("Qwen2", compared(wheel, data / "q4k", "q4k"))
        tensors = tiny.save(tiny.MISTRAL, scratch / "source")
        source = Folder(scratch / "source", "tiny")
        for kind in TYPES:
            theirs = wheel.write(scratch / "source", kind, scratch / f"theirs-{kind}")
            found["read"][kind] = compared(wheel, theirs, kind)
            ours = scratch / f"ours-{kind}"
            write(ours, packed(tensors, kind), name=kind, repository=source, names=list(tensors))
            found["written"][kind] = compared(wheel, ours, kind)
            print(kind, found["read"][kind], found["written"][kind])

        small = tiny.save(tiny.SMALL, scratch / "small")
        for label, kinds in MIXES.items():
            theirs = {kind: wheel.write(scratch / "small", kind, scratch / f"small-{kind}") for kind in kinds.values()}
            parts = {name: opened(theirs[kind]).packed(f"{name}.weight") for name, kind in kinds.items()}
            mixed = ((name, parts.get(name.removesuffix(".weight"), tensor)) for name, tensor in small.items())
            source = Folder(scratch / "small", "tiny")
            write(data / label, mixed, name=label, repository=source, names=list(small))
            found["answers"][label] = wheel.answer(data / label, f"{label}-0.uqff")
            print(label, compared(wheel, data / label, label))
        tiny.save(tiny.LLAMA, scratch / "llama")
        tiny.save_gguf(tiny.LLAMA, scratch / "tiny.gguf")
        made = scratch / "from-gguf"
        wheel.run("convert", scratch, "tiny.gguf", scratch / "llama", made / "afq8.uqff")
        shutil.copyfile(scratch / "llama" / "tokenizer_config.json", made / "tokenizer_config.json")
        layout = json.loads((made / "config.json").read_text())["_mistralrs_qk_rope_layout"]
        found["from_gguf"] = {"layout": layout, **compared(wheel, made, "afq8")}
        print("from GGUF", found["from_gguf"])
        with safe_open(scratch / "theirs-f8q8" / "f8q8-0.uqff", "np") as file:
            blocks = file.get_tensor("lm_head.weight")[: 33 * 8]
        found["f8q8"] = {
            "blocks": blocks.tobytes().hex(),
            "numbers": tensors["lm_head.weight"].flatten()[:256].tolist(),
        }
    (data / "references.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
