"""The autoencoder of latent diffusion (Rombach et al. 2021), with the names of diffusers' AutoencoderKL.

The encoder halves a picture's resolution between its blocks, and ends in the mean and the logarithm of the variance of
each latent; the decoder is its mirror.  For inference: blocks write to what they are given, which the model made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.errors import MediaError, RequestError
from bestiary_autoencoder.convolution import Convolution, Downsample, Upsample
from bestiary_autoencoder.norm import GroupNorm, activated
from bestiary_autoencoder.precision import computing_type, kept_type
from bestiary_autoencoder.settings import Settings, read
from bestiary_autoencoder.tiles import check_tile, tiled


def build(config: Config) -> Autoencoder:
    """The network of a configuration.  Raises ConfigError for one that cannot be."""
    return Autoencoder(read(config, config.origin))


class ResnetBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x)))))), where x passes a matrix if the channels change."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = GroupNorm(groups, inputs), Convolution(inputs, outputs)
        self.norm2, self.conv2 = GroupNorm(groups, outputs), Convolution(outputs, outputs)
        self.conv_shortcut = Convolution(inputs, outputs, kernel=1) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, I, H, W] -> [B, O, H, W]."""
        h = activated(x, self.norm1, self.conv1)
        return activated(h, self.norm2, self.conv2, onto=x if self.conv_shortcut is None else self.conv_shortcut(x))


class Projection(nn.Module):
    """A matrix and a bias.  No `Linear` of the core, which quantizers pack: eyes see worse in fewer bits."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(dim, dim)), nn.Parameter(torch.empty(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Attention(nn.Module):
    """Every pixel looks at all others, with one head."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, dim)
        self.to_q, self.to_k, self.to_v = Projection(dim), Projection(dim), Projection(dim)
        self.to_out = nn.ModuleList((Projection(dim),))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W] -> [B, C, H, W]."""
        h = self.group_norm(x.to(computing_type(x)))
        h = h.permute(0, 2, 3, 1).reshape(len(x), 1, -1, x.shape[1])  # [B, 1, H W, C]
        h = self.to_out[0](F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h)))
        return x.add_(h.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2))


class MidBlock(nn.Module):
    """The lowest resolution: two blocks, with attention between them."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)  # type: ignore[no-any-return]


class DownBlock(nn.Module):
    """The blocks of one resolution of the encoder, and the way to the next."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(inputs, outputs, layers, groups)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(outputs)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _through((*self.resnets, *self.downsamplers), x)


class UpBlock(nn.Module):
    """The blocks of one resolution of the decoder, and the way to the next."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(inputs, outputs, layers, groups)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(outputs)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _through((*self.resnets, *self.upsamplers), x)


