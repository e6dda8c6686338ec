"""What the eyes of a model made of pictures: kept, so that a second question about one does not look again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bestiary.errors import GenerationError
from bestiary.nn import Features, MediaEncoder

if TYPE_CHECKING:
    from bestiary.media.prepared import Prepared
    from bestiary.media.prompt import MediaPrompt

KEPT = 1 << 29
"""Bytes of rows that are kept, the last used ones; those of a step are there in any case."""


class EncodedMedia:
    """Encoded media by their hashes, on the model's device.  For one thread at a time."""

    def __init__(self, encoder: nn.Module | None, device: torch.device, kept: int = KEPT) -> None:
        self._encoder, self._device, self._kept = encoder, device, kept
        self._rows: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.encoded = 0
        """Media that were encoded so far."""

    def features(self, parts: Iterable[tuple[MediaPrompt, int, int, int]]) -> Features | None:
        """Of parts of a batch: the media of its prompt, its tokens [start, end), and its first row in the batch.

        Media that are needed and not kept are encoded, all of a step together.
        """
        wanted: list[tuple[Prepared, int, int]] = []
        rows: list[torch.Tensor] = []
        for prompt, start, end, row in parts:
            for placed, first, last in prompt.within(start, end):
                wanted.append((placed.medium, first, last))
                rows.append(torch.from_numpy(placed.places[first:last] - start + row))
        if not wanted:
            return None
        held = self._held([medium for medium, _, _ in wanted])
        values = torch.cat([held[medium.digest][first:last] for medium, first, last in wanted])
        return Features(torch.cat(rows).to(self._device), values)

    def forget(self) -> None:
        """The encoder is another now."""
        self._rows.clear()

    def _held(self, media: Many[Prepared]) -> Mapping[bytes, torch.Tensor]:
        missing = {medium.digest: medium for medium in media if medium.digest not in self._rows}
        if missing:
            self._rows.update(zip(missing, self._encode(list(missing.values())), strict=True))
            self.encoded += len(missing)
        held = {medium.digest: self._rows[medium.digest] for medium in media}
        for digest in held:
            self._rows.move_to_end(digest)
        total = sum(rows.nbytes for rows in self._rows.values())
        while total > self._kept and self._rows:
            total -= self._rows.popitem(last=False)[1].nbytes
        return held

    def _encode(self, media: Many[Prepared]) -> Many[torch.Tensor]:
        encoder = self._encoder
        assert encoder is not None
        dtype = next((part.dtype for part in encoder.parameters()), torch.float32)

        def moved(tensors: Mapping[str, object]) -> dict[str, torch.Tensor]:
            made = {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}
            return {name: x.to(self._device, dtype if x.is_floating_point() else None) for name, x in made.items()}

        rows = encode(encoder, [moved(medium.tensors) for medium in media])
        for medium, made in zip(media, rows, strict=True):
            if len(made) != medium.rows:
                raise GenerationError(
                    f"The encoder made {len(made)} rows of a medium for which {medium.rows} tokens stand.",
                    fix="tell the author of the model's plugin",
                )
        # A part of something larger would keep all of that.
        return [made if made.untyped_storage().nbytes() == made.nbytes else made.clone() for made in rows]


def encode(encoder: MediaEncoder | nn.Module, media: Many[Mapping[str, torch.Tensor]]) -> Many[torch.Tensor]:
    """`MediaEncoder.encode`, of a module that is one."""
    return cast("MediaEncoder", encoder).encode(media)
