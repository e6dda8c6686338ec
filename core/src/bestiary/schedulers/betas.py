"""The noise of models that were trained on a list of betas (Ho et al. 2020): all that is not flow matching."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bestiary.errors import ConfigError
from bestiary.schedulers.scheduler import Numbers


@dataclass(frozen=True, kw_only=True)
class Betas:
    """The keys that say how the noise grows over the timesteps of the training.

    The tables are of numbers that float32 has, computed in the order in which diffusers does: some schedules cut
    timesteps off to whole ones, where the last digit decides.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: Any = None
    """The betas themselves, one for each timestep, in place of a schedule."""
    rescale_betas_zero_snr: bool = False
    """Whether the last timestep is noise alone (Lin et al. 2023)."""

    def check_betas(self) -> None:
        """Raises ConfigError; for `__post_init__`, after the keys are known to be of their types."""
        if self.trained_betas is not None:
            object.__setattr__(self, "trained_betas", tuple(float(beta) for beta in self.trained_betas))
            if len(self.trained_betas) != self.num_train_timesteps:
                raise ConfigError(
                    f'"trained_betas" has {len(self.trained_betas)} members; one for each timestep is due.'
                )
        if self.num_train_timesteps < 2:
            raise ConfigError(f'"num_train_timesteps" is {self.num_train_timesteps}; at least 2 are due.')
        if self.alphas_cumprod[-2] < 1e-12 or not (self.alphas_cumprod[-1] >= 1e-12 or self.rescale_betas_zero_snr):
            raise ConfigError("The betas are so large that nothing is left of a picture.")

    @cached_property
    def alphas_cumprod(self) -> Numbers:
        """[T]: the share of the picture in the variance of a sample, at each timestep."""
        alphas = np.float32(1) - self._betas()
        if self.rescale_betas_zero_snr:
            alphas = _without_signal_at_the_end(alphas)
        product = np.cumprod(alphas.astype(np.float64)).astype(np.float32)
        return product.astype(np.float64)

    @cached_property
    def sigma_table(self) -> Numbers:
        """[T]: noise over picture at each timestep, ascending; never infinite."""
        share = self.alphas_cumprod.astype(np.float32)
        if self.rescale_betas_zero_snr:
            share[-1] = 2**-24  # as near to no picture as 16-bit floats get
        table: Numbers = np.sqrt((1 - share) / share).astype(np.float64)
        return table

    def sigmas_at(self, timesteps: Numbers) -> Numbers:
        return np.interp(timesteps, np.arange(self.num_train_timesteps), self.sigma_table)

    def last_sigma(self, kind: str) -> float:
        """The sigma after the last step, by `final_sigmas_type`."""
        return 0.0 if kind == "zero" else float(self.sigma_table[0])

    def share(self, timestep: float) -> tuple[float, float]:
        """alpha and sigma of a sample at a whole timestep, whose squares add up to 1."""
        alpha = float(self.alphas_cumprod[int(timestep)])
        return math.sqrt(alpha), math.sqrt(1 - alpha)

    def _betas(self) -> Any:
        count = self.num_train_timesteps
        if self.trained_betas is not None:
            return np.array(self.trained_betas, dtype=np.float32)
        if self.beta_schedule == "linear":
            return _line(self.beta_start, self.beta_end, count)
        if self.beta_schedule == "scaled_linear":
            return _line(self.beta_start**0.5, self.beta_end**0.5, count) ** 2
        # Nichol and Dhariwal 2021, equation 17.
        angles = (np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2
        left = np.cos(angles) ** 2
        return np.minimum(1 - left[1:] / left[:-1], 0.999).astype(np.float32)


def _line(start: float, end: float, count: int) -> Any:
    """Even float32 numbers with the rounding of torch.linspace: one rounded step, counted from the nearer end."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    index = np.arange(count)
    return np.where(index < count // 2, first + step * index, last - step * (count - 1 - index)).astype(np.float32)


def _without_signal_at_the_end(alphas: Any) -> Any:
    """Alphas [T] with the root of their product moved so that it ends at 0 (Lin et al. 2023, algorithm 1)."""
    roots = np.sqrt(np.cumprod(alphas.astype(np.float64)).astype(np.float32))
    roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    squares = roots**2
    # diffusers goes by the betas, whose rounding is part of its numbers.
    betas = np.float32(1) - np.concatenate([squares[:1], squares[1:] / squares[:-1]])
    return np.float32(1) - betas
