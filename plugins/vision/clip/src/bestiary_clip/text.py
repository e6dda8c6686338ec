"""The text encoder of CLIP (Radford et al. 2021, arXiv 2103.00020), with the names of the published checkpoints.

A transformer in which a token sees those before it, so that the end token has seen the whole text: its row is what the
text means.  The layers are those of the vision tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bestiary.config import Config, normalise
from bestiary.errors import ConfigError, RequestError, shown
from bestiary.nn import Embedding, LayerNorm, Linear
from bestiary.nn.vision import VisionEncoder
from bestiary_clip.text_defaults import TEXT_DEFAULTS

_BOUNDS = {
    "vocab_size": (1, 1 << 24),
    "hidden_size": (1, 1 << 16),
    "intermediate_size": (1, 1 << 18),
    "num_hidden_layers": (1, 1 << 10),
    "num_attention_heads": (1, 1 << 12),
    "max_position_embeddings": (1, 1 << 16),
    "projection_dim": (1, 1 << 16),
    "eos_token_id": (0, 1 << 31),
}
_LARGEST_ID = 2
"""The `eos_token_id` of configurations made before it counted for anything: the end is the token of the largest id."""


def plain(config: Config) -> ClipText:
    """A CLIPTextModel.  Raises ConfigError for a configuration that cannot be."""
    return _build(config, config.origin, None)


def projected(config: Config) -> ClipText:
    """A CLIPTextModelWithProjection.  Raises ConfigError as `plain` does."""
    return _build(config, config.origin, "projection_dim")


def half(config: Config) -> ClipText:
    """The half of a CLIPModel that reads.  Raises ConfigError as `plain` does."""
    # The first configurations had it under another name, and old ones still under both, where this one counts.
    key = "text_config" if config.get("text_config_dict") is None else "text_config_dict"
    nested, width = config.get(key), config.get("projection_dim")
    if nested is not None and not isinstance(nested, Mapping):
        raise ConfigError(f'"{key}" is {shown(nested)}; an object is due.', where=config.origin)
    values = {**(nested or {}), "projection_dim": width}  # that of the two halves together counts
    return _build(values, f"{config.origin}, {key}", "projection_dim")


def _build(values: Mapping[str, Any], origin: str, projection: str | None) -> ClipText:
    c = normalise(values, origin, TEXT_DEFAULTS)
    for key, (least, most) in _BOUNDS.items():
        value = c[key]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f'"{key}" is {shown(value)}; a whole number from {least} to {most} is due.', where=origin)
    eps, act = c.layer_norm_eps, c.hidden_act
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not (0 <= eps < math.inf):
        raise ConfigError(f'"layer_norm_eps" is {shown(eps)}; a number from zero is due.', where=origin)
    if not isinstance(act, str):
        raise ConfigError(f'"hidden_act" is {shown(act)}; a name is due.', where=origin)
    return ClipText(
        vocabulary=c.vocab_size,
        layers=c.num_hidden_layers,
        dim=c.hidden_size,
        hidden=c.intermediate_size,
        heads=c.num_attention_heads,
        positions=c.max_position_embeddings,
        end=c.eos_token_id,
        projection=c[projection] if projection else None,
        act=act,
        eps=eps,
    )


class ClipTextEmbeddings(nn.Module):
    """Each token with its learned position."""

    def __init__(self, vocabulary: int, positions: int, dim: int) -> None:
        super().__init__()
        self.token_embedding = Embedding(vocabulary, dim)
        self.position_embedding = Embedding(positions, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [B, T] -> [B, T, D]."""
        x = self.token_embedding(tokens.flatten()).view(*tokens.shape, -1)
        return x + self.position_embedding(torch.arange(tokens.shape[1], device=tokens.device))  # type: ignore[no-any-return]


