"""Grouped-head attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bestiary.nn.batch import AttentionSpec, LayerState
from bestiary.nn.linear import Linear, together
from bestiary.nn.operations import PLAIN
from bestiary.nn.rope import Rotation


class Attention(nn.Module):
    """Attention with grouped key and value heads (Ainslie et al. 2023) over a flat batch.

    `qk_norm` makes a norm over the head dimension for q and for k, before the rotation.  `scale` defaults to the
    inverse root of `head_dim`.  `query_scale` gives a factor [T] for each query from its position (Llama 4,
    Ministral 3).
    """

    ops = PLAIN

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        bias: bool = False,
        out_bias: bool = False,
        qk_norm: Callable[[int], nn.Module] | None = None,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
        sinks: bool = False,
        query_scale: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        scale = head_dim**-0.5 if scale is None else scale
        self.spec = AttentionSpec(heads, kv_heads, head_dim, scale, window, softcap)
        self.q_proj = Linear(dim, heads * head_dim, bias)
        self.k_proj = Linear(dim, kv_heads * head_dim, bias)
        self.v_proj = Linear(dim, kv_heads * head_dim, bias)
        self.o_proj = Linear(heads * head_dim, dim, out_bias)
        self.q_norm = qk_norm(head_dim) if qk_norm else None
        self.k_norm = qk_norm(head_dim) if qk_norm else None
        self.sinks = nn.Parameter(torch.empty(heads)) if sinks else None
        self.query_scale = query_scale

    def forward(
        self, x: torch.Tensor, rotation: Rotation | None, positions: torch.Tensor, state: LayerState
    ) -> torch.Tensor:
        """x [T, D] -> [T, D].  `rotation` None leaves q and k unrotated."""
        spec = self.spec
        made = together(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (y.view(len(x), -1, spec.head_dim) for y in made)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = self.ops.rotate(q, k, rotation)
        if self.query_scale is not None:
            q = q * self.query_scale(positions)[:, None, None].to(q.dtype)
        y = state.attend(q, k, v, spec, self.sinks)
        return self.o_proj(y.reshape(len(x), -1))  # type: ignore[no-any-return]
