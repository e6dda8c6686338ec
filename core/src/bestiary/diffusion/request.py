"""What is asked of an image pipeline, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bestiary.asking import check_number, check_whole, options_of, seeds_of
from bestiary.diffusion.model import Condition, ImageTerms
from bestiary.diffusion.steps import Step
from bestiary.errors import OptionError, RequestError, shown

MOST_SIDE = 8192
MOST_STEPS = 1000
MOST_PICTURES = 1000
MOST_CHARACTERS = 100_000
OUTPUTS = ("pil", "latent")
Prompt = str | Condition
"""A text, or what `ImagePipeline.condition` made of one."""
_PICTURES = ("image", "mask", "reference", "control")


@dataclass(frozen=True)
class ImageOptions:
    """How pictures are made.

    Raises OptionError for a value that cannot be.
    """

    negative_prompt: str | Condition | None = None
    """What is not to be seen; it counts where `true_cfg` is above 1."""
    prompt_2: str | None = None
    """For the second text encoder, where it is to read something else."""
    negative_prompt_2: str | None = None
    n: int = 1
    """Pictures of each prompt."""
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    """How much a guided model is told to keep to the prompt."""
    true_cfg: float | None = None
    """Classifier-free guidance: above 1 each step is computed twice, and the difference to the negative prompt counts
    so many times."""
    seed: int | Sequence[int] | None = None
    """The same seed makes the same picture, whatever is made beside it.  With one seed the pictures of a request have
    it and the numbers after it; None: one that nobody knows before, in the `info` of each picture."""
    image: Any = None
    """A picture to begin with; with `mask`, one that stays where the mask is black."""
    mask: Any = None
    reference: Any = None
    """A picture to go by."""
    control: Any = None
    """Depth or edges of the result, for models that take them."""
    strength: float = 0.6
    """How much of `image` may change: 1 is all of it."""
    latents: torch.Tensor | None = None
    """[N, C, h, w], the noise to begin with, in place of that of the seeds."""
    max_sequence_length: int | None = None
    scheduler: str | Mapping[str, Any] | None = None
    """Another one for this request: a name ("dpmpp_2m"), or the object of a scheduler_config.json."""
    sigmas: Sequence[float] | None = None
    """A schedule of one's own, in place of `steps`."""
    adapters: Sequence[str] | Mapping[str, float] | None = None
    """Which of the adapters of `load` count, and how much."""
    output: str = "pil"
    """"pil", or "latent" for latents [N, C, h, w] in float32."""
    callback: Callable[[Step], object] | None = None
    """Called after each step."""

    def __post_init__(self) -> None:
        check_whole("n", self.n, 1, MOST_PICTURES)
        check_whole("steps", self.steps, 1, MOST_STEPS, optional=True)
        check_whole("max_sequence_length", self.max_sequence_length, 1, 4096, optional=True)
        check_number("guidance", self.guidance, 0.0, 1e3, optional=True)
        check_number("true_cfg", self.true_cfg, 0.0, 1e3, optional=True)
        check_number("strength", self.strength, 0.0, 1.0)
        if self.image is not None and not self.strength:
            raise OptionError("strength is 0, with which nothing changes.", fix="strength=0.6; 1 changes everything")
        if self.output not in OUTPUTS:
            raise OptionError(f"output is {shown(self.output)}.", fix=f"it is {' or '.join(OUTPUTS)}")
        if self.mask is not None and self.image is None:
            raise OptionError("There is a mask and no image.", fix="give the picture that is masked as image=...")
        if self.latents is not None and self.image is not None:
            raise OptionError("Both latents and an image say where to begin.", fix="leave one of them out")


@dataclass(frozen=True)
class Wanted:
    """One picture of a request."""

    prompt: str | Condition
    seed: int


@dataclass(frozen=True)
class ImageRequest:
    """Prompts and options, with the model's own values where nothing was said."""

    pictures: tuple[Wanted, ...]
    options: ImageOptions
    height: int
    width: int
    steps: int
    guidance: float | None
    true_cfg: float
    length: int

    @property
    def negative(self) -> bool:
        """Whether each step is computed a second time, with the negative prompt."""
        return self.true_cfg > 1.0


