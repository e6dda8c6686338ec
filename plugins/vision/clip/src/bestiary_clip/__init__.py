"""CLIP for Bestiary: its text encoder, and, in `bestiary_clip.model`, its vision tower for models that see."""

from collections.abc import Sequence

import bestiary
from bestiary_clip.text_defaults import TEXT_DEFAULTS

# As the checkpoints are published ("text_model.encoder.layers..."), and as transformers 5 saves a CLIPTextModel.
WEIGHTS = (
    *(bestiary.rename(f"{name}.**", f"text_model.{name}.**") for name in ("embeddings", "encoder", "final_layer_norm")),
    bestiary.drop("text_model.embeddings.position_ids"),  # older files list the numbers from zero
    bestiary.drop("logit_scale"),  # which compares texts with pictures
)
PLAIN = (*WEIGHTS, bestiary.drop("text_projection.weight"))  # the class has none, files of the larger one do
HALF = (*WEIGHTS, bestiary.drop("vision_model.**"), bestiary.drop("visual_projection.weight"))


def _architecture(name: str, build: str, weights: tuple[object, ...], *model_types: str) -> bestiary.Architecture:
    return bestiary.Architecture(
        name,
        "embedding",
        f"bestiary_clip.text:{build}",
        weights,
        model_types=model_types,
        describe=f"bestiary_clip.describe:{build}",
        defaults=TEXT_DEFAULTS,
        tiny=f"bestiary_clip.tiny:{build.upper()}",
    )


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        _architecture("CLIPTextModel", "plain", PLAIN, "clip_text_model"),
        _architecture("CLIPTextModelWithProjection", "projected", WEIGHTS),
        _architecture("CLIPModel", "half", HALF, "clip"),
    ]
