"""Whisper (Radford et al. 2022, arXiv 2212.04356), with the names of transformers' WhisperForConditionalGeneration.

An encoder hears half a minute at once; a decoder writes what was said, and looks at all that was heard with each token.
What it looks at is computed once for each window (`listen`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError, shown
from bestiary.generation.sources import Pair, SourceLayer
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import Embedding, LayerNorm, Linear
from bestiary.nn.activation import activation
from bestiary.nn.batch import AttentionSpec, Batch, LayerState
from bestiary.nn.linear import together
from bestiary.nn.operations import Operations

_BOUNDS = {
    "vocab_size": 1 << 24,
    "num_mel_bins": 1 << 10,
    "d_model": 1 << 16,
    "encoder_layers": 1 << 10,
    "encoder_attention_heads": 1 << 12,
    "encoder_ffn_dim": 1 << 18,
    "decoder_layers": 1 << 10,
    "decoder_attention_heads": 1 << 12,
    "decoder_ffn_dim": 1 << 18,
    "max_source_positions": 1 << 16,
    "max_target_positions": 1 << 16,
}
_ROWS = 512
"""That pass a feed-forward block at once on a CPU, so that what is between its products stays in the cache."""


def build(config: Config) -> Whisper:
    """Raises ConfigError for a configuration that cannot be."""
    for key, most in _BOUNDS.items():
        value = getattr(config, key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            what = f'"{key}" is {shown(value)}; a whole number from 1 to {most} is due.'
            raise ConfigError(what, where=config.origin)
    for side in ("encoder", "decoder"):
        heads = config[f"{side}_attention_heads"]
        if config.d_model % heads:
            what = f'"d_model" is {config.d_model}, which {heads} "{side}_attention_heads" do not divide.'
            raise ConfigError(what, where=config.origin)
    act = config.activation_function  # "scale_embedding" scales nothing in any implementation
    if not isinstance(act, str):
        raise ConfigError(f'"activation_function" is {shown(act)}; a name is due.', where=config.origin)
    activation(act)  # raises for an unknown one
    dim, heads = config.d_model, config.encoder_attention_heads
    encoder = WhisperEncoder(
        config.num_mel_bins,
        dim,
        config.max_source_positions,
        [EncoderLayer(dim, heads, config.encoder_ffn_dim, act) for _ in range(config.encoder_layers)],
    )
    heads = config.decoder_attention_heads
    decoder = WhisperDecoder(
        config.vocab_size,
        dim,
        config.max_target_positions,
        [DecoderLayer(dim, heads, config.decoder_ffn_dim, act) for _ in range(config.decoder_layers)],
    )
    return Whisper(encoder, decoder, dim, config.vocab_size)


class WhisperAttention(nn.Module):
    """Attention with biases everywhere but at the keys, where one changes nothing."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.spec = AttentionSpec(heads, heads, dim // heads, (dim // heads) ** -0.5)
        self.q_proj, self.k_proj = Linear(dim, dim, True), Linear(dim, dim)
        self.v_proj, self.out_proj = Linear(dim, dim, True), Linear(dim, dim, True)

    def among(self, x: torch.Tensor) -> torch.Tensor:
        """All of a window to each other: x [N, S, D] -> [N, S, D]."""
        made = together(x, self.q_proj, self.k_proj, self.v_proj)
        # Each block of queries reads all keys of a head: a copy of them side by side is read faster.
        q, k, v = (y.view(*x.shape[:2], self.spec.heads, -1).transpose(1, 2).contiguous() for y in made)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def along(self, x: torch.Tensor, state: LayerState) -> torch.Tensor:
        """The tokens of each sequence to its earlier ones: x [T, D] -> [T, D]."""
        made = together(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (y.view(len(x), self.spec.heads, -1) for y in made)
        return self.out_proj(state.attend(q, k, v, self.spec).reshape(x.shape))  # type: ignore[no-any-return]

    def listen(self, states: torch.Tensor) -> Pair:
        """Keys and values [S, H, D / H] of a window's states [S, D]."""
        k, v = (y.view(len(states), self.spec.heads, -1) for y in together(states, self.k_proj, self.v_proj))
        return k, v

    def across(self, x: torch.Tensor, source: SourceLayer) -> torch.Tensor:
        """Tokens to all that was heard: x [T, D] -> [T, D]."""
        q = self.q_proj(x).view(len(x), self.spec.heads, -1)
        return self.out_proj(source.attend(q, self.spec).reshape(x.shape))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Attention and a feed-forward block, each after a norm and added to its input."""

    def __init__(self, dim: int, heads: int, hidden: int, act: str) -> None:
        super().__init__()
        self.self_attn_layer_norm, self.self_attn = LayerNorm(dim), WhisperAttention(dim, heads)
        self.final_layer_norm, self.act = LayerNorm(dim), act
        self.fc1, self.fc2 = Linear(dim, hidden, True), Linear(hidden, dim, True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, S, D] -> [N, S, D]."""
        x = self.self_attn.among(self.self_attn_layer_norm(x)).add_(x)
        flat = x.view(-1, x.shape[-1])
        for rows in torch.split(flat, _ROWS if x.device.type == "cpu" else len(flat)):
            rows.add_(self.fc2(self.fc1.ops.act(self.fc1(self.final_layer_norm(rows)), self.act)))
        return x


class WhisperEncoder(nn.Module):
    """Two convolutions, of which the second halves the frames, fixed positions, and layers."""

    def __init__(self, bands: int, dim: int, positions: int, layers: Sequence[EncoderLayer]) -> None:
        super().__init__()
        self.bands, self.positions = bands, positions
        self.conv1 = nn.Conv1d(bands, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        # Sinusoids, which the checkpoints hold all the same.
        self.embed_positions = Embedding(positions, dim)
        self.layers, self.layer_norm = nn.ModuleList(layers), LayerNorm(dim)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [N, bands, 2 * S] -> [N, S, D], where S is the number of positions.  Raises MediaError for another."""
        if mel.ndim != 3 or mel.shape[1:] != (self.bands, 2 * self.positions):
            what = f"A spectrogram {list(mel.shape)} came; [N, {self.bands}, {2 * self.positions}] is due."
            raise MediaError(what)
        x = F.gelu(self.conv1(mel.to(self.conv1.weight.dtype)))
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # [N, S, D]
        x = x + self.embed_positions(torch.arange(self.positions, device=x.device))
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """As the encoder's, with attention to what was heard between."""

    def __init__(self, dim: int, heads: int, hidden: int, act: str) -> None:
        super().__init__()
        self.self_attn_layer_norm, self.self_attn = LayerNorm(dim), WhisperAttention(dim, heads)
        self.encoder_attn_layer_norm, self.encoder_attn = LayerNorm(dim), WhisperAttention(dim, heads)
        self.final_layer_norm, self.act = LayerNorm(dim), act
        self.fc1, self.fc2 = Linear(dim, hidden, True), Linear(hidden, dim, True)

    def forward(self, x: torch.Tensor, state: LayerState, source: SourceLayer) -> torch.Tensor:
        """x [T, D] -> [T, D]."""
        ops = self.fc1.ops
        x = ops.add(x, self.self_attn.along(self.self_attn_layer_norm(x), state))
        x = ops.add(x, self.encoder_attn.across(self.encoder_attn_layer_norm(x), source))
        return ops.add(x, self.fc2(ops.act(self.fc1(self.final_layer_norm(x)), self.act)))


class WhisperDecoder(nn.Module):
    """Tokens with learned positions, layers, and a norm."""

    def __init__(self, vocabulary: int, dim: int, positions: int, layers: Sequence[DecoderLayer]) -> None:
        super().__init__()
        self.embed_tokens, self.embed_positions = Embedding(vocabulary, dim), Embedding(positions, dim)
        self.layers, self.layer_norm = nn.ModuleList(layers), LayerNorm(dim)

    def forward(self, tokens: torch.Tensor, batch: Batch, sources: Sequence[SourceLayer]) -> torch.Tensor:
        """tokens [T] -> states [T, D]."""
        x = self.embed_tokens(tokens) + self.embed_positions(batch.positions)
        for layer, state, source in zip(self.layers, batch.layers, sources, strict=True):
            x = layer(x, state, source)
        return self.layer_norm(x)  # type: ignore[no-any-return]


class _Halves(nn.Module):
    """Both, under the name that they have in checkpoints ("model")."""

    def __init__(self, encoder: WhisperEncoder, decoder: WhisperDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class Whisper(nn.Module):
    """The encoder, the decoder, and the head."""

    rate = 16_000
    """Hz of the sound that it hears."""

    def __init__(self, encoder: WhisperEncoder, decoder: WhisperDecoder, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.model, self.proj_out = _Halves(encoder, decoder), Linear(dim, vocabulary)

    @property
    def specs(self) -> tuple[AttentionSpec, ...]:
        """What each layer of the decoder remembers of a sequence."""
        layers: list[Any] = [layer.self_attn for layer in self.model.decoder.layers]
        return tuple(layer.spec for layer in layers)

    @property
    def vocab_size(self) -> int:
        return self.model.decoder.embed_tokens.count

    @property
    def context_length(self) -> int:
        """Tokens that the decoder reads and writes for one window."""
        return self.model.decoder.embed_positions.count

    @property
    def source_specs(self) -> tuple[AttentionSpec, ...]:
        """How each layer of the decoder looks at what was heard."""
        layers: list[Any] = [layer.encoder_attn for layer in self.model.decoder.layers]
        return tuple(layer.spec for layer in layers)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.model.decoder.layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.decoder.layer_norm.weight.device  # a norm is never packed

    @property
    def operations(self) -> Operations:
        """With which it was fitted."""
        return self.proj_out.ops

    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [N, bands, 2 * S] -> states [N, S, D]."""
        return self.model.encoder(mel)  # type: ignore[no-any-return]

    def listen(self, states: torch.Tensor) -> list[Pair]:
        """What each layer of the decoder looks at, of the states [S, D] of one window."""
        layers: list[Any] = [layer.encoder_attn for layer in self.model.decoder.layers]
        return [layer.listen(states) for layer in layers]

    def hidden(self, tokens: torch.Tensor, batch: Batch, sources: Sequence[SourceLayer]) -> torch.Tensor:
        """tokens [T] of sequences -> the states [T, D] before the head."""
        return self.model.decoder(tokens, batch, sources)  # type: ignore[no-any-return]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """states [N, D] -> logits [N, V] in the model's type."""
        return self.proj_out(hidden)  # type: ignore[no-any-return]

    def listener(self, tokenizer: Tokenizer, config: Mapping[str, Any], generation_config: Mapping[str, Any]) -> Any:
        """The model with its tokens, as `bestiary.pipelines.transcription` asks for it."""
        from bestiary_whisper.listener import Listener

        return Listener(self, tokenizer, config, generation_config)
