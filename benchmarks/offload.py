"""What offload="layers" holds: a Flux of more than 2 GB beside the same one in memory.

    python benchmarks/offload.py [--layers 6] [--size 256] [--json FILE]

Peaks are of all the memory that the process ever held (VmHWM), its own and the file's, less what it held before the
load.  What a resident pipeline holds beyond its weights are activations.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HEADS, JOINT, POOLED = 16, 1024, 768


def make(folder: Path, layers: int) -> None:
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=layers,
        num_single_layers=layers,
        num_attention_heads=HEADS,
        joint_attention_dim=JOINT,
        pooled_projection_dim=POOLED,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    whole = FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, transformer=transformer, **none)
    whole.save_pretrained(folder, max_shard_size="100GB")


def run(folder: str, offload: str | None, size: int, kept: str) -> dict[str, Any]:
    import torch

    import bestiary
    from bestiary.diffusion.model import Condition
    from bestiary.kernels import choose, wish
    from bestiary.registry import default_registry

    registry = default_registry()
    choose(registry, torch.bfloat16, torch.device("cpu"), wish(None, registry))
    import bestiary.diffusion.painter
    import bestiary.pipelines.image

    generator = torch.Generator().manual_seed(1)
    tensors = {"states": torch.randn(1, 256, JOINT, generator=generator), "pooled": torch.randn(1, POOLED)}
    told = Condition(
        {name: tensor.bfloat16() for name, tensor in tensors.items() if name == "states"}
        | {"pooled": torch.ones(1, POOLED).bfloat16()}
    )
    before = memory("VmRSS")
    began = time.perf_counter()
    with bestiary.load(folder, offload=offload, dtype="bfloat16", progress=False) as pipe:
        loaded = time.perf_counter() - began
        steps: list[float] = []
        made = pipe(
            told, height=size, width=size, steps=3, seed=1, output="latent", callback=lambda s: steps.append(s.seconds)
        )
        torch.save(made, kept)
        return {
            "peak": memory("VmHWM") - before,
            "weights": pipe.nbytes,
            "load": loaded,
            "step": min(steps),
        }


def memory(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--layers", type=int, default=6, help="of each kind")
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--json", metavar="FILE")
    arguments.add_argument("--child", nargs=3, metavar=("FOLDER", "OFFLOAD", "KEPT"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        folder, offload, kept = given.child
        print(json.dumps(run(folder, None if offload == "none" else offload, given.size, kept)))
        return
    import torch

    with tempfile.TemporaryDirectory() as place:
        make(Path(place), given.layers)
        stored = sum(file.stat().st_size for file in Path(place).rglob("*.safetensors"))
        largest = (
            2 * 36 * (HEADS * 128) ** 2
        )  # a double block: 4 + 8 matrices for each of two streams, 12 of modulation
        found = {}
        for offload in ("none", "layers", "parts"):
            command = [
                sys.executable,
                __file__,
                "--size",
                str(given.size),
                "--child",
                place,
                offload,
                f"{place}/{offload}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[offload] = json.loads(done.stdout.splitlines()[-1])
        same = {name: torch.equal(torch.load(f"{place}/{name}"), torch.load(f"{place}/none")) for name in found}
    activations = found["none"]["peak"] - found["none"]["weights"]
    print(
        f"checkpoint {stored / 1e6:.0f} MB, largest layer {largest / 1e6:.0f} MB, "
        f"activations {activations / 1e6:.0f} MB"
    )
    print("| offload | peak, MB | load, s | a step, s | latents as without |\n|---|---|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {each['peak'] / 1e6:.0f} | {each['load']:.2f} | {each['step']:.2f} | {same[name]} |")
    beyond = found["layers"]["peak"] - largest - activations
    print(f'offload="layers" holds {beyond / 1e6:.0f} MB beyond the largest layer and activations')
    if given.json:
        Path(given.json).write_text(json.dumps({"stored": stored, "largest": largest, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
