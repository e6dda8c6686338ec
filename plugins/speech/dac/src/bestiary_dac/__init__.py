"""The Descript Audio Codec for Bestiary."""

from collections.abc import Sequence

import bestiary
from bestiary_dac.describe import describe
from bestiary_dac.settings import DEFAULTS
from bestiary_dac.weights import rules

__all__ = ["describe", "rules"]


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "DacModel",
            "part",
            "bestiary_dac.model:build",
            rules(),
            model_types=("dac",),
            defaults=DEFAULTS,
            describe="bestiary_dac.describe:describe",
            tiny="bestiary_dac.tiny:CONFIGS",
        )
    ]
