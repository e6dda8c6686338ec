"""Whoever reads the media of prompts for a model: opened within limits, prepared by the family's processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bestiary.errors import MediaError
from bestiary.media.limits import MediaLimits
from bestiary.media.messages import Source
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Processor
from bestiary.media.prompt import MediaPrompt, place_media

AT_ONCE = 4
"""Media of a request that are opened and prepared beside each other: a large one takes hundreds of megabytes."""


class MediaReader:
    """The eyes and ears of a model as far as prompts go; without a `processor` it refuses every medium."""

    def __init__(self, processor: Processor | None, limits: MediaLimits | None = None) -> None:
        self._processor, self.limits = processor, limits or MediaLimits()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which media the model takes."""
        return () if self._processor is None else tuple(self._processor.tokens)

    def read(self, sources: Sequence[Source]) -> list[Prepared]:
        """Open and prepare media, in their order.  Raises MediaError."""
        if len(sources) > self.limits.count:
            raise MediaError(
                f"The request has {len(sources)} pictures, videos or sounds; {self.limits.count} are allowed."
            )
        if len(sources) < 2:
            return [self._read(kind, source) for kind, source in sources]
        with ThreadPoolExecutor(min(len(sources), AT_ONCE)) as pool:
            return list(pool.map(lambda source: self._read(*source), sources))

    def expand(self, media: Sequence[Prepared]) -> Callable[[str], str] | None:
        """What puts into a prompt's text what stands for its media; None of a model without eyes."""
        processor = self._processor
        if processor is None:
            return None
        return lambda text: processor.expand(text, media)

    def place(self, tokens: Sequence[int], media: Sequence[Prepared]) -> MediaPrompt | None:
        """Which of a prompt's tokens stand for its media; None where it has none."""
        return None if self._processor is None or not media else place_media(tokens, media, self._processor)

    def _read(self, kind: str, source: object) -> Prepared:
        if self._processor is None or kind not in self._processor.tokens:
            taken = " and ".join(f"{kind}s" for kind in self.kinds)
            raise MediaError(
                f"The model takes no {kind}s{f', only {taken}' if taken else ', only text'}.",
                fix=f"load a model that takes {kind}s, or leave them out",
            )
        from bestiary.media.opening import open_media  # needs Pillow, which a text model does without

        return self._processor.prepare(open_media(source, kind, self.limits))
