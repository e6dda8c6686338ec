"""What a picture costs beside diffusers: seconds of a step, of decoding, and the most memory that was ever held.

    python benchmarks/images.py [--rounds 3] [--sizes 256 512] [--threads 2] [--quant q8_0] [--repeats 3] [--json FILE]

A Flux of 283 million random parameters in bfloat16 with its autoencoder; text encoders are left out, and conditions
given.  Each run is a process of its own, ours and theirs in turns, and each of them paints with one step and with five.
A ratio is the median of ours over theirs, and below 1 ours is faster or smaller.  Where a CPU has no products of
bfloat16, diffusers takes minutes to decode in it, so that this is left out unless `--slow` asks for it; diffusers in
float32 stands in the table too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUNS = ("bfloat16", "float32", "ours", "packed")
"""Diffusers in two types, and ours in bfloat16, plain and packed."""
STEPS = 5
TOKENS = 256


def make(folder: Path) -> None:
    """The model, in diffusers' layout."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=4,
        num_single_layers=8,
        attention_head_dim=128,
        num_attention_heads=8,
        joint_attention_dim=1024,
        pooled_projection_dim=768,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 128, 256, 256),
        layers_per_block=2,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=1024,
    )
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    whole = FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, transformer=transformer, **none)
    whole.to(torch.bfloat16).save_pretrained(folder)


def conditions() -> tuple[Any, Any]:
    import torch

    states = torch.randn(1, TOKENS, 1024, generator=torch.Generator().manual_seed(1))
    return states.bfloat16(), torch.randn(1, 768, generator=torch.Generator().manual_seed(2)).bfloat16()


def theirs(folder: str, dtype: str) -> Callable[[int, int, bool], object]:
    import torch
    from diffusers import FluxPipeline

    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = FluxPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), **none)
    pipe.set_progress_bar_config(disable=True)
    states, pooled = (each.to(pipe.dtype) for each in conditions())
    return lambda size, steps, decoded: pipe(
        prompt_embeds=states,
        pooled_prompt_embeds=pooled,
        height=size,
        width=size,
        num_inference_steps=steps,
        output_type="pil" if decoded else "latent",
        generator=torch.Generator().manual_seed(3),
    )


def ours(folder: str, quant: str | None) -> Callable[[int, int, bool], object]:
    import bestiary
    from bestiary.diffusion.model import Condition

    pipe = bestiary.load(folder, dtype="bfloat16", quant=quant, progress=False)
    states, pooled = conditions()
    told = Condition({"states": states, "pooled": pooled})
    return lambda size, steps, decoded: pipe(
        told, height=size, width=size, steps=steps, output="pil" if decoded else "latent", seed=3, progress=False
    )


def run(which: str, folder: str, given: argparse.Namespace) -> dict[str, Any]:
    """One process: every size once to warm up, then the least of several for each figure."""
    import torch

    torch.set_num_threads(given.threads)
    if which in ("ours", "packed"):
        paint = ours(folder, given.quant if which == "packed" else None)
    else:
        paint = theirs(folder, which)
    found: dict[str, Any] = {}

    def seconds(size: int, steps: int, decoded: bool) -> float:
        began = time.perf_counter()
        paint(size, steps, decoded)
        return time.perf_counter() - began

    decodes = which != "bfloat16" or given.slow
    for size in given.sizes:
        seconds(size, 1, decodes)
        rows = [
            (seconds(size, 1, False), seconds(size, STEPS, False), seconds(size, 1, decodes))
            for _ in range(given.repeats)
        ]
        found[str(size)] = {
            "step": min((several - one) / (STEPS - 1) for one, several, _ in rows),
            "decode": min(whole - one for one, _, whole in rows) if decodes else None,
        }
    status = Path("/proc/self/status").read_text().splitlines()
    found["peak"] = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--quant", default="q8_0", help="a second run of ours is packed so")
    arguments.add_argument("--slow", action="store_true", help="let diffusers decode in bfloat16 on any CPU")
    arguments.add_argument("--json", metavar="FILE")
    arguments.add_argument("--child", nargs=2, metavar=("WHICH", "FOLDER"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        print(json.dumps(run(*given.child, given)))
        return
    with tempfile.TemporaryDirectory() as place:
        make(Path(place))
        rounds: list[dict[str, Any]] = []
        for _ in range(given.rounds):
            rounds.append({which: _child(which, place, given) for which in RUNS})
            _show(rounds, given.sizes, given.quant)
    if given.json:
        Path(given.json).write_text(json.dumps(rounds, indent=1) + "\n")


def _child(which: str, folder: str, given: argparse.Namespace) -> Any:
    sizes = [str(size) for size in given.sizes]
    command = [sys.executable, __file__, "--child", which, folder, "--sizes", *sizes]
    command += ["--threads", str(given.threads), "--repeats", str(given.repeats), "--quant", given.quant]
    command += ["--slow"] if given.slow else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _show(rounds: list[dict[str, Any]], sizes: list[int], quant: str) -> None:
    def row(name: str, figure: Callable[[Any], Any], unit: float, places: int) -> None:
        figures = {which: [figure(each[which]) for each in rounds] for which in RUNS}
        cells = []
        for which, found in figures.items():
            cell = "-" if None in found else f"{statistics.median(found) / unit:.{places}f}"
            for other in RUNS[:2] if which in ("ours", "packed") else ():
                if None not in figures[other]:
                    ratios = (a / b for a, b in zip(found, figures[other], strict=True))
                    cell += f" x{statistics.median(ratios):.2f}"
            cells.append(cell)
        print(f"| {name} | {' | '.join(cells)} |")

    print(f"after {len(rounds)} rounds; ratios to diffusers in bfloat16 and in float32")
    print(f"| | diffusers bfloat16 | float32 | bestiary | bestiary, {quant} |\n|---|---|---|---|---|")
    for size in sizes:
        row(f"a step at {size}, s", lambda each, size=size: each[str(size)]["step"], 1.0, 3)
        row(f"decoding {size}, s", lambda each, size=size: each[str(size)]["decode"], 1.0, 3)
    row("peak memory, MB", lambda each: each["peak"], 1e6, 0)


if __name__ == "__main__":
    main()
