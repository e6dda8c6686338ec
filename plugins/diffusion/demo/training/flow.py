"""Trains the transformer and both text encoders together, by flow matching on the autoencoder's latents."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from muon import Pair, share
from networks import SHIFT, clip_encoder, t5_encoder, transformer
from prompts import phrase
from scenes import Scene, draw_scene, paint
from seeing import encode
from torch import Tensor, nn
from wording import CLIP_LENGTH, clip_tokenizer, t5_tokenizer

MUON_RATE, ADAM_RATE = 5e-3, 3e-3
BATCH = 48
POOL = 1024  # prompts that are sorted by length together, so that a batch needs little padding
DROPPED = 0.1
"""The share of empty prompts, for guidance against an empty prompt."""
PADDING = ((0.85, 0, 4), (0.12, 4, 16), (0.03, 16, 60))
"""How much longer than its prompts a batch is: share, least, most.  Flux's transformer sees the padding too."""
AVERAGE = 0.99


@dataclass(frozen=True)
class Latents:
    """Pictures as the transformer sees them: `values` [N, 16, 4 C], with mean 0 and deviation 1."""

    scenes: list[Scene]
    values: Tensor
    shift: float
    scale: float


class Painter(nn.Module):
    """What is trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_tokenizer, self.t5_tokenizer = clip_tokenizer(), t5_tokenizer()
        self.clip = clip_encoder(self.clip_tokenizer)
        self.t5 = t5_encoder(self.t5_tokenizer)
        self.transformer = transformer()

    def forward(self, noisy: Tensor, time: Tensor, prompts: list[str], length: int) -> Tensor:
        """The velocity, noise less picture, [B, P, D]; times [B] from 0, a picture, to 1, noise."""
        padded: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        short = self.clip_tokenizer(prompts, max_length=min(CLIP_LENGTH, length + 2), **padded).input_ids
        long = self.t5_tokenizer(prompts, max_length=length, **padded).input_ids
        return self.transformer(
            hidden_states=noisy,
            timestep=time,
            pooled_projections=self.clip(short).pooler_output,
            encoder_hidden_states=self.t5(long).last_hidden_state,
            txt_ids=torch.zeros(length, 3),
            img_ids=places(noisy.shape[1]),
            return_dict=False,
        )[0]


def places(count: int) -> Tensor:
    """Rows and columns of a square of patches, [count, 3]."""
    side = round(count**0.5)
    grid = torch.zeros(side, side, 3)
    grid[..., 1], grid[..., 2] = torch.arange(side)[:, None], torch.arange(side)[None]
    return grid.view(count, 3)


def pack(latents: Tensor) -> Tensor:
    """[B, C, H, W] as patches of 2 x 2, [B, H W / 4, 4 C], the channel outermost, as Flux packs them."""
    return nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2).contiguous()


def gather(model: AutoencoderKL, count: int, checkpoint: Path, seed: int, say: Callable[[str], None]) -> Latents:
    """Latents of `count` pictures, and their mean and deviation."""
    dice = Random(f"{seed}/latents")
    scenes = [draw_scene(dice) for _ in range(count)]
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        return Latents(scenes, saved["values"], saved["shift"], saved["scale"])
    parts = [encode(model, [paint(scene, dice) for scene in scenes[at : at + 256]]) for at in range(0, count, 256)]
    latents = torch.cat(parts)
    shift, scale = latents.mean().item(), 1 / latents.std().item()
    spread = " ".join(f"{value:.2f}" for value in latents.std((0, 2, 3)))
    say(f"latents of {count} pictures: shift {shift:.4f} scale {scale:.4f}, deviation by channel {spread}")
    values = pack((latents - shift) * scale)
    torch.save({"values": values, "shift": shift, "scale": scale}, checkpoint)
    return Latents(scenes, values, shift, scale)


def batches(painter: Painter, scenes: list[Scene], seed: int) -> Iterator[tuple[list[int], list[str], int]]:
    """Numbers of pictures, their prompts, and the length to pad to, without end."""
    dice = Random(f"{seed}/flow")
    while True:
        chosen = [dice.randrange(len(scenes)) for _ in range(POOL)]
        prompts = ["" if dice.random() < DROPPED else phrase(scenes[number], dice) for number in chosen]
        lengths = [len(ids) for ids in painter.t5_tokenizer(prompts).input_ids]
        order = sorted(range(POOL), key=lambda at: lengths[at])
        groups = [order[at : at + BATCH] for at in range(0, POOL, BATCH)]
        dice.shuffle(groups)
        for group in groups:
            _, least, most = dice.choices(PADDING, [share for share, _, _ in PADDING])[0]
            length = max(lengths[at] for at in group) + dice.randint(least, most)
            yield [chosen[at] for at in group], [prompts[at] for at in group], length


def times(count: int) -> Tensor:
    """Evenly spread over the scheduler's steps, in random order, [count]."""
    even = (torch.arange(count) + torch.rand(count)) / count
    return (SHIFT * even / (1 + (SHIFT - 1) * even))[torch.randperm(count)]


def train(
    steps: int, minutes: float, latents: Latents, checkpoint: Path, seed: int, say: Callable[[str], None]
) -> Painter:
    """The painter with averaged weights; the checkpoint is resumed from where it is.

    It ends after the steps or the minutes, whichever comes first, with a rate that falls accordingly.
    """
    torch.manual_seed(seed)
    painter, step, spent = Painter(), 0, 0.0
    averaged = {name: value.detach().clone() for name, value in painter.state_dict().items()}
    parameters = list(painter.parameters())
    pool = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))  # whatever the number of cores
    optimizer = Pair(painter, MUON_RATE, ADAM_RATE, ("norm",), pool)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        painter.load_state_dict(saved["painter"])
        optimizer.load_state_dict(saved["optimizer"])
        averaged, step, spent = saved["averaged"], saved["step"], saved["spent"]
        torch.manual_seed(seed + step)
    started, total = time.monotonic() - spent, 0.0
    for numbers, prompts, length in batches(painter, latents.scenes, seed + step):
        spent = time.monotonic() - started
        progress = max(step / steps, spent / 60 / minutes)
        if progress >= 1:
            break
        clear = latents.values[torch.from_numpy(np.array(numbers))]
        noise, now = torch.randn_like(clear), times(len(numbers))
        mixed = torch.lerp(clear, noise, now[:, None, None])
        half = len(numbers) // 2

        def gradients(part: slice) -> tuple[float, tuple[Tensor, ...]]:
            off = painter(mixed[part], now[part], prompts[part], length) - (noise - clear)[part]  # noqa: B023 - run here
            loss = off.square().sum() / noise.numel()  # noqa: B023
            return loss.item(), torch.autograd.grad(loss, parameters)

        (first, ahead), (second, behind) = pool.map(gradients, (slice(half), slice(half, None)))
        for parameter, one, other in zip(parameters, ahead, behind, strict=True):
            parameter.grad = one.add_(other)
        optimizer.step(share(step, progress))
        keep = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in painter.state_dict().items():
                averaged[name].lerp_(value, 1 - keep) if value.is_floating_point() else averaged[name].copy_(value)
        step, total = step + 1, total + first + second
        if step % 50 == 0:
            say(f"flow {step} loss {total / 50:.4f} seconds {spent:.0f}")
            total = 0.0
            state = {"painter": painter.state_dict(), "averaged": averaged, "optimizer": optimizer.state_dict()}
            torch.save(state | {"step": step, "spent": spent}, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)
    painter.load_state_dict(averaged)
    return painter.eval()
