"""Dia (Nari Labs 2025, after Parakeet, https://jordandarefsky.com/blog/2024/parakeet), with transformers' names.

An encoder reads the bytes of a text at once.  A decoder writes rows of codes, one for each codebook, and looks at all
of the text with each.  What it looks at is computed once for each text (`listen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.generation.sources import Pair, SourceLayer
from bestiary.nn import Attention, Embedding, GatedMLP, Linear, RMSNorm, Rope
from bestiary.nn.batch import AttentionSpec, Batch, LayerState
from bestiary.nn.linear import together
from bestiary.nn.operations import Operations
from bestiary.nn.rope import Rotation
from bestiary_dia.settings import Settings, read


def build(config: Config) -> Dia:
    """Raises ConfigError for a configuration that cannot be."""
    return Dia(read(config))


def _attention(half: Config) -> Attention:
    """Scores are not scaled."""
    return Attention(half.hidden_size, half.num_attention_heads, half.num_key_value_heads, half.head_dim, scale=1.0)


def _mlp(half: Config) -> GatedMLP:
    return GatedMLP(half.hidden_size, half.intermediate_size, half.hidden_act)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward block, each after a norm and added to its input."""

    def __init__(self, half: Config) -> None:
        super().__init__()
        self.pre_sa_norm, self.self_attention = RMSNorm(half.hidden_size, half.norm_eps), _attention(half)
        self.post_sa_norm, self.mlp = RMSNorm(half.hidden_size, half.norm_eps), _mlp(half)

    def forward(self, x: torch.Tensor, rotation: Rotation, positions: torch.Tensor, state: LayerState) -> torch.Tensor:
        """x [T, D] -> [T, D]."""
        x, h = self.post_sa_norm.after(x, self.self_attention(self.pre_sa_norm(x), rotation, positions, state))
        return x + self.mlp(h)  # type: ignore[no-any-return]


