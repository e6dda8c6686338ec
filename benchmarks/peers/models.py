"""Models at the sizes of real ones, with random weights, as folders of Hugging Face and as GGUF files.

    python benchmarks/peers/models.py [--models 0.6B,1.2B] [--formats Q4_K_M,Q8_0] [--folder FOLDER]

What is there already is not made again.  The packed files have random blocks with sane scales, not roundings of the
bfloat16 weights: the speed is the same, and they are made in seconds.  Types are those that llama.cpp chooses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from blocks import DEVIATION, RandomBlocks
from safetensors.torch import save_file
from shapes import FORMATS, SHAPES, Shape
from vocabulary import write_tokenizer

from bestiary.building import build_empty
from bestiary.config import normalise
from bestiary.identified import identify_model
from bestiary.loading import open_weights
from bestiary.records import Architecture, PackingRequest, SourceOptions
from bestiary.registry import default_registry
from bestiary_quant.gguf.header import parse
from bestiary_quant.writing.gguf import write_gguf

_BEGINNING = 1 << 26


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bestiary-benchmarks"


def hf_folder(shape: Shape, folder: Path) -> Path:
    """The model in bfloat16 as safetensors."""
    made = folder / shape.name
    if made.is_dir():
        return made
    unfinished = folder / f"{shape.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_tokenizer(unfinished, shape)
    _write_weights(unfinished, shape)
    ids = {"eos_token_id": int(shape.config["vocab_size"]) - 1}
    if shape.bos is not None:
        ids["bos_token_id"] = int(shape.config["vocab_size"]) - len(shape.special) + shape.special.index(shape.bos)
    (unfinished / "config.json").write_text(json.dumps({**shape.config, **ids}, indent=1))
    (unfinished / "generation_config.json").write_text(json.dumps({**ids, "do_sample": False}))
    return unfinished.rename(made)


def gguf_file(shape: Shape, kind: str, folder: Path) -> Path:
    """The model as a GGUF file of a type or mixture."""
    path = folder / f"{shape.name}-{kind}.gguf"
    if path.is_file():
        return path
    registry = default_registry()
    identified = identify_model(str(hf_folder(shape, folder)), SourceOptions(offline=True), registry)
    scheme = None if kind == "BF16" else kind.lower()
    # llama.cpp leaves the head of Q6_K in that type, for which Bestiary takes eight bits unless it is told.
    asked = PackingRequest(quant=(lambda site: "q6k") if kind == "Q6_K" else scheme)
    with open_weights(identified, registry, device="cpu", packing=asked, resident=False) as stream:
        if stream.packing is not None:
            stream = replace(stream, packing=RandomBlocks(stream.packing.assigned))
        write_gguf(stream, path, scheme=scheme, plain="bf16", unpack=scheme is None)
    return path


def weight_bytes(path: Path) -> int:
    """What a step of one request reads of a GGUF file: all weights, but of an embedding that is no head one row."""
    with path.open("rb") as file:
        data = file.read(_BEGINNING)
    tensors = parse(data, path.stat().st_size, str(path)).tensors
    sizes = {name: entry.end - entry.start for name, entry in tensors.items()}
    return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)


def listed(known: Iterable[str]) -> Callable[[str], list[str]]:
    """For argparse: names with commas between them, each of them known."""
    choices = list(known)

    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        for name in found:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(choices)}")
        return found

    return names


def _write_weights(folder: Path, shape: Shape) -> None:
    found = default_registry().records(Architecture)
    architecture = next(record for record, _ in found if record.name in shape.config["architectures"])
    model = build_empty(architecture, normalise(dict(shape.config), shape.name, architecture.defaults))
    choice = torch.Generator().manual_seed(0)
    tensors = {}
    for name, parameter in model.named_parameters():
        if name == "lm_head.weight":
            continue  # is the embedding
        values = torch.ones(parameter.shape, dtype=torch.bfloat16)
        tensors[name] = values if values.ndim == 1 else values.normal_(std=DEVIATION, generator=choice)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=listed(SHAPES), default=list(SHAPES))
    parser.add_argument("--formats", type=listed(FORMATS), default=list(FORMATS))
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args()
    for name in options.models:
        for kind in options.formats:
            start = time.perf_counter()
            path = gguf_file(SHAPES[name], kind, options.folder)
            size = weight_bytes(path) / 1e6
            print(f"{path}  {size:.0f} MB of weights, {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