class ClipTextTransformer(nn.Module):
    """Embeddings, layers and the final norm."""

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        layers: int,
        dim: int,
        hidden: int,
        heads: int,
        act: str,
        eps: float,
    ) -> None:
        super().__init__()
        self.embeddings = ClipTextEmbeddings(vocabulary, positions, dim)
        self.encoder = VisionEncoder(layers, dim, hidden, heads, act, eps)
        self.final_layer_norm = LayerNorm(dim, eps)

    def forward(
        self, tokens: torch.Tensor, layer: int | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """tokens [B, T] -> the state after layer `layer`, and the last one with the final norm, [B, T, D] both."""
        blocks = self.encoder.layers
        count = len(blocks)
        if layer is not None and not -count - 1 <= layer <= count:
            raise ConfigError(f"State {layer} was asked for; the text encoder has those from {-count - 1} to {count}.")
        wanted = None if layer is None else layer % (count + 1)
        seen = _seen(tokens, mask)
        x = kept = self.embeddings(tokens)
        for number, block in enumerate(blocks, 1):
            x = block(x, seen)
            if number == wanted:
                kept = x
        last = self.final_layer_norm(x)
        return (last if wanted is None else kept), last


class ClipText(nn.Module):
    """The text encoder, with a projection to the space that texts share with pictures where the model has one."""

    def __init__(
        self,
        *,
        vocabulary: int,
        layers: int,
        dim: int,
        hidden: int,
        heads: int,
        positions: int = 77,
        end: int = 49407,
        projection: int | None = None,
        act: str = "quick_gelu",
        eps: float = 1e-5,
    ) -> None:
        """`end` is the id of the end token; 2 stands for the largest id of a text, as in old configurations."""
        super().__init__()
        self.text_model = ClipTextTransformer(vocabulary, positions, layers, dim, hidden, heads, act, eps)
        self.text_projection = None if projection is None else Linear(dim, projection)
        self.vocabulary, self.end = vocabulary, end
        self.positions = positions
        """How many tokens a text has at most, those at its beginning and end included."""

    def forward(
        self, tokens: torch.Tensor, layer: int | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """tokens [B, T] int64 -> states [B, T, D] and the row of the end token [B, D].

        The states have the final norm; with `layer` they are those after that layer and have none, counted as
        transformers counts `hidden_states`: 0 is what enters the first layer, -1 what leaves the last, -2 what leaves
        the one before.  The row is always of the last state with the final norm, before the projection (`project`).
        `mask` [B, T] is False for tokens to which no other may look; None: there are none.

        Raises RequestError for texts that are too long or without an end, ConfigError for a layer that is not there.
        """
        self._check(tokens, mask)
        states, last = self.text_model(tokens, layer, mask)
        return states, last[torch.arange(len(last), device=last.device), self._ends(tokens, mask)]

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled [B, D] -> [B, P], the `text_embeds` of transformers; itself where the model has no projection."""
        return pooled if self.text_projection is None else self.text_projection(pooled)

    def embed(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """One vector for each text: tokens [B, T] int64 and `mask` as `forward` has it -> [B, P], of any length."""
        return self.project(self(tokens, mask=mask)[1])

    def _ends(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Where each text ends [B]: at the first end token, for texts are padded with more of them."""
        shown_tokens = tokens if mask is None else tokens.masked_fill(~mask, -1)
        if self.end == _LARGEST_ID:
            return shown_tokens.argmax(-1)
        found = shown_tokens == self.end
        if not bool(found.any(-1).all()):
            raise RequestError(
                f"A text came without the end token {self.end}, whose row stands for the whole.",
                fix='end it with the token, or correct "eos_token_id" in config.json',
            )
        return found.int().argmax(-1)

    def _check(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> None:
        if tokens.ndim != 2 or not tokens.numel() or tokens.dtype not in (torch.int64, torch.int32):
            came = f"{str(tokens.dtype).removeprefix('torch.')} {list(tokens.shape)}"
            raise RequestError(f"Tokens came as {came}; int64 [B, T] is due.")
        if tokens.shape[1] > self.positions:
            raise RequestError(
                f"A text of {tokens.shape[1]} tokens came; the text encoder takes {self.positions}.",
                fix="shorten it",
            )
        # A row that the table does not have would end the work of a whole GPU.
        least, most = (int(value) for value in tokens.aminmax())
        if least < 0 or most >= self.vocabulary:
            raise RequestError(
                f"The token {least if least < 0 else most} came; the text encoder has those below {self.vocabulary}.",
                fix="use the tokenizer that belongs to it",
            )
        if mask is not None and (mask.shape != tokens.shape or mask.dtype != torch.bool or not mask.any(-1).all()):
            raise RequestError(
                f"A mask of {list(mask.shape)} came for tokens of {list(tokens.shape)}; as many truth values are due, "
                "of which each text has one that is true."
            )


def _seen(tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Which tokens each one looks at [1 or B, 1, T, T]: those before it that the mask shows, and itself."""
    count = tokens.shape[1]
    causal = torch.ones(count, count, dtype=torch.bool, device=tokens.device).tril()[None, None]
    if mask is None:
        return causal
    # A row that looks at nothing would not be a number, nor would those be that multiply it by zero.
    itself = torch.eye(count, dtype=torch.bool, device=tokens.device)
    return causal & (mask[:, None, None] | itself)
