"""Greedy decoding in its plainest form: no sampler, no tokenizer, one sequence."""

import torch

from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.nn import LanguageModel


@torch.no_grad()
def greedy_tokens(model: LanguageModel, prompt: list[int], count: int) -> list[int]:
    """The `count` most probable next tokens, each given those before it."""
    cache, new, made = SequenceCache(len(model.specs)), prompt, []
    for _ in range(count):
        hidden = model.hidden(torch.tensor(new), make_batch([cache], [len(new)], "cpu"))
        logits = model.head(hidden[-1:])
        new = [int(logits[-1].argmax())]
        made += new
    return made
