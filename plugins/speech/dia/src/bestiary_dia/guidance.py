"""What the scores of a step become before a code is drawn from them."""

from __future__ import annotations

import torch

NEVER = -1e30
"""A score that no code with it is drawn by, and that is finite all the same."""


def guided(scores: torch.Tensor, scale: float, top_k: int | None) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) of scores [N, 2, Q, V], with and without text.

    With `top_k` the guided scores only say which codes are left, and those of the text how probable each is: [N, Q, V].
    """
    with_text, without = scores.unbind(1)
    made = with_text + (with_text - without) * scale
    if top_k is None or top_k >= made.shape[-1]:
        return made
    best = made.topk(top_k, -1).indices
    return torch.full_like(with_text, NEVER).scatter(-1, best, with_text.gather(-1, best))


def allowed(scores: torch.Tensor, eos: int, early: torch.Tensor) -> torch.Tensor:
    """Scores [N, Q, V] with those of codes that are no sound put down; `early` [N] says where no end may come yet.

    The end is not drawn: it comes where it is the most probable code of the first codebook, and nowhere else.
    """
    made = scores.clone()
    made[:, 0, eos + 1 :] = NEVER
    made[:, 1:, eos:] = NEVER
    made[:, 0, eos].masked_fill_(early, NEVER)
    ends = made[:, 0].argmax(-1) == eos
    made[:, 0, eos].masked_fill_(~ends, NEVER)
    made[:, 0, :eos].masked_fill_(ends[:, None], NEVER)
    return made
