"""The image autoencoder of Stable Diffusion and Flux for Bestiary."""

from collections.abc import Sequence

import bestiary
from bestiary_autoencoder.describe import describe
from bestiary_autoencoder.settings import DEFAULTS
from bestiary_autoencoder.weights import rules

__all__ = ["describe", "rules"]


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "AutoencoderKL",
            "part",
            "bestiary_autoencoder.model:build",
            rules(),
            defaults=DEFAULTS,
            describe="bestiary_autoencoder.describe:describe",
            tiny="bestiary_autoencoder.tiny:CONFIGS",
        )
    ]
