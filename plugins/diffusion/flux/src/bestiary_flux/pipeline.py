"""FLUX.1 put together: dev, schnell, Kontext, Fill, and the models that take depth or edges.

Which of them it is, the transformer shows: a token of noisy latents has 4 C channels.  Fill has a picture and its mask
beside them, models with a control another picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bestiary.config import read_json
from bestiary.diffusion.model import Condition, Denoise, Encode, ImageTerms, Pictures
from bestiary.errors import ConfigError, OptionError
from bestiary.identified import Identified
from bestiary.networks import Networks
from bestiary.schedulers.scheduler import Scheduler
from bestiary.schedulers.shift import mu_for
from bestiary_flux.prompts import Prompts
from bestiary_flux.tokens import pack, packed_mask, positions, unpack

SCHEDULER = "scheduler_config.json"


def build(whole: Identified, parts: Networks) -> FluxModel:
    """Raises ConfigError for a transformer and an autoencoder that do not go together."""
    transformer, vae = (_config(parts, name) for name in ("transformer", "vae"))
    channels, factor = int(vae.get("latent_channels", 16)), 2 ** (len(vae.block_out_channels) - 1)
    token = 4 * channels
    kinds = {token: "plain", 2 * token: "control", 2 * token + 4 * factor**2: "fill"}
    taken = transformer.get("in_channels", 64)
    if taken not in kinds:
        raise ConfigError(
            f"The transformer takes {taken} channels, and with the {channels} of this autoencoder "
            f"{', '.join(map(str, kinds))} can be.",
            where=whole.repository.origin,
            fix="give the autoencoder that belongs to it as parts={'vae': ...}",
        )
    terms = _terms(kinds[taken], bool(transformer.get("guidance_embeds", False)), 2 * factor, whole)
    return FluxModel(parts, terms, kinds[taken], channels, factor)


def _config(parts: Networks, name: str) -> Any:
    network = parts.require(name).network
    assert network is not None
    return network.config


def _terms(kind: str, guided: bool, multiple: int, whole: Identified) -> ImageTerms:
    """As the model cards have it; `_defaults` in model_index.json says otherwise."""
    values: dict[str, Any] = {
        "multiple": multiple,
        "guided": guided,
        "steps": {"plain": 28, "control": 30, "fill": 50}[kind] if guided else 4,
        "guidance": {"plain": 3.5, "control": 10.0, "fill": 30.0}[kind],
        "max_sequence_length": 512 if guided else 256,
        "needs": {"plain": frozenset[str](), "control": {"control"}, "fill": {"image", "mask"}}[kind],
        "takes": frozenset({"image", "mask"} | {"plain": {"reference"}, "control": {"control"}, "fill": set()}[kind]),
    }
    stated = whole.evidence.model_index.get("_defaults", {})
    own = ("height", "width", "steps", "guidance", "true_cfg", "max_sequence_length")
    if not isinstance(stated, Mapping) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in stated.values()
    ):
        raise ConfigError(
            '"_defaults" must be an object of numbers.', where=f"{whole.repository.origin}, model_index.json"
        )
    return ImageTerms(**{**values, **{name: stated[name] for name in own if name in stated}})


class FluxModel:
    """The networks of FLUX.1 (`bestiary.diffusion.model.ImageModel`)."""

    def __init__(self, parts: Networks, terms: ImageTerms, kind: str, channels: int, factor: int) -> None:
        self.terms, self._parts, self._kind = terms, parts, kind
        self._channels, self._factor = channels, factor
        self._prompts = Prompts(parts)

    @property
    def scheduler(self) -> Mapping[str, Any]:
        if "scheduler" in self._parts:
            repository = self._parts.require("scheduler").repository
            if SCHEDULER in repository.files():
                return read_json(repository.path(SCHEDULER))
        # That of dev, which shifts with the size of the picture, or of schnell, which was distilled without.
        guided = self.terms.guided
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "shift": 3.0 if guided else 1.0,
            "use_dynamic_shifting": guided,
        }

    def condition(self, prompt: str, prompt_2: str | None, length: int) -> Condition:
        return self._prompts.condition(prompt, prompt_2, length)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return self._channels, height // self._factor, width // self._factor

    def shift(self, scheduler: Scheduler, height: int, width: int) -> float | None:
        _, rows, columns = self.latent_shape(height, width)
        return mu_for(scheduler, rows // 2 * (columns // 2))

    def sigmas(self, scheduler: Scheduler, steps: int) -> Any:
        """From 1 down to 1 / steps, before the shift; None where the scheduler makes flow sigmas itself."""
        if getattr(scheduler, "use_flow_sigmas", False):
            return None
        if (
            "sigmas" not in scheduler.accepts
            or getattr(scheduler, "prediction_type", "flow_prediction") != "flow_prediction"
        ):
            raise OptionError(
                f"{type(scheduler).__name__} is no scheduler for a flow model, which FLUX.1 is.",
                fix='scheduler="flow_match_euler", "flow_match_heun", "dpmpp_2m" or "unipc"',
            )
        return np.linspace(1.0, 1 / steps, steps)

    def context(self, pictures: Pictures, encode: Encode, height: int, width: int) -> dict[str, torch.Tensor]:
        """Tokens that stand behind the noisy ones ("reference"), and channels beside theirs ("beside")."""
        made: dict[str, torch.Tensor] = {}
        if pictures.reference is not None:
            latents = encode(pictures.reference)
            made["reference"], made["places"] = pack(latents), positions(latents.shape[2], latents.shape[3], picture=1)
        if self._kind == "fill":
            assert pictures.image is not None and pictures.mask is not None
            kept = pack(encode(pictures.image * (1 - pictures.mask)))
            made["beside"] = torch.cat((kept, packed_mask(pictures.mask, self._factor).to(kept)), -1)
        if self._kind == "control":
            assert pictures.control is not None
            made["beside"] = pack(encode(pictures.control))
        return made

    @contextmanager
    def denoiser(
        self,
        condition: Condition,
        context: Mapping[str, torch.Tensor],
        height: int,
        width: int,
        guidance: float | None,
    ) -> Iterator[Denoise]:
        _, rows, columns = self.latent_shape(height, width)
        count = rows // 2 * (columns // 2)
        with self._parts.use("transformer") as transformer:
            here = {name: self._parts.placed("transformer", each) for name, each in context.items() if name != "places"}
            places = positions(rows, columns)
            if "places" in context:
                places = torch.cat((places, context["places"]))
            device = transformer.x_embedder.bias.device
            conditions = transformer.prepare(
                condition.tensors["states"].to(device),
                condition.tensors["pooled"].to(device),
                None if guidance is None else torch.tensor([guidance], device=device),
                places.to(device),
            )

            def denoise(latents: torch.Tensor, timestep: float) -> torch.Tensor:
                x = pack(self._parts.placed("transformer", latents))
                if "beside" in here:
                    x = torch.cat((x, here["beside"]), -1)
                if "reference" in here:
                    x = torch.cat((x, here["reference"]), 1)
                velocity = transformer.step(x, torch.tensor([timestep / 1000], device=device), conditions)
                return unpack(velocity[:, :count], rows, columns).to(latents.device)

            yield denoise
