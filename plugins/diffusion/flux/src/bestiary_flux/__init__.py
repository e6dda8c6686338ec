"""FLUX.1 by Black Forest Labs for Bestiary."""

from collections.abc import Sequence

import bestiary
from bestiary_flux.weights import WEIGHTS

_USUAL = "black-forest-labs/FLUX.1-schnell"
PARTS = (
    bestiary.Part("transformer", ("FluxTransformer2DModel",), usual=_USUAL, packs=True),
    bestiary.Part("vae", ("AutoencoderKL",), usual=_USUAL),
    bestiary.Part("text_encoder", ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"), usual=_USUAL),
    bestiary.Part("text_encoder_2", ("T5EncoderModel",), usual=_USUAL, packs=True),
    bestiary.Part("tokenizer", beside="text_encoder", usual=_USUAL),
    bestiary.Part("tokenizer_2", beside="text_encoder_2", usual=_USUAL),
    bestiary.Part("scheduler", required=False),
)


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "FluxPipeline",
            "image",
            "bestiary_flux.pipeline:build",
            aliases=(
                "FluxImg2ImgPipeline",
                "FluxInpaintPipeline",
                "FluxFillPipeline",
                "FluxControlPipeline",
                "FluxKontextPipeline",
            ),
            parts=PARTS,
        ),
        bestiary.Architecture(
            "FluxTransformer2DModel",
            "part",
            "bestiary_flux.model:build",
            WEIGHTS,
            model_types=("flux",),
            gguf=(bestiary.Gguf("flux"),),
            describe="bestiary_flux.describe:describe",
            tiny="bestiary_flux.tiny:TRANSFORMER",
        ),
    ]
