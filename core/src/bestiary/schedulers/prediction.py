"""What models predict, and how the picture and the noise follow from it.

A sample is alpha * picture + sigma * noise.  Here alpha**2 + sigma**2 is 1, or alpha + sigma is 1 for flow models.
"""

from __future__ import annotations

from bestiary.errors import OptionError
from bestiary.schedulers.scheduler import Array


def picture(kind: str, output: Array, sample: Array, alpha: float, sigma: float) -> Array:
    """The clean picture; `kind` is a `prediction_type`."""
    if kind == "sample":
        return output
    if kind == "v_prediction":
        return alpha * sample - sigma * output
    if kind == "flow_prediction":
        return sample - sigma * output
    if alpha == 0.0:
        raise OptionError(
            "The first timestep is noise alone, from which no picture follows (rescale_betas_zero_snr).",
            fix='take timestep_spacing="leading", or prediction_type="v_prediction" if the model was trained so',
        )
    return (sample - sigma * output) / alpha


def noise_in(kind: str, output: Array, sample: Array, alpha: float, sigma: float) -> Array:
    """The noise, of models that preserve the variance."""
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * sample
    return (sample - alpha * output) / sigma


def required(noise: Array | None) -> Array:
    """The noise of a step.  Raises OptionError where it was not given."""
    if noise is None:
        raise OptionError("This scheduler adds noise in its steps; noise is due.", fix="step(..., noise=...)")
    return noise
