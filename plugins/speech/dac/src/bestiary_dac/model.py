"""The Descript Audio Codec (Kumar et al. 2023, arXiv 2306.06546), with the names of transformers' DacModel.

An encoder of strided convolutions makes one vector of `hop_length` samples, codebooks make a code each of what the ones
before them left of it, and a decoder that mirrors the encoder makes the samples again.  Steps are rows: [B, T, C].  For
inference: blocks write to what they are given, which the model made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.errors import MediaError, OptionError, shown
from bestiary_dac.convolution import Convolution, Upsampling
from bestiary_dac.flow import Flow, results
from bestiary_dac.precision import working_type
from bestiary_dac.quantizer import Quantizer
from bestiary_dac.settings import Settings, read
from bestiary_dac.snake import Snake
from bestiary_dac.stream import DecodeStream

_DILATIONS = (1, 3, 9)
_STRIP, _ROWS = 1 << 20, 2016
"""Numbers that pass a residual unit at once on a CPU, so that what is between its steps stays in the largest cache; but
at least so many steps, for which the weights are read once.  Smaller strips gain nothing, and let threads wait more
often for each other, which costs much on a busy machine."""
_FRAMES = 128
"""That pass the network at once on a CPU: sound of any length takes the memory of these."""


def build(config: Config) -> Dac:
    """The network of a configuration.  Raises ConfigError for one that cannot be."""
    return Dac(read(config, config.origin))


class ResidualUnit(nn.Module):
    """x + conv2(snake2(conv1(snake1(x)))), of which conv1 has seven taps, `dilation` apart."""

    def __init__(self, channels: int, dilation: int, fast: bool) -> None:
        super().__init__()
        self.snake1 = Snake(channels)
        self.conv1 = Convolution(channels, channels, 7, dilation=dilation, fast=fast)
        self.snake2, self.conv2 = Snake(channels), Convolution(channels, channels, 1)
        self.reach = 3 * dilation

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        """The next steps [B, T, C] of a sound."""
        # Snake of silence is silence, so there may be some around x in place of around conv1.
        x = flow.window(self, x, self.reach, self.conv1.span)
        count = results(x, self.conv1.span)
        for start, stop in strips(x, count):
            h = self.conv1.inner(self.snake1(x[:, start : stop + 2 * self.reach], flow), flow)
            y = self.conv2.inner(self.snake2(h, flow, inplace=True), flow)
            y += x[:, start + self.reach : stop + self.reach]
            # In place of steps at which no later strip looks.
            x[:, start:stop] = y
        return x[:, :count]


def strips(x: torch.Tensor, count: int) -> Iterator[tuple[int, int]]:
    """Where the strips of the first `count` steps of x [B, T, C] begin and end."""
    rows = max(1, count)
    if x.device.type == "cpu":
        # A multiple of every tile (see `bestiary_dac.taps`).
        tile = 4 * max(_DILATIONS)
        rows = max(_ROWS, _STRIP // x.shape[2]) // tile * tile
    return ((start, min(start + rows, count)) for start in range(0, count, rows))


class _Units(nn.Module):
    """Three residual units that look ever further."""

    def __init__(self, channels: int, fast: bool) -> None:
        super().__init__()
        units = (ResidualUnit(channels, dilation, fast) for dilation in _DILATIONS)
        self.res_unit1, self.res_unit2, self.res_unit3 = units

    def units(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        return self.res_unit3(self.res_unit2(self.res_unit1(x, flow), flow), flow)  # type: ignore[no-any-return]


class EncoderBlock(_Units):
    """Three residual units, and a convolution that takes every `stride`-th step."""

    def __init__(self, channels: int, stride: int) -> None:
        # Rounding decides between codes that are nearly as near.
        super().__init__(channels, fast=False)
        self.snake1 = Snake(channels)
        self.conv1 = Convolution(channels, 2 * channels, 2 * stride, stride=stride, padding=ceil(stride / 2))

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        """[B, T, C] -> [B, T / stride, 2 C]."""
        return self.conv1(self.snake1(self.units(x, flow), flow, inplace=True), flow)  # type: ignore[no-any-return]


class DecoderBlock(_Units):
    """A transposed convolution that makes `stride` steps of one, and three residual units."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels // 2, fast=True)
        self.snake1, self.conv_t1 = Snake(channels), Upsampling(channels, channels // 2, stride)

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        """[B, T, C] -> [B, stride T, C / 2]; of an odd stride one step less."""
        return self.units(self.conv_t1(self.snake1(x, flow, inplace=True), flow), flow)


class Encoder(nn.Module):
    """Samples [B, N, 1] -> frames [B, N / hop, H]."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        width = s.encoder_hidden_size
        self.conv1 = Convolution(1, width, 7, padding=3)
        self.block = nn.ModuleList(
            EncoderBlock(width << index, ratio) for index, ratio in enumerate(s.downsampling_ratios)
        )
        widest = width << len(s.downsampling_ratios)
        self.snake1, self.conv2 = Snake(widest), Convolution(widest, s.hidden_size, 3, padding=1)

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        x = self.conv1(x, flow)
        for block in self.block:
            x = block(x, flow)
        return self.conv2(self.snake1(x, flow, inplace=True), flow)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Frames [B, T, H] -> samples [B, hop T, 1] in -1..1."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        width = s.decoder_hidden_size
        self.conv1 = Convolution(s.hidden_size, width, 7, padding=3)
        self.block = nn.ModuleList(
            DecoderBlock(width >> index, ratio) for index, ratio in enumerate(s.upsampling_ratios)
        )
        narrowest = width >> len(s.upsampling_ratios)
        self.snake1, self.conv2 = Snake(narrowest), Convolution(narrowest, 1, 7, padding=3)

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        x = self.conv1(x, flow)
        for block in self.block:
            x = block(x, flow)
        return self.conv2(self.snake1(x, flow, inplace=True), flow).tanh_()  # type: ignore[no-any-return]


class Dac(nn.Module):
    """Sound as codes, and back.

    On a CPU the sounds of a batch pass one after the other, and each piece by piece: the numbers do not depend on the
    batch, and the memory is that of a piece.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(settings), Decoder(settings)
        self.quantizer = Quantizer(
            settings.n_codebooks, settings.codebook_size, settings.codebook_dim, settings.hidden_size
        )
        self.sampling_rate = settings.sampling_rate
        """Samples in a second."""
        self.hop_length = settings.hop_length
        """Samples for which a frame of codes stands."""
        self.codebooks, self.codebook_size = settings.n_codebooks, settings.codebook_size
        self._ratios = settings.upsampling_ratios

    @torch.no_grad()
    def encode(self, samples: torch.Tensor, codebooks: int | None = None) -> torch.Tensor:
        """samples [B, 1, N] in -1..1 -> codes [B, Q, T] int64, T frames that hold N samples and silence after them.

        `codebooks` is how many of them to use, the first ones, for fewer bits; None: all.

        Raises MediaError for other shapes and types, OptionError for a number of codebooks that the model lacks.
        """
        if samples.ndim != 3 or samples.shape[1] != 1 or not samples.numel() or not samples.is_floating_point():
            came = f"{str(samples.dtype).removeprefix('torch.')} {list(samples.shape)}"
            raise MediaError(f"Sound came as {came}; float [B, 1, N] is due.")
        if not bool(samples.isfinite().all()):
            raise MediaError("Sound came with samples that are not finite.")
        count = self.codebooks if codebooks is None else codebooks
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= self.codebooks:
            due = f"a whole number from 1 to {self.codebooks} is due"
            raise OptionError(f"codebooks is {shown(codebooks)}; {due}.")
        frames = ceil(samples.shape[2] / self.hop_length)
        silence = frames * self.hop_length - samples.shape[2]
        x = F.pad(samples, (0, silence)).transpose(1, 2).to(self.dtype)  # [B, N, 1]
        flow, made = Flow(), []
        for sound in self.together(x):
            flow = Flow(flow.weights)
            pieces = list(self.through(self.encoder, sound, flow, self.hop_length, last=True))
            made.append(self.quantizer.encode(torch.cat(pieces, 1), count))
        return torch.cat(made)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """codes [B, Q, T] int64 -> samples [B, 1, N] float32 in -1..1, N as `samples` says; Q may be less than all.

        Raises RequestError for codes of another shape or type, or that the codebooks do not have.
        """
        stream = DecodeStream(self)
        return torch.cat((stream.push(codes), stream.finish()), 2)

    def decode_chunks(self, chunks: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Codes [B, Q, T] of one sound as they come, any number of frames at a time -> its samples [B, 1, N] likewise.

        Together they are what `decode` makes of all the codes: samples wait until the frames that they hear are there.
        Raises RequestError as `decode` does.
        """
        stream = DecodeStream(self)
        for codes in chunks:
            made = stream.push(codes)
            if made.shape[2]:
                yield made
        yield stream.finish()

    def stream(self) -> DecodeStream:
        """A decoder that is given codes as they come."""
        return DecodeStream(self)

    def samples(self, frames: int) -> int:
        """How many samples that many frames become: `hop_length` each, less a few where a ratio is odd."""
        for ratio in self._ratios:
            frames = frames * ratio - ratio % 2
        return frames

    @property
    def dtype(self) -> torch.dtype:
        """The type in which it computes."""
        weight = self.decoder.conv1.weight
        return working_type(weight.dtype, weight.device)

    def together(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """Sounds that are computed together."""
        return torch.split(x, 1) if x.device.type == "cpu" else (x,)

    def through(self, half: Any, x: torch.Tensor, flow: Flow, rate: int, last: bool) -> Iterator[torch.Tensor]:
        """What the encoder or the decoder makes of the next steps x [B, T, C], `rate` of them a frame."""
        pieces = torch.split(x, _FRAMES * rate, 1) if x.device.type == "cpu" else (x,)
        for index, piece in enumerate(pieces):
            flow.last = last and index == len(pieces) - 1
            yield half(piece, flow)
