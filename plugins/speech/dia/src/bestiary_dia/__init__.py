"""Dia by Nari Labs for Bestiary: dialogues of two voices from a text."""

from collections.abc import Sequence

import bestiary
from bestiary_dia.weights import WEIGHTS

PARTS = (
    bestiary.Part("model", ("DiaForConditionalGeneration",), usual="nari-labs/Dia-1.6B-0626", packs=True),
    bestiary.Part("audio_tokenizer", ("DacModel",), usual="descript/dac_44khz"),
)


def _is_original(evidence: bestiary.Evidence) -> bool | None:
    """Whether a config.json is that of the first checkpoint, which names no architecture."""
    model, data = evidence.config.get("model"), evidence.config.get("data")
    if evidence.config.get("architectures") or not isinstance(model, dict) or not isinstance(data, dict):
        return None
    return True if {"encoder", "decoder"} <= model.keys() and "delay_pattern" in data else None


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture("DiaPipeline", "speech", "bestiary_dia.speaker:build", parts=PARTS),
        bestiary.Architecture(
            "DiaForConditionalGeneration",
            "part",
            "bestiary_dia.model:build",
            WEIGHTS,
            model_types=("dia",),
            probe=_is_original,
            tiny="bestiary_dia.tiny:DIA",
        ),
    ]
