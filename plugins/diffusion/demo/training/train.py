"""Makes the packaged model from nothing: tokenizers, autoencoder, text encoders and transformer, into one folder."""

import argparse
import json
import math
from pathlib import Path

import flow
import seeing
import torch
import wording
from diffusers import FluxPipeline
from diffusers.utils import logging
from networks import scheduler

SEED = 7
DEFAULTS = {"height": 64, "width": 64, "steps": 8, "max_sequence_length": 64, "true_cfg": 3.0}
"""What Bestiary does where nothing is said; diffusers leaves names with a line in front alone."""


def say(text: str) -> None:
    print(text, flush=True)


def export(folder: Path, painter: flow.Painter, model: torch.nn.Module, latents: flow.Latents) -> None:
    """The layout of a FluxPipeline, weights in bfloat16."""
    model.register_to_config(shift_factor=round(latents.shift, 4), scaling_factor=round(latents.scale, 4))
    pipeline = FluxPipeline(
        scheduler=scheduler(),
        vae=model,
        text_encoder=painter.clip,
        tokenizer=wording.clip_tokenizer(),
        text_encoder_2=painter.t5,
        tokenizer_2=wording.t5_tokenizer(),
        transformer=painter.transformer,
    )
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(folder)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_defaults": DEFAULTS}, indent=2) + "\n")
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to write, as FluxPipeline.from_pretrained reads it")
    parser.add_argument("--work", type=Path, default=Path("checkpoints"), help="where a stopped run is resumed from")
    parser.add_argument("--autoencoder-steps", type=int, default=1000)
    parser.add_argument("--decoder-steps", type=int, default=2300)
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the longest stage, the last, by then")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    options.work.mkdir(parents=True, exist_ok=True)
    model = seeing.train(options.autoencoder_steps, options.work / "autoencoder.pt", SEED, say)
    latents = flow.gather(model, options.pictures, options.work / "latents.pt", SEED, say)
    painter = flow.train(options.steps, options.minutes, latents, options.work / "flow.pt", SEED, say)
    seeing.finish(model, options.decoder_steps, options.work / "decoder.pt", SEED, say)
    export(options.out, painter, model, latents)
    count = sum(p.numel() for part in (painter, model) for p in part.parameters())
    say(f"{count / 1e6:.2f} million parameters in {options.out}")


if __name__ == "__main__":
    main()
