"""The image pipeline: prompts in, pictures out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from bestiary.closing import Closing
from bestiary.diffusion.adapting import ImageAdapters
from bestiary.diffusion.model import Condition, ImageModel
from bestiary.diffusion.painter import Painter
from bestiary.diffusion.request import Prompt, make_request
from bestiary.errors import OptionError, RequestError, shown
from bestiary.identified import Identified
from bestiary.loading import Pull
from bestiary.media.limits import MediaLimits
from bestiary.networks import Networks
from bestiary.parts import find_parts
from bestiary.progress import bar
from bestiary.records import Packing, Progress, resolve


@dataclass(frozen=True)
class ImageLoadOptions:
    """What `bestiary.load` takes for an image model, besides its own options."""

    parts: str | Mapping[str, str | None] | None = None
    """By part ("vae") where it is to come from; or one repository that has all that is missing."""
    offload: str | None = None
    """What is not to stay in memory: "parts" or "layers" (see `bestiary.networks`)."""
    tile: int | None = None
    """Pixels, about, of the side of a tile in which the autoencoder works; None: it sees the whole picture."""
    adapters: Mapping[str, str] | None = None
    """LoRA adapters by alias, each a hub id, a folder or a file."""
    media_limits: MediaLimits | None = None

    def __post_init__(self) -> None:
        tile = self.tile
        if tile is not None and (isinstance(tile, bool) or not isinstance(tile, int) or not 64 <= tile <= 8192):
            raise OptionError(f"tile is {shown(tile)}; a number of pixels from 64 to 8192 is due.")


class ImagePipeline(Closing):
    """An image model that is ready to paint; a context manager that frees memory.

    Calls take the options of `bestiary.diffusion.request.ImageOptions`, and wait for each other.
    """

    def __init__(self, identified: Identified, pull: Pull) -> None:
        options = ImageLoadOptions(**identified.options)
        found = find_parts(identified, options.parts)
        self.identified = identified
        self._adapters = ImageAdapters(found, options.adapters or {}, identified)
        self._parts = Networks(identified, found, pull, options.offload)
        self._parts.attach = self._adapters.attach
        build: Callable[[Identified, Networks], ImageModel] = resolve(identified.architecture.model)
        model = build(identified, self._parts)
        self._parts.load()
        limits = options.media_limits or MediaLimits()
        self._painter: Painter | None = Painter(model, self._parts, self._adapters, limits, options.tile)
        self.terms = model.terms
        """What the model takes, and what it does where nothing is said."""
        self._lock = threading.Lock()

    def __call__(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        progress: bool | Callable[[Progress], None] | None = None,
        **options: Any,
    ) -> Any:
        """A picture of a prompt, as a PIL image; a list of them where there are several prompts, or `n`.

        `progress` is True for a bar on stderr (the default on a terminal), False for silence, or a function that gets
        Progress events.
        """
        request = make_request(prompt, options, self.terms)
        with self._lock, nullcontext(progress) if callable(progress) else bar(progress) as report:
            painter = self._running()
            latents = painter.latents(request, report)
            if request.options.output == "latent":
                return latents
            images = painter.images(request, latents, report)
        return images[0] if isinstance(prompt, Prompt) and request.options.n == 1 else images

    generate = __call__

    def condition(self, prompt: str, prompt_2: str | None = None, max_sequence_length: int | None = None) -> Condition:
        """What the denoiser is told of a prompt, without adapters; it can be given in place of the text."""
        with self._lock:
            return self._running().condition(prompt, prompt_2, max_sequence_length)

    async def agenerate(self, prompt: Prompt | Sequence[Prompt], **options: Any) -> Any:
        """`generate` without blocking the event loop."""
        return await asyncio.to_thread(self, prompt, **options)

    @property
    def packing(self) -> Mapping[str, Packing]:
        """What became of each weight that was packed while it was loaded, by part and parameter."""
        return self._parts.packing

    @property
    def adapters(self) -> tuple[str, ...]:
        """The aliases of the adapters that were loaded."""
        return self._adapters.names

    @property
    def nbytes(self) -> int:
        """What the weights take that are in memory now."""
        return self._parts.nbytes

    def close(self) -> None:
        """Free the memory; calls after it raise RequestError."""
        with self._lock:
            self._painter = None
            self._parts.close()

    def __repr__(self) -> str:
        name = self.identified.architecture.name
        return f"<ImagePipeline {name} of {self.identified.repository.origin}{'' if self._painter else ', closed'}>"

    def _running(self) -> Painter:
        if self._painter is None:
            raise RequestError("The pipeline is closed.", fix="load the model again")
        return self._painter
