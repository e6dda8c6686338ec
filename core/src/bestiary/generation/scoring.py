"""The logits of a whole sequence in one pass."""

from collections.abc import Sequence

import torch

from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.nn import LanguageModel


@torch.no_grad()
def score(model: LanguageModel, tokens: Sequence[int], device: torch.device) -> torch.Tensor:
    """Float32 logits [T, V] that follow each token, through the plain cache that every other one must equal."""
    cache = SequenceCache(len(model.specs))
    batch = make_batch([cache], [len(tokens)], device, all_outputs=True)
    return model.head(model.hidden(torch.tensor(tokens, device=device), batch)).float()
