"""Perplexity against its definition in plain numpy."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bestiary.generation.perplexity import answers_perplexity, perplexity

VOCABULARY = 7
TOKENS = [1, 5, 2, 2, 6, 0, 3, 1, 4, 4, 5]


def score(tokens: Sequence[int]) -> torch.Tensor:
    """Logits that depend on all tokens so far."""
    rows = [np.sin(np.arange(VOCABULARY) * (1 + sum(tokens[: place + 1]))) * 3 for place in range(len(tokens))]
    return torch.tensor(np.array(rows), dtype=torch.float32)


def expected(window: int, stride: int) -> tuple[int, float]:
    """Each token but the first, once, within the first window that reaches it."""
    total, done = 0.0, 1
    for start in range(0, len(TOKENS), stride):
        part = TOKENS[start : start + window]
        for place in range(done - start, len(part)):
            logits = score(part).numpy()[place - 1].astype(np.float64)
            total -= logits[part[place]] - np.log(np.exp(logits).sum())
        done = max(done, start + len(part))
        if done == len(TOKENS):
            break
    return len(TOKENS) - 1, total


@pytest.mark.parametrize(("window", "stride"), [(11, 11), (100, 50), (4, 2), (5, 1), (3, 3)])
def test_it_is_the_mean_over_windows(window: int, stride: int) -> None:
    *_, found = perplexity(score, TOKENS, window, stride)
    if stride == window and window < len(TOKENS):
        # The first token of a window has nothing before it, and is not foretold.
        assert found.tokens < len(TOKENS) - 1
        return
    count, total = expected(window, stride)
    assert found.tokens == count
    assert found.nll == pytest.approx(total, rel=1e-5)
    assert found.value == pytest.approx(np.exp(total / count), rel=1e-5)


def test_a_model_that_knows_nothing_has_the_size_of_its_vocabulary() -> None:
    *_, found = perplexity(lambda tokens: torch.zeros(len(tokens), VOCABULARY), TOKENS, 8, 4)
    assert found.value == pytest.approx(VOCABULARY)


def test_of_answers_the_prompts_are_not_foretold() -> None:
    pairs = [(TOKENS[:4], TOKENS[4:6]), (TOKENS[:1], TOKENS[1:5])]
    *_, found = answers_perplexity(score, pairs)
    total = 0.0
    for prompt, answer in pairs:
        whole = [*prompt, *answer]
        for place in range(len(prompt), len(whole)):
            logits = score(whole).numpy()[place - 1].astype(np.float64)
            total -= logits[whole[place]] - np.log(np.exp(logits).sum())
    assert found.tokens == 6 and found.nll == pytest.approx(total, rel=1e-5)
