"""Paints prompts with diffusers' pipeline and counts what is read back as it was asked for."""

import argparse
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.utils import logging
from PIL import Image
from prompts import phrase
from reading import read
from scenes import SIZE, draw_scene

MODEL = Path(__file__).parent.parent / "src" / "bestiary_demo_image" / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guidance", type=float, default=1.0, help="above 1: away from the empty prompt")
    parser.add_argument("--length", type=int, default=512, help="the padded length of a prompt")
    parser.add_argument("--held-out", action="store_true", help="only combinations that training never draws")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sheet", type=Path, help="where to save all pictures as one")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    pipe = FluxPipeline.from_pretrained(str(options.model), dtype=getattr(torch, options.dtype))
    pipe.set_progress_bar_config(disable=True)
    dice = Random(f"{options.seed}/evaluate")
    scenes = [draw_scene(dice, options.held_out) for _ in range(options.count)]
    prompts = [phrase(scene, dice) for scene in scenes]
    pictures = []
    for at in range(0, options.count, 20):
        some = prompts[at : at + 20]
        pictures += pipe(
            some,
            negative_prompt=[""] * len(some) if options.guidance > 1 else None,
            true_cfg_scale=options.guidance,
            height=SIZE,
            width=SIZE,
            num_inference_steps=options.steps,
            max_sequence_length=options.length,
            generator=[torch.Generator().manual_seed(options.seed * 100_000 + at + each) for each in range(len(some))],
        ).images
    right = {"colour": 0, "shape": 0, "background": 0, "all": 0}
    likeness = []
    for scene, prompt, picture in zip(scenes, prompts, pictures, strict=True):
        found = read(np.asarray(picture))
        correct = (found.colour == scene.colour, found.shape == scene.shape, found.ground == scene.ground)
        for name, good in zip(right, [*correct, all(correct)], strict=True):
            right[name] += good
        likeness.append(found.likeness)
        if not all(correct):
            print(f"{prompt!r}: {found}")
    print({name: f"{count} of {options.count}" for name, count in right.items()}, f"likeness {np.mean(likeness):.3f}")
    if options.sheet:
        rows = [
            np.concatenate([np.asarray(p) for p in pictures[at : at + 10]], 1) for at in range(0, options.count, 10)
        ]
        Image.fromarray(np.concatenate(rows)).save(options.sheet)


if __name__ == "__main__":
    main()
