"""The logits of a whole sequence in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.generation.engine.encoding import EncodedMedia
from bestiary.nn import LanguageModel

if TYPE_CHECKING:
    from bestiary.media.prompt import MediaPrompt


@torch.no_grad()
def score(
    model: LanguageModel, tokens: Sequence[int], device: torch.device, media: MediaPrompt | None = None
) -> torch.Tensor:
    """Float32 logits [T, V] that follow each token, through the plain cache that every other one must equal."""
    cache = SequenceCache(len(model.specs))
    batch = make_batch([cache], [len(tokens)], device, all_outputs=True, runs=media.runs if media else ())
    if media is not None:
        stated = media.positions
        batch = replace(
            batch,
            positions=batch.positions if stated is None else torch.from_numpy(stated.prompt).to(device),
            features=EncodedMedia(getattr(model, "media", None), device).features([(media, 0, len(tokens), 0)]),
        )
    return model.head(model.hidden(torch.tensor(tokens, device=device), batch)).float()