def make_request(prompt: Prompt | Sequence[Prompt], given: Mapping[str, Any], terms: ImageTerms) -> ImageRequest:
    """Raises OptionError for options, and RequestError for prompts, that a model of these terms cannot serve."""
    options = options_of(ImageOptions, given)
    prompts = _prompts(prompt, options)
    _check_pictures(options, terms)
    height, width = (_side(name, getattr(options, name), getattr(terms, name), terms) for name in ("height", "width"))
    true_cfg = terms.true_cfg if options.true_cfg is None else float(options.true_cfg)
    if options.negative_prompt is not None and true_cfg <= 1.0:
        raise OptionError("negative_prompt counts only with true_cfg above 1.", fix="true_cfg=4")
    if options.guidance is not None and not terms.guided:
        raise OptionError("The model takes no guidance.", fix="leave guidance out; true_cfg=... works with any model")
    if options.steps is not None and options.sigmas is not None:
        raise OptionError("Both steps and sigmas are given.", fix="leave steps out: there are as many as sigmas")
    length = options.max_sequence_length or terms.max_sequence_length
    if length > terms.max_sequence_length:
        raise OptionError(f"max_sequence_length is {length}; the model takes {terms.max_sequence_length} tokens.")
    seeds = seeds_of(options.seed, len(prompts), "pictures")
    wanted = tuple(Wanted(text, seed) for text, seed in zip(prompts, seeds, strict=True))
    _check_latents(options.latents, len(wanted))
    guidance = (terms.guidance if options.guidance is None else float(options.guidance)) if terms.guided else None
    steps = options.steps or terms.steps
    return ImageRequest(wanted, options, height, width, steps, guidance, true_cfg, length)


def _prompts(prompt: Prompt | Sequence[Prompt], options: ImageOptions) -> list[Prompt]:
    one = isinstance(prompt, str | Condition)
    given: Any = [prompt] if one else list(prompt) if isinstance(prompt, Sequence) else None
    if given is None or not all(isinstance(text, str | Condition) for text in given):
        raise RequestError(f"The prompt is {shown(prompt)}; a text or a list of texts is due.")
    if not given or len(given) * options.n > MOST_PICTURES:
        raise RequestError(f"{len(given) * options.n} pictures were asked for; 1 to {MOST_PICTURES} can be made.")
    others = (options.negative_prompt, options.prompt_2, options.negative_prompt_2)
    for text in (*given, *(text for text in others if text is not None)):
        if not isinstance(text, str | Condition):
            raise RequestError(f"A prompt is {shown(text)}; a text is due.")
        if isinstance(text, str) and len(text) > MOST_CHARACTERS:
            raise RequestError(f"A prompt has {len(text)} characters; {MOST_CHARACTERS} are allowed.")
    return [text for text in given for _ in range(options.n)]


def _check_pictures(options: ImageOptions, terms: ImageTerms) -> None:
    given = {name for name in _PICTURES if getattr(options, name) is not None}
    for name in sorted(given - terms.takes):
        taken = ", ".join(sorted(terms.takes)) or "none"
        raise OptionError(f"The model takes no {name}.", fix=f"leave it out; of pictures it takes {taken}")
    for name in sorted(terms.needs - given):
        raise OptionError(f"The model needs a picture as {name}.", fix=f"give {name}=..., a file, a URL or a PIL image")


def _side(name: str, given: Any, usual: int, terms: ImageTerms) -> int:
    if given is None:
        return usual
    least = terms.multiple
    check_whole(name, given, least, MOST_SIDE)
    if given % least:
        below = given - given % least
        raise OptionError(
            f"{name} is {given}; a multiple of {least} is due.", fix=f"{name}={below} or {name}={below + least}"
        )
    return int(given)


def _check_latents(latents: Any, count: int) -> None:
    if latents is not None and (not isinstance(latents, torch.Tensor) or latents.ndim != 4 or len(latents) != count):
        what = list(latents.shape) if isinstance(latents, torch.Tensor) else shown(latents)
        raise OptionError(f"latents are {what}; a tensor [{count}, C, h, w] is due.")
