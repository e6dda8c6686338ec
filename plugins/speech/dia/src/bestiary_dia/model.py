"""Dia (Nari Labs 2025, after Parakeet, https://jordandarefsky.com/blog/2024/parakeet), with transformers' names.

An encoder reads the bytes of a text at once.  A decoder writes rows of codes, one for each codebook, and looks at all
of the text with each.  What it looks at is computed once for each text (`listen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.nn import Attention, Embedding, GatedMLP, Linear, RMSNorm, Rope
from bestiary.nn.batch import AttentionSpec, Batch, LayerState
from bestiary.nn.linear import together
from bestiary.nn.rope import Rotation
from bestiary_dia.settings import Settings, read

_FEW = 16
"""Rows for which one thread of torch is enough."""


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


@dataclass(frozen=True)
class Heard:
    """What the decoder looks at of one text: keys and values [N, KH, L, D] for each layer.

    N is 2 with guidance: of the text, and of the same length of nothing.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def lanes(self) -> int:
        """N: so many sequences look at it."""
        return len(self.layers[0][0])


class CrossAttention(nn.Module):
    """Attention of the decoder to a text; neither side is rotated, and scores are not scaled."""

    def __init__(self, half: Config, source: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            half.cross_num_attention_heads,
            half.cross_num_key_value_heads,
            half.cross_head_dim,
        )
        self.q_proj = Linear(half.hidden_size, self.heads * self.head_dim)
        self.k_proj = Linear(source, self.kv_heads * self.head_dim)
        self.v_proj = Linear(source, self.kv_heads * self.head_dim)
        self.o_proj = Linear(self.heads * self.head_dim, half.hidden_size)

    def listen(self, states: torch.Tensor, lanes: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [lanes, KH, L, D] of states [lanes * L, D']."""
        made = together(states, self.k_proj, self.v_proj)
        k, v = (y.view(lanes, -1, self.kv_heads, self.head_dim).transpose(1, 2).contiguous() for y in made)
        return k, v

    def forward(
        self, x: torch.Tensor, heard: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: Sequence[int]
    ) -> torch.Tensor:
        """x [T, D] -> [T, D]; the next `rows` of x are those of each text, lane after lane."""
        q = self.q_proj(x)
        with self.q_proj.ops.between() if len(x) <= _FEW else nullcontext():
            made = [self._look(part, k, v) for part, (k, v) in zip(torch.split(q, list(rows)), heard, strict=True)]
            y = made[0] if len(made) == 1 else torch.cat(made)
        return self.o_proj(y)  # type: ignore[no-any-return]

    def _look(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        # By text: so that a text beside others is computed as it is alone.
        split = q.view(len(k), -1, self.heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(split, k, v, scale=1.0, enable_gqa=self.heads != self.kv_heads)
        return y.transpose(1, 2).reshape(q.shape)


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
        heard: Sequence[tuple[torch.Tensor, torch.Tensor]],
        rows: Sequence[int],
    ) -> torch.Tensor:
        """x [T, D] -> [T, D]."""
        x, h = self.pre_ca_norm.after(x, self.self_attention(self.pre_sa_norm(x), rotation, positions, state))
        x, h = self.pre_mlp_norm.after(x, self.cross_attention(h, heard, rows))
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

    def forward(self, codes: torch.Tensor, batch: Batch, heard: Sequence[Heard], rows: Sequence[int]) -> torch.Tensor:
        """codes [T, Q] -> states [T, D]."""
        with self.norm.ops.between() if len(codes) <= _FEW else nullcontext():
            x = self.embeddings(codes)
            rotation = self.rope(batch.positions, batch.lengths).to(x.dtype)
        for index, (layer, state) in enumerate(zip(self.layers, batch.layers, strict=True)):
            x = layer(x, rotation, batch.positions, state, [each.layers[index] for each in heard], rows)
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
        return tuple(layer.self_attention.spec for layer in self.model.decoder.layers)  # type: ignore[union-attr, misc]

    def between(self) -> AbstractContextManager[None]:
        """Around what torch does between two steps."""
        return self.logits_dense.ops.between()

    def listen(self, tokens: torch.Tensor) -> Heard:
        """tokens [N, L] of texts that are looked at side by side -> what the decoder looks at."""
        states = self.model.encoder(tokens)
        return Heard(
            tuple(layer.cross_attention.listen(states, len(tokens)) for layer in self.model.decoder.layers)  # type: ignore[union-attr, operator]
        )

    def forward(self, codes: torch.Tensor, batch: Batch, heard: Sequence[Heard], rows: Sequence[int]) -> torch.Tensor:
        """codes [T, Q] -> logits [N, Q, V] of the batch's outputs.

        The codes of each text of `heard` follow those of the one before, `rows` of them, its lanes one after another.
        """
        x = self.model.decoder(codes, batch, heard, rows)
        x = x if batch.outputs is None else x[batch.outputs]
        return self.logits_dense(x).view(len(x), self.codebooks, -1)  # type: ignore[no-any-return]
