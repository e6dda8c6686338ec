"""Another speed at the same pitch: WSOLA (Verhelst and Roelands 1993, "An overlap-add technique based on waveform
similarity (WSOLA) for high quality time-scale modification of speech").

Frames are taken from the sound at one step and laid down at another.  Each is moved by a few milliseconds to where it
is most like what naturally follows the frame before it, so that waves meet in step.  What is alike adds up in full;
noise, which is not, loses up to 1.2 dB.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from bestiary.audio.limits import HIGHEST_RATE
from bestiary.errors import MediaError, OptionError, RequestError, shown

SLOWEST, FASTEST = 0.25, 4.0
_HALF = 0.02
"""Seconds of half a frame, the step at which frames are laid down: two periods of a low voice of 100 Hz."""
_REACH = 0.01
"""Seconds that a frame is moved at most, either way: a period of 50 Hz finds its like."""
_QUIET = 1e-10
"""Of the energy of the loudest candidate: one with less is not scaled up to it, nor are errors of the transforms."""
_LEAST = 1e-200
"""Energy that is divided by where all is silent."""
_BLOCK = 64
"""Frames that are prepared at once."""


def stretch(samples: torch.Tensor, rate: int, speed: float) -> torch.Tensor:
    """samples [N] float32 at `rate` Hz -> [round(N / speed)], the whole sound at once; see `Stretcher`."""
    stretcher = Stretcher(rate, speed)
    return torch.cat([stretcher.push(samples), stretcher.finish()])


class Stretcher:
    """Takes a sound as it comes, and gives it back `speed` times as fast, in pieces that no later sample changes.

    The pieces together are the same bits however the sound was cut.  They come about 50 ms of sound after it; after
    `finish` they are round(N / speed) samples.  A speed of 1 gives back what came.  Computed on the CPU.

    Raises OptionError for a speed that is not from 0.25 (four times as long) to 4, and for a rate that cannot be.
    """

    def __init__(self, rate: int, speed: float) -> None:
        if isinstance(rate, bool) or not isinstance(rate, int) or not 1 <= rate <= HIGHEST_RATE:
            raise OptionError(f"rate is {shown(rate)}; a whole number from 1 to {HIGHEST_RATE} is due.")
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not SLOWEST <= speed <= FASTEST:
            raise OptionError(f"speed is {shown(speed)}; a number from {SLOWEST:g} to {FASTEST:g} is due.")
        self._speed = float(speed)
        self._half, self._reach = max(1, round(_HALF * rate)), round(_REACH * rate)
        self._size = _fast(2 * (self._half + self._reach))
        place = (torch.arange(self._half, dtype=torch.float64) + 0.5) / self._half
        self._rising = torch.sin(place * (math.pi / 2)).square().float()  # half of a Hann window: with the other, one
        self._falling = self._rising.flip(0)
        # The sound from sample `start` on; silence is before it.
        self._start = -self._half - self._reach
        self._held, self._waiting = torch.zeros(-self._start, dtype=torch.float32), list[torch.Tensor]()
        self._came, self._ended = 0, False
        self._frames, self._middle = 1, 0  # chosen; of the last one, the sample in its middle

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """The next samples [N] float32 -> the next of the result [M], maybe none.

        Raises MediaError for what are no such samples, and RequestError after the end.
        """
        self._check_open()
        came: Any = samples
        if not isinstance(came, torch.Tensor) or came.ndim != 1 or came.dtype != torch.float32:
            kind = f"{came.dtype} {list(came.shape)}" if isinstance(came, torch.Tensor) else shown(came)
            raise MediaError(f"Samples came as {kind}; torch.float32 [samples] is due.")
        samples = samples.detach().cpu()
        self._came += len(samples)
        if self._speed == 1.0:
            return samples.clone()
        self._waiting.append(samples.clone())  # the caller may go on writing to it
        return self._made(self._came)

    def finish(self) -> torch.Tensor:
        """The rest of the result [M], with silence after the last sample.  Raises RequestError after the end."""
        self._check_open()
        self._ended = True
        if self._speed == 1.0:
            return _nothing()
        length, done = round(self._came / self._speed), (self._frames - 1) * self._half
        last = max(0, -(-length // self._half))  # the frame with whose middle the result ends, or after it
        known = self._needed(last)
        self._waiting.append(torch.zeros(max(0, known - self._came), dtype=torch.float32))
        made = self._made(known, last)[: length - done]
        self._held, self._waiting = _nothing(), []
        return made

    def _made(self, known: int, last: int | None = None) -> torch.Tensor:
        """The result up to the middle of the last frame that no sample after the first `known` can move."""
        end = self._frames
        while (last is None or end <= last) and self._needed(end) <= known:
            end += 1
        if end == self._frames:
            return _nothing()
        self._held, self._waiting = torch.cat([self._held, *self._waiting]), []
        halves, made = self._held.unfold(0, self._half, 1), []
        while self._frames < end:
            middles = self._chosen(min(_BLOCK, end - self._frames))
            places = torch.tensor([self._middle, *middles]) - self._start
            part = halves[places[:-1]] * self._falling
            made.append(part.add_(halves[places[1:] - self._half] * self._rising).flatten())
            self._frames, self._middle = self._frames + len(middles), middles[-1]
        start = min(self._middle, self._nominal(self._frames) - self._half - self._reach)
        self._held, self._start = self._held[start - self._start :].clone(), start
        return torch.cat(made)

    def _chosen(self, count: int) -> list[int]:
        """The middles of the next frames, each where it is most like what follows the one before: the cosine of both.

        Transforms are of doubles, one frame at a time: what they make is the same wherever pieces were cut.
        """
        half, reach, before, middles = self._half, self._reach, self._middle, []
        nominal = [self._nominal(self._frames + number) for number in range(count)]
        around = torch.stack([self._part(middle - half - reach, 2 * (half + reach)) for middle in nominal]).double()
        energy = F.pad(around.square().cumsum(1), (1, 0))
        energy = energy[:, 2 * half :] - energy[:, : 2 * reach + 1]
        scale = energy.maximum(energy.amax(1, keepdim=True) * _QUIET).clamp_(min=_LEAST).sqrt_().reciprocal_()
        pair = torch.zeros(2, self._size, dtype=torch.float64)
        for row, middle in enumerate(nominal):
            pair[0, : 2 * (half + reach)] = around[row]
            pair[1, : 2 * half] = self._part(before, 2 * half)
            found, sought = torch.fft.rfft(pair)
            products = torch.fft.irfft(found * sought.conj(), self._size)[: 2 * reach + 1]
            best, place = (products * scale[row]).max(0)
            # Silence is like nothing, and what is no number is like nothing either.
            before = middle + int(place) - reach if float(best) > 0 else middle
            middles.append(before)
        return middles

    def _nominal(self, frame: int) -> int:
        """The sample that belongs in the middle of a frame."""
        return math.floor(frame * self._half * self._speed + 0.5)

    def _needed(self, frame: int) -> int:
        """Samples from the beginning on that are enough to choose a frame."""
        return self._reach + max(self._nominal(frame) + self._half, self._nominal(frame - 1) + 2 * self._half)

    def _part(self, start: int, length: int) -> torch.Tensor:
        return self._held[start - self._start : start - self._start + length]

    def _check_open(self) -> None:
        if self._ended:
            raise RequestError("The sound has ended.", fix="take a new stretcher for another one")


def _nothing() -> torch.Tensor:
    return torch.empty(0, dtype=torch.float32)


def _fast(least: int) -> int:
    """The next length without prime factors above 5, which transforms are quick with."""
    length = least
    while length > 1:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            break
        length += 1
    return length