class BothWays:
    """A `LayerState` in which the rows of each of several texts of one length see each other."""

    def __init__(self, texts: int) -> None:
        self._texts = texts

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None,
        spec: AttentionSpec,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert v is not None and sinks is None
        queries, keys, values = (x.view(self._texts, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(
            queries, keys, values, scale=spec.scale, enable_gqa=spec.heads != spec.kv_heads
        )
        return y.transpose(1, 2).reshape(q.shape)


class DiaEncoder(nn.Module):
    """Bytes, layers, and a norm."""

    def __init__(self, half: Config) -> None:
        super().__init__()
        self.longest = half.max_position_embeddings
        self.embedding = Embedding(half.vocab_size, half.hidden_size)
        self.layers = nn.ModuleList(EncoderLayer(half) for _ in range(half.num_hidden_layers))
        self.norm, self.rope = RMSNorm(half.hidden_size, half.norm_eps), Rope(half.head_dim, half.rope())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [N, L] -> states [N L, D]."""
        count, length = tokens.shape
        x = self.embedding(tokens.flatten())
        positions = torch.arange(length, device=x.device).repeat(count)
        rotation = self.rope(positions, torch.full_like(positions, length)).to(x.dtype)
        state = BothWays(count)
        for layer in self.layers:
            x = layer(x, rotation, positions, state)
        return self.norm(x)  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention of the decoder to a text; neither side is rotated, and scores are not scaled."""

    def __init__(self, half: Config, source: int) -> None:
        super().__init__()
        heads, kv_heads, head_dim = half.cross_num_attention_heads, half.cross_num_key_value_heads, half.cross_head_dim
        self.spec = AttentionSpec(heads, kv_heads, head_dim, 1.0)
        self.q_proj = Linear(half.hidden_size, heads * head_dim)
        self.k_proj, self.v_proj = Linear(source, kv_heads * head_dim), Linear(source, kv_heads * head_dim)
        self.o_proj = Linear(heads * head_dim, half.hidden_size)

    def listen(self, states: torch.Tensor) -> Pair:
        """Keys and values [L, KH, D] of states [L, D']."""
        k, v = (y.view(len(states), self.spec.kv_heads, -1) for y in together(states, self.k_proj, self.v_proj))
        return k, v

    def forward(self, x: torch.Tensor, source: SourceLayer) -> torch.Tensor:
        """x [T, D] -> [T, D]."""
        y = source.attend(self.q_proj(x).view(len(x), self.spec.heads, -1), self.spec)
        return self.o_proj(y.reshape(len(x), -1))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """As the encoder's, with attention to the text between."""

    def __init__(self, half: Config, source: int) -> None:
        super().__init__()
        self.pre_sa_norm, self.self_attention = RMSNorm(half.hidden_size, half.norm_eps), _attention(half)
        self.pre_ca_norm, self.cross_attention = RMSNorm(half.hidden_size, half.norm_eps), CrossAttention(half, source)
        self.pre_mlp_norm, self.mlp = RMSNorm(half.hidden_size, half.norm_eps), _mlp(half)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation,
        positions: torch.Tensor,
        state: LayerState,
        source: SourceLayer,
    ) -> torch.Tensor:
        """x [T, D] -> [T, D]."""
        x, h = self.pre_ca_norm.after(x, self.self_attention(self.pre_sa_norm(x), rotation, positions, state))
        x, h = self.pre_mlp_norm.after(x, self.cross_attention(h, source))
        return self.mlp.ops.add(x, self.mlp(h))


class CodeEmbedding(nn.Module):
    """The sum of one vector for each codebook; their tables stand below each other."""

    offsets: torch.Tensor

    def __init__(self, codebooks: int, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.embed, self.codebooks, self.vocabulary = Embedding(codebooks * vocabulary, dim), codebooks, vocabulary

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """codes [T, Q] -> [T, D]."""
        offsets = torch.arange(0, self.codebooks * self.vocabulary, self.vocabulary, device=codes.device)
        return self.embed((codes + offsets).flatten()).view(*codes.shape, -1).sum(1)  # type: ignore[no-any-return]


class DiaDecoder(nn.Module):
    """Codes, layers, and a norm."""

    def __init__(self, half: Config, source: int) -> None:
        super().__init__()
        self.longest = half.max_position_embeddings
        self.embeddings = CodeEmbedding(half.num_channels, half.vocab_size, half.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(half, source) for _ in range(half.num_hidden_layers))
        self.norm, self.rope = RMSNorm(half.hidden_size, half.norm_eps), Rope(half.head_dim, half.rope())

    def forward(self, codes: torch.Tensor, batch: Batch, sources: Sequence[SourceLayer]) -> torch.Tensor:
        """codes [T, Q] -> states [T, D]."""
        x = self.embeddings(codes)
        rotation = self.rope(batch.positions, batch.lengths).to(x.dtype)
        for layer, state, source in zip(self.layers, batch.layers, sources, strict=True):
            x = layer(x, rotation, batch.positions, state, source)
        return self.norm(x)  # type: ignore[no-any-return]


class _Halves(nn.Module):
    """Both, under the name that they have in checkpoints ("model")."""

    def __init__(self, encoder: DiaEncoder, decoder: DiaDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class Dia(nn.Module):
    """The encoder, the decoder, and the head."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        encoder, decoder = settings.encoder, settings.decoder
        self.model = _Halves(DiaEncoder(encoder), DiaDecoder(decoder, encoder.hidden_size))
        self.codebooks, self.vocab_size = decoder.num_channels, decoder.vocab_size
        self.logits_dense = Linear(decoder.hidden_size, self.codebooks * self.vocab_size)

    @property
    def specs(self) -> tuple[AttentionSpec, ...]:
        """What each layer of the decoder remembers of a sequence."""
        layers: list[Any] = [layer.self_attention for layer in self.model.decoder.layers]
        return tuple(layer.spec for layer in layers)

    @property
    def source_specs(self) -> tuple[AttentionSpec, ...]:
        """What each layer of the decoder looks at."""
        layers: list[Any] = [layer.cross_attention for layer in self.model.decoder.layers]
        return tuple(layer.spec for layer in layers)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.model.decoder.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.decoder.norm.weight.device

    @property
    def operations(self) -> Operations:
        """With which it was fitted."""
        return self.logits_dense.ops

    def listen(self, tokens: torch.Tensor) -> list[list[Pair]]:
        """tokens [N, L] of texts of one length -> of each the keys and values that each layer looks at."""
        states = self.model.encoder(tokens)
        layers: list[Any] = [layer.cross_attention for layer in self.model.decoder.layers]
        return [[layer.listen(each) for layer in layers] for each in states.chunk(len(tokens))]

    def hidden(self, codes: torch.Tensor, batch: Batch, sources: Sequence[SourceLayer]) -> torch.Tensor:
        """codes [T, Q] -> the states [T, D] before the head."""
        return self.model.decoder(codes, batch, sources)  # type: ignore[no-any-return]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """states [N, D] -> logits [N, Q, V] in the model's type."""
        return self.logits_dense(hidden).view(len(hidden), self.codebooks, -1)  # type: ignore[no-any-return]
