"""From a request to pictures: conditions, noise, steps, pixels, in this order and each for all pictures.

So each network comes once, also where only one of them is in memory at a time.  Pictures are denoised one after
another: what one of them is does not depend on the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from bestiary.diffusion.adapting import ImageAdapters, chosen
from bestiary.diffusion.model import Condition, Denoise, ImageModel, Pictures
from bestiary.diffusion.request import ImageRequest, Prompt, Wanted
from bestiary.diffusion.steps import ENCODING, Mask, Step, guided, noise_of, run
from bestiary.errors import OptionError
from bestiary.media import pixels
from bestiary.media.limits import MediaLimits
from bestiary.networks import Networks
from bestiary.records import Progress
from bestiary.schedulers.choice import make_scheduler

if TYPE_CHECKING:
    from bestiary.schedulers.scheduler import Schedule, Scheduler

Report = Callable[[Progress], None] | None
_KEPT = 8
"""Prompts whose conditions are kept: the text encoder need not come for them again."""


@dataclass(frozen=True)
class _Course:
    """How all pictures of a request are denoised."""

    scheduler: Scheduler
    schedule: Schedule
    start: int
    """The first evaluation; later ones where a picture is there to begin with."""

    def __len__(self) -> int:
        return len(self.schedule) - self.start


class Painter:
    """The networks at work; for one thread at a time."""

    def __init__(
        self, model: ImageModel, parts: Networks, adapters: ImageAdapters, limits: MediaLimits, tile: int | None
    ) -> None:
        self.model, self.scheduler = model, make_scheduler(model.scheduler)
        self._parts, self._adapters, self._limits, self._tile = parts, adapters, limits, tile
        self._conditions: OrderedDict[Any, Condition] = OrderedDict()

    def latents(self, request: ImageRequest, report: Report) -> torch.Tensor:
        """[N, C, h, w] in float32, ready to be decoded."""
        options = request.options
        course = self._course(request)
        pictures = self._pictures(request)
        with self._adapters.active(chosen(options.adapters, self._adapters.names)) as active:
            told = [self.condition(each.prompt, options.prompt_2, request.length, active) for each in request.pictures]
            against = None
            if request.negative:
                against = self.condition(
                    options.negative_prompt or "", options.negative_prompt_2, request.length, active
                )
            context = self.model.context(pictures, self.encode, request.height, request.width)
            begun = [self._begin(request, number, pictures, course) for number in range(len(request.pictures))]
            done = []
            for number, (beginning, mask) in enumerate(begun):
                with ExitStack() as held:
                    latents = beginning
                    denoise, negative = (
                        self._denoiser(held, request, each, context) for each in (told[number], against)
                    )
                    assert denoise is not None
                    for index, seconds, latents in run(
                        guided(denoise, negative, request.true_cfg),
                        beginning,
                        course.scheduler,
                        course.schedule,
                        start=course.start,
                        mask=mask,
                        seed=request.pictures[number].seed,
                    ):
                        self._tell(request, course, number, index, seconds, latents, report)
                done.append(latents.cpu())
        return torch.cat(done)

    def images(self, request: ImageRequest, latents: torch.Tensor, report: Report) -> list[pixels.Picture]:
        """The pictures of latents, each with what made it in its `info`."""
        made = []
        for number, (wanted, each) in enumerate(zip(request.pictures, latents, strict=True)):
            image = pixels.image_of(self.decode(each[None]))
            image.info.update(_info(request, wanted))
            made.append(image)
            if report:
                report(Progress("decode", number + 1, len(latents)))
        return made

    def encode(self, picture: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Latents [1, C, h, w], in float32, of pixels [1, 3, H, W] in -1..1; a sample by `noise`, or the mode."""
        with self._parts.use("vae") as vae:
            noise = None if noise is None else self._parts.placed("vae", noise)
            made: torch.Tensor = vae.encode(self._parts.placed("vae", picture), noise, **self._tiled(vae))
            return made.float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels [1, 3, H, W] in -1..1 of latents [1, C, h, w]."""
        with self._parts.use("vae") as vae:
            made: torch.Tensor = vae.decode(self._parts.placed("vae", latents), **self._tiled(vae))
            return made.float()

    # In the order in which `latents` calls them

    def _course(self, request: ImageRequest) -> _Course:
        options, model = request.options, self.model
        scheduler = self.scheduler
        if options.scheduler is not None:
            scheduler = make_scheduler(options.scheduler, base=model.scheduler)
        mu = model.shift(scheduler, request.height, request.width)
        sigmas = model.sigmas(scheduler, request.steps) if options.sigmas is None else list(options.sigmas)
        steps = request.steps if sigmas is None else None
        schedule = scheduler.schedule(steps, sigmas=sigmas, mu=mu)
        start = schedule.start(options.strength) if options.image is not None and self._begins_with_image else 0
        return _Course(scheduler, schedule, start)

    @property
    def _begins_with_image(self) -> bool:
        """Whether an image is where denoising begins; models that need one are told of it in every step instead."""
        return "image" not in self.model.terms.needs

    def _pictures(self, request: ImageRequest) -> Pictures:
        options, size = request.options, (request.height, request.width)
        opened = {
            name: pixels.picture(source, self._limits)
            for name in ("image", "mask", "reference", "control")
            if (source := getattr(options, name)) is not None
        }
        made = {name: pixels.pixels_of(each, *size) for name, each in opened.items() if name in ("image", "control")}
        if "mask" in opened:
            made["mask"] = pixels.mask_of(opened["mask"], *size)
        if "reference" in opened:
            own = pixels.like_area(opened["reference"], request.height * request.width, self.model.terms.multiple)
            made["reference"] = pixels.pixels_of(opened["reference"], *own)
        return Pictures(**made)

    def condition(
        self, prompt: Prompt, prompt_2: str | None = None, length: int | None = None, active: object = ()
    ) -> Condition:
        """What the denoiser is told of a prompt; kept for when it comes again with the same adapters (`active`)."""
        if isinstance(prompt, Condition):
            return prompt
        length = length or self.model.terms.max_sequence_length
        key = prompt, prompt_2, length, active
        found = self._conditions.pop(key, None) or self.model.condition(prompt, prompt_2, length)
        self._conditions[key] = found
        while len(self._conditions) > _KEPT:
            self._conditions.popitem(last=False)
        return found

    def _begin(
        self, request: ImageRequest, number: int, pictures: Pictures, course: _Course
    ) -> tuple[torch.Tensor, Mask | None]:
        """Where a picture begins: in noise, or in a picture with the noise of the first step."""
        shape = self.model.latent_shape(request.height, request.width)
        given = request.options.latents
        if given is not None:
            if tuple(given.shape[1:]) != shape:
                raise OptionError(
                    f"latents have the shape {list(given.shape)}; for {request.height} x {request.width} pixels "
                    f"[N, {', '.join(map(str, shape))}] is due."
                )
            return given[number][None].float(), None
        noise = noise_of(request.pictures[number].seed, shape)
        if pictures.image is None or not self._begins_with_image:
            return noise * course.schedule.noise_scale, None
        clean = self.encode(pictures.image, noise_of(request.pictures[number].seed, shape, ENCODING)).cpu()
        begun = course.scheduler.add_noise(clean, noise, course.schedule, course.start)
        if pictures.mask is None:
            return begun, None
        return begun, Mask(F.interpolate(pictures.mask, size=shape[1:]), clean, noise)

    def _denoiser(
        self, held: ExitStack, request: ImageRequest, condition: Condition | None, context: Mapping[str, torch.Tensor]
    ) -> Denoise | None:
        if condition is None:
            return None
        size = request.height, request.width
        return held.enter_context(self.model.denoiser(condition, context, *size, request.guidance))

    def _tell(
        self,
        request: ImageRequest,
        course: _Course,
        number: int,
        index: int,
        seconds: float,
        latents: torch.Tensor,
        report: Report,
    ) -> None:
        done = index - course.start + 1
        if report:
            report(Progress("steps", number * len(course) + done, len(course) * len(request.pictures)))
        if request.options.callback is not None:
            preview = lambda: pixels.image_of(self.decode(latents))  # noqa: E731
            request.options.callback(Step(number, done, len(course), seconds, latents, preview))

    def _tiled(self, vae: Any) -> dict[str, int]:
        return {} if self._tile is None else {"tile": max(4, self._tile // vae.factor // 4 * 4)}


def _info(request: ImageRequest, wanted: Wanted) -> dict[str, str]:
    stated = {
        "prompt": wanted.prompt if isinstance(wanted.prompt, str) else None,
        "negative_prompt": request.options.negative_prompt if request.negative else None,
        "seed": wanted.seed,
        "steps": request.steps if request.options.sigmas is None else None,
        "guidance": request.guidance,
        "true_cfg": request.true_cfg if request.negative else None,
    }
    return {name: str(value) for name, value in stated.items() if value is not None}
