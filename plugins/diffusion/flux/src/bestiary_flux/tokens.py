"""Latents as the transformer takes them: squares of two by two as one token."""

from __future__ import annotations

import torch


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[1, C, h, w] -> [1, h / 2 * w / 2, 4 C], row by row."""
    _, channels, height, width = latents.shape
    squares = latents.view(1, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(1, height // 2 * width // 2, 4 * channels)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The way back, to latents of h = height and w = width."""
    channels = tokens.shape[-1] // 4
    squares = tokens.view(1, height // 2, width // 2, channels, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(1, channels, height, width)


def positions(height: int, width: int, picture: int = 0) -> torch.Tensor:
    """[h / 2 * w / 2, 3] of float: which picture, row and column, of latents of h = height and w = width."""
    made = torch.zeros(height // 2, width // 2, 3)
    made[..., 0] = picture
    made[..., 1] = torch.arange(height // 2)[:, None]
    made[..., 2] = torch.arange(width // 2)
    return made.view(-1, 3)


def packed_mask(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """[1, 1, H, W] -> [1, S, 4 factor^2]: of each token the mask of its pixels, as FLUX.1 Fill learned it."""
    _, _, height, width = mask.shape
    cells = mask.view(1, height // factor, factor, width // factor, factor).permute(0, 2, 4, 1, 3)
    return pack(cells.reshape(1, factor * factor, height // factor, width // factor))
