"""Trains the autoencoder: both halves on quarters of pictures, then the decoder alone on whole ones."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from muon import Pair, share
from networks import autoencoder
from scenes import draw_scene, paint
from torch import Tensor

MUON_RATE, ADAM_RATE = 5e-3, 3e-3
BATCH = 8
CROP = 32
"""Quarters of pictures cost a quarter, and most of what there is to see is in the middle."""
DIVERGENCE = 1e-3
"""The weight of the divergence from a normal distribution, small: it keeps latents near zero and the decoder calm."""
ROUGHNESS = 0.1
"""Noise on the latents that the decoder learns to bear, in deviations: the transformer will not be exact either."""


def pixels(pictures: list[np.ndarray]) -> Tensor:
    """Pictures [H, W, 3] of bytes as [B, 3, H, W] from -1 to 1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def quarter(images: Tensor, dice: Random) -> Tensor:
    """The same square of each picture, [B, 3, CROP, CROP]."""
    top, left = (dice.randrange(images.shape[-1] - CROP + 1) for _ in range(2))
    return images[..., top : top + CROP, left : left + CROP]


def train(steps: int, checkpoint: Path, seed: int, say: Callable[[str], None]) -> AutoencoderKL:
    """Both halves, on quarters; or those of the checkpoint."""
    torch.manual_seed(seed)
    model = autoencoder()
    if checkpoint.exists():
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
        return model.eval()
    dice, optimizer = Random(f"{seed}/autoencoder"), Pair(model, MUON_RATE, ADAM_RATE)

    def loss(images: Tensor) -> tuple[Tensor, Tensor]:
        images = quarter(images, dice)
        posterior = model.encode(images).latent_dist
        shown = model.decode(posterior.sample()).sample
        off = (shown - images).abs().mean()
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return off + (shown - images).square().mean() + DIVERGENCE * divergence, off

    practise("autoencoder", steps, dice, optimizer, loss, say)
    torch.save(model.state_dict(), checkpoint)
    return model.eval()


def finish(model: AutoencoderKL, steps: int, checkpoint: Path, seed: int, say: Callable[[str], None]) -> None:
    """The decoder, on whole pictures; the encoder stays as it is, so that latents made before remain true."""
    torch.manual_seed(seed)
    if checkpoint.exists():
        model.decoder.load_state_dict(torch.load(checkpoint, weights_only=True))
        return
    dice, optimizer = Random(f"{seed}/decoder"), Pair(model.decoder, MUON_RATE / 2, ADAM_RATE / 2)

    def loss(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            latents = model.encode(images).latent_dist.mean
        latents = latents + ROUGHNESS * latents.std() * torch.rand(len(images), 1, 1, 1) * torch.randn_like(latents)
        off = (model.decode(latents).sample - images).abs().mean()
        return off, off

    practise("decoder", steps, dice, optimizer, loss, say)
    torch.save(model.decoder.state_dict(), checkpoint)


def practise(
    name: str,
    steps: int,
    dice: Random,
    optimizer: Pair,
    loss: Callable[[Tensor], tuple[Tensor, Tensor]],
    say: Callable[[str], None],
) -> None:
    """The loop; `loss` gives what is lowered, and the mean distance of a pixel's values, which is told."""
    started, seen = time.monotonic(), 0.0
    for step in range(steps):
        lowered, off = loss(pixels([paint(draw_scene(dice), dice) for _ in range(BATCH)]))
        lowered.backward()
        optimizer.step(share(step, step / steps))
        seen += off.item()
        if (step + 1) % 50 == 0:
            say(f"{name} {step + 1} off {seen / 50:.4f} seconds {time.monotonic() - started:.0f}")
            seen = 0.0


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: list[np.ndarray]) -> Tensor:
    """The means of the latents, [B, C, H / 8, W / 8]."""
    return torch.cat(
        [model.encode(pixels(pictures[at : at + 64])).latent_dist.mean for at in range(0, len(pictures), 64)]
    )
