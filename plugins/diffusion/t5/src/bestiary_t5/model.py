"""The encoder of T5 (Raffel et al. 2019, https://arxiv.org/abs/1910.10683), with transformers' names.

Attention is not scaled, and places enter it alone: a bias by relative position, that of the first layer in all layers.
Version 1.1 has a gate in the feed-forward block (Shazeer 2020); UMT5 (Chung et al. 2023) a bias for each layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.errors import RequestError
from bestiary.nn import Embedding, Linear, RMSNorm, activation
from bestiary.nn.linear import together
from bestiary.nn.operations import PLAIN
from bestiary_t5.halves import normed, sums, unbounded
from bestiary_t5.position import RelativePositionBias
from bestiary_t5.settings import Settings, settings


def build(config: Config) -> T5Encoder:
    """Raises ConfigError for a configuration that cannot be."""
    return T5Encoder(settings(config))


class T5Attention(nn.Module):
    """Attention of all tokens of a text to each other."""

    def __init__(self, s: Settings, biased: bool) -> None:
        super().__init__()
        inner = s.num_heads * s.d_kv
        self.head_dim = s.d_kv
        self.q, self.k, self.v = Linear(s.d_model, inner), Linear(s.d_model, inner), Linear(s.d_model, inner)
        self.o = Linear(inner, s.d_model)
        self.relative_attention_bias = (
            RelativePositionBias(s.relative_attention_num_buckets, s.num_heads, s.relative_attention_max_distance)
            if biased
            else None
        )

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """x [B * T, D] -> [B * T, D]; `bias` [B or 1, H, T, T] is added to the scores."""
        heads, length = bias.shape[1:3]
        made = together(x, self.q, self.k, self.v)
        q, k, v = (y.view(-1, length, heads, self.head_dim).transpose(1, 2) for y in made)  # [B, H, T, d]
        y = F.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
        return unbounded(self.o, y.transpose(1, 2).reshape(len(x), -1), x.dtype)


class T5DenseGatedActDense(nn.Module):
    """wo(act(wi_0(x)) * wi_1(x)) for x [N, D]."""

    ops = PLAIN

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.wi_0, self.wi_1, self.wo = Linear(s.d_model, s.d_ff), Linear(s.d_model, s.d_ff), Linear(s.d_ff, s.d_model)
        self.act = s.act
        activation(s.act)  # an unknown name is told now

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = together(x, self.wi_0, self.wi_1)
        return unbounded(self.wo, self.ops.gated(sums(gate), sums(up), self.act), x.dtype)


class T5DenseActDense(nn.Module):
    """wo(act(wi(x))) for x [N, D]."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.wi, self.wo, self.act = Linear(s.d_model, s.d_ff), Linear(s.d_ff, s.d_model), activation(s.act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return unbounded(self.wo, self.act(self.wi(x)), x.dtype)


class T5LayerSelfAttention(nn.Module):
    """Attention after a norm, added to its input."""

    ops = PLAIN

    def __init__(self, s: Settings, biased: bool) -> None:
        super().__init__()
        self.SelfAttention, self.layer_norm = T5Attention(s, biased), RMSNorm(s.d_model, s.eps)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return self.ops.add(x, self.SelfAttention(normed(self.layer_norm, x), bias))


class T5LayerFF(nn.Module):
    """The feed-forward block after a norm, added to its input."""

    ops = PLAIN

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.DenseReluDense = T5DenseGatedActDense(s) if s.gated else T5DenseActDense(s)
        self.layer_norm = RMSNorm(s.d_model, s.eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ops.add(x, self.DenseReluDense(normed(self.layer_norm, x)))


class T5Block(nn.Module):
    """One layer of the encoder, for sums x [B * T, D]."""

    def __init__(self, s: Settings, biased: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([T5LayerSelfAttention(s, biased), T5LayerFF(s)])

    def forward(
        self, x: torch.Tensor, bias: torch.Tensor | None, length: int, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [B * T, D] and the bias of the layers before it -> x [B * T, D] and the bias of those after it."""
        attention, feed_forward = self.layer
        table: RelativePositionBias | None = attention.SelfAttention.relative_attention_bias  # type: ignore[assignment, union-attr]
        if table is not None:
            bias = _hidden(table(length), mask)
        assert bias is not None  # the first layer has a table
        return feed_forward(attention(x, bias)), bias


class T5Stack(nn.Module):
    """The layers, and the norm after the last."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.block = nn.ModuleList(T5Block(s, s.bias_everywhere or not index) for index in range(s.num_layers))
        self.final_layer_norm = RMSNorm(s.d_model, s.eps)

    def forward(self, x: torch.Tensor, length: int, mask: torch.Tensor | None) -> torch.Tensor:
        """x [B * T, D] of B texts of T tokens -> [B * T, D]; `mask` [B, T] is True for the tokens to look at."""
        x, bias = sums(x), None
        for block in self.block:
            x, bias = block(x, bias, length, mask)
        return normed(self.final_layer_norm, x)


def _hidden(bias: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """`bias` [1, H, T, T], with which no token looks at those where `mask` [B, T] is False: [B, H, T, T]."""
    if mask is None:
        return bias
    # Not minus infinity: a text of which nothing may be seen has no weights then.
    return bias.masked_fill(~mask[:, None, None], torch.finfo(bias.dtype).min)


class T5Encoder(nn.Module):
    """Texts as a state for each token."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.shared, self.encoder = Embedding(s.vocab_size, s.d_model), T5Stack(s)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """tokens [B, T] int64 -> states [B, T, D], in the type of the weights.

        `mask` [B, T] is True for tokens that others may look at, False for padding; None: all.  Image models look at
        padding too, and give none.  Raises RequestError for shapes that are not these.
        """
        if tokens.ndim != 2 or not tokens.numel():
            raise RequestError(f"Tokens of the shape {list(tokens.shape)} came; [texts, tokens] are due.")
        if mask is not None and mask.shape != tokens.shape:
            raise RequestError(
                f"A mask of the shape {list(mask.shape)} came; that of the tokens is {list(tokens.shape)}."
            )
        seen = None if mask is None else mask.bool()
        x: torch.Tensor = self.encoder(self.shared(tokens.flatten()), tokens.shape[1], seen)
        return x.view(*tokens.shape, -1)

    def embed(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean of the states of each text's tokens, where `mask` [B, T] is True: float32 [B, D], not normalised."""
        kept = mask.bool().unsqueeze(-1)
        states = self(tokens, mask).float().masked_fill(~kept, 0.0)
        return states.sum(1) / kept.sum(1).clamp(min=1)  # type: ignore[no-any-return]