class Encoder(nn.Module):
    """Pictures [B, 3, H, W] -> means and logarithms of variances [B, 2 L, H / f, W / f]."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        widths, groups = s.block_out_channels, s.norm_num_groups
        inputs, last = (widths[0], *widths[:-1]), len(widths) - 1
        self.conv_in = Convolution(s.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(inputs[index], widths[index], s.layers_per_block, groups, index == last)
            for index in range(len(widths))
        )
        self.mid_block = MidBlock(widths[-1], groups, s.mid_block_add_attention)
        self.conv_norm_out, self.conv_out = (
            GroupNorm(groups, widths[-1]),
            Convolution(widths[-1], 2 * s.latent_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _through((self.conv_in, *self.down_blocks, self.mid_block), x)
        return activated(x, self.conv_norm_out, self.conv_out)


class Decoder(nn.Module):
    """Latents [B, L, H, W] -> pictures [B, 3, f H, f W].  Its blocks have a layer more than the encoder's."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        widths, groups = s.block_out_channels[::-1], s.norm_num_groups
        inputs, last = (widths[0], *widths[:-1]), len(widths) - 1
        self.conv_in = Convolution(s.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, s.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(inputs[index], widths[index], s.layers_per_block + 1, groups, index == last)
            for index in range(len(widths))
        )
        self.conv_norm_out, self.conv_out = GroupNorm(groups, widths[-1]), Convolution(widths[-1], s.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _through((self.conv_in, self.mid_block, *self.up_blocks), x)
        return activated(x, self.conv_norm_out, self.conv_out)


class Autoencoder(nn.Module):
    """Pictures as latents that a denoiser works on, and back.

    Pictures of a batch pass one after the other: the numbers are the same, and the memory is that of one.  What comes
    out is float32, whatever the type of the weights.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        latents = settings.latent_channels
        self.encoder, self.decoder = Encoder(settings), Decoder(settings)
        self.quant_conv = Convolution(2 * latents, 2 * latents, kernel=1) if settings.use_quant_conv else None
        self.post_quant_conv = Convolution(latents, latents, kernel=1) if settings.use_post_quant_conv else None
        self.in_channels, self.latent_channels = settings.in_channels, latents
        self.factor = 2 ** (len(settings.block_out_channels) - 1)
        """How many pixels of a row one latent stands for."""
        self._force_upcast, self._scale, self._shift = settings.force_upcast, settings.scale, settings.shift

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, noise: torch.Tensor | None = None, tile: int | None = None) -> torch.Tensor:
        """pixels [B, 3, H, W] in -1..1 -> latents [B, L, H // f, W // f], shifted and scaled for a denoiser.

        The likeliest latents; with `noise` [B, L, H // f, W // f], of a standard normal distribution, a sample.  With a
        `tile`, in latents, a larger picture is encoded in squares of that size, which overlap by a quarter.

        Raises MediaError for pictures, RequestError for noise of another shape, OptionError for a tile that cannot be.
        """
        smallest = min(pixels.shape[2:], default=0)
        if pixels.ndim != 4 or pixels.shape[1] != self.in_channels or smallest < self.factor:
            due = f"[B, {self.in_channels}, H, W] of at least {self.factor} x {self.factor} pixels"
            raise MediaError(f"Pictures of the shape {list(pixels.shape)} came; {due} is due.")
        check_tile(tile)
        size = [side // self.factor for side in pixels.shape[2:]]
        shape = (len(pixels), self.latent_channels, *size)
        if noise is not None and noise.shape != shape:
            raise RequestError(f"Noise of the shape {list(noise.shape)} came; {list(shape)} is due.")
        latents = pixels.new_empty(shape, dtype=torch.float32)
        for index, picture in enumerate(torch.split(pixels, 1)):
            if tile is None or max(size) <= tile:
                moments = self._moments(picture)
            else:
                moments = tiled(self._moments, picture, tile * self.factor, (2 * self.latent_channels, *size), tile)
            mean, log_variance = moments.chunk(2, 1)
            if noise is not None:
                mean = mean + (log_variance.clamp(-30.0, 20.0) * 0.5).exp() * noise[index]
            latents[index] = (mean[0] - self._each(self._shift, mean)) * self._each(self._scale, mean)
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, tile: int | None = None) -> torch.Tensor:
        """latents [B, L, H, W] of a denoiser -> pixels [B, 3, f H, f W] in -1..1, which a few may exceed.

        With a `tile`, in latents, a larger picture is decoded in squares of that size, which overlap by a quarter.
        Raises RequestError for latents of another shape, OptionError for a tile that cannot be.
        """
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels or not min(latents.shape[2:]):
            due = f"[B, {self.latent_channels}, H, W] is due"
            raise RequestError(f"Latents of the shape {list(latents.shape)} came; {due}.")
        check_tile(tile)
        channels, size = len(self.decoder.conv_out.bias), latents.shape[2:]
        shape = (channels, *(side * self.factor for side in size))
        pixels = latents.new_empty((len(latents), *shape), dtype=torch.float32)
        for index, picture in enumerate(torch.split(latents, 1)):
            z = picture.float() / self._each(self._scale, picture) + self._each(self._shift, picture)
            if tile is None or max(size) <= tile:
                pixels[index] = self._pixels(z)[0]
            else:
                pixels[index] = tiled(self._pixels, z, tile, shape, tile * self.factor)[0]
        return pixels

    def _moments(self, pixels: torch.Tensor) -> torch.Tensor:
        """Means, and then logarithms of variances, of unscaled latents [1, 2 L, H // f, W // f], in float32."""
        x: torch.Tensor = self.encoder(self._prepared(pixels))
        return (x if self.quant_conv is None else self.quant_conv(x)).float()

    def _pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels of unscaled latents, in float32."""
        x = self._prepared(latents)
        made: torch.Tensor = self.decoder(x if self.post_quant_conv is None else self.post_quant_conv(x))
        return made.float()

    def _prepared(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.decoder.conv_in.weight
        kind = kept_type(weight.dtype, weight.device, self._force_upcast)
        return x.to(kind, memory_format=torch.channels_last)

    def _each(self, values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1)


def _resnets(inputs: int, outputs: int, layers: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(ResnetBlock(outputs if index else inputs, outputs, groups) for index in range(layers))


def _through(blocks: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = block(x)
    return x
