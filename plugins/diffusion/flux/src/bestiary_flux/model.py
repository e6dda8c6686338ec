"""The transformer of FLUX.1 (Black Forest Labs 2024), with the names of diffusers' FluxTransformer2DModel.

Text and picture are tokens of one sequence, the text first.  In double blocks (MMDiT, Esser et al. 2024) they meet in
attention only and have weights of their own; in single blocks (Dehghani et al. 2023) they share all weights, and
attention and feed-forward run side by side.  For inference: blocks change the sequence that they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.config import Config
from bestiary.nn import Linear, RMSNorm, Rotation
from bestiary.nn.linear import together
from bestiary.nn.operations import PLAIN
from bestiary_flux.conditions import Conditions, TimeTextEmbedding, rotation_of
from bestiary_flux.settings import Settings

_EPS = 1e-6
_HALF = 65504.0
_ROWS = 256
"""That pass a feed-forward block at once on a CPU: what is between its products stays in the cache."""


def build(config: Config) -> FluxTransformer:
    """The transformer of a config.json.  Raises ConfigError for one that cannot be."""
    return FluxTransformer(Settings.of(config))


class Modulation(NamedTuple):
    """What one part of a block is told by the vector [D]: shift and scale of its norm, and the gate of its result."""

    shift: torch.Tensor
    scale: torch.Tensor
    gate: torch.Tensor


def modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The layer norm of x [N, D], times 1 + scale, plus shift: in one pass."""
    return F.layer_norm(x, x.shape[-1:], 1 + scale, shift, _EPS)


def parts(x: torch.Tensor) -> Sequence[torch.Tensor]:
    """x [N, D] in the pieces in which a feed-forward block takes it."""
    return torch.split(x, _ROWS) if x.device.type == "cpu" else (x,)


def bounded(x: torch.Tensor) -> torch.Tensor:
    """x, whose largest numbers float16 cannot hold, within its bounds."""
    return x.clamp_(-_HALF, _HALF) if x.dtype == torch.float16 else x


class AdaptiveNorm(nn.Module):
    """Modulations of norms without weights of their own (AdaLN-Zero, Peebles and Xie 2023)."""

    def __init__(self, dim: int, vectors: int) -> None:
        super().__init__()
        self.vectors, self.linear = vectors, Linear(dim, vectors * dim, True)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """vector [B, D], after its activation -> [B, vectors, D]."""
        return self.linear(vector).view(len(vector), self.vectors, -1)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention of all tokens to each other; `joint` gives the text weights of its own."""

    ops = PLAIN

    def __init__(self, dim: int, heads: int, joint: bool) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.to_q, self.to_k, self.to_v = (Linear(dim, dim, True) for _ in range(3))
        self.norm_q, self.norm_k = RMSNorm(self.head_dim, _EPS), RMSNorm(self.head_dim, _EPS)
        if joint:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (Linear(dim, dim, True) for _ in range(3))
            self.norm_added_q, self.norm_added_k = RMSNorm(self.head_dim, _EPS), RMSNorm(self.head_dim, _EPS)
            self.to_out, self.to_add_out = nn.ModuleList([Linear(dim, dim, True)]), Linear(dim, dim, True)

    def forward(self, x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """x [N, D] of both kinds -> [N, D], which no product has left yet."""
        q, k, v = self._heads(together(x, self.to_q, self.to_k, self.to_v))
        return self._attend(self.norm_q(q), self.norm_k(k), v, rotation)

    def jointly(self, text: torch.Tensor, image: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
        """text [T, D] and image [S, D] -> the same."""
        tq, tk, tv = self._heads(together(text, self.add_q_proj, self.add_k_proj, self.add_v_proj))
        iq, ik, iv = self._heads(together(image, self.to_q, self.to_k, self.to_v))
        q = torch.cat((self.norm_added_q(tq), self.norm_q(iq)))
        k = torch.cat((self.norm_added_k(tk), self.norm_k(ik)))
        y = self._attend(q, k, torch.cat((tv, iv)), rotation)
        return self.to_add_out(y[: len(text)]), self.to_out[0](y[len(text) :])

    def _heads(self, made: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [y.view(len(y), -1, self.head_dim) for y in made]

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """q, k and v [N, H, D / H] -> [N, D]."""
        q, k = self.ops.rotate(q, k, rotation)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, H, N, D / H]
        if q.device.type == "cpu":
            # Each block of queries reads all keys of a head: a copy of them side by side is read faster.
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)


class FeedForward(nn.Module):
    """Two products with a GELU between them, for x [N, D]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        up, down = Linear(dim, hidden, True), Linear(hidden, dim, True)
        self.net = nn.ModuleDict({"0": nn.ModuleDict({"proj": up}), "2": down})  # as diffusers numbers them

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        opened = self.net["0"]["proj"](x)  # type: ignore[index]
        return self.net["2"](F.gelu(opened, approximate="tanh"))  # type: ignore[no-any-return]


def feed(x: torch.Tensor, m: Modulation, block: FeedForward) -> None:
    """Add to x [N, D] what the block makes of it."""
    for part in parts(x):
        part.addcmul_(block(modulated(part, m.shift, m.scale)), m.gate)


class DoubleBlock(nn.Module):
    """Attention of text and picture to each other and a feed-forward block of each, all with their own weights."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm1_context = AdaptiveNorm(dim, 6), AdaptiveNorm(dim, 6)
        self.attn = Attention(dim, heads, joint=True)
        self.ff, self.ff_context = FeedForward(dim, 4 * dim), FeedForward(dim, 4 * dim)

    def forward(self, x: torch.Tensor, text: int, vector: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """x [B, T + S, D], of which the first `text` rows are the text's, is changed and returned.

        `vector` [B, D] is the one that modulates, after its activation.
        """
        for rows, *told in zip(x, self.norm1_context(vector), self.norm1(vector), strict=True):
            words, pixels = rows[:text], rows[text:]
            (w1, w2), (p1, p2) = ((Modulation(*each[:3]), Modulation(*each[3:])) for each in told)
            first = modulated(words, w1.shift, w1.scale), modulated(pixels, p1.shift, p1.scale)
            seen_words, seen_pixels = self.attn.jointly(*first, rotation)
            feed(words.addcmul_(seen_words, w1.gate), w2, self.ff_context)
            feed(pixels.addcmul_(seen_pixels, p1.gate), p2, self.ff)
        return bounded(x)


class SingleBlock(nn.Module):
    """Attention and a feed-forward block side by side, with one norm before them and one product behind."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attn = AdaptiveNorm(dim, 3), Attention(dim, heads, joint=False)
        self.proj_mlp, self.proj_out = Linear(dim, 4 * dim, True), Linear(5 * dim, dim, True)

    def forward(self, x: torch.Tensor, text: int, vector: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """As that of DoubleBlock; where the text ends makes no difference."""
        for rows, told in zip(x, self.norm(vector), strict=True):
            m = Modulation(*told)
            h = modulated(rows, m.shift, m.scale)
            for part, normed, seen in zip(parts(rows), parts(h), parts(self.attn(h, rotation)), strict=True):
                opened = F.gelu(self.proj_mlp(normed), approximate="tanh")
                part.addcmul_(self.proj_out(torch.cat((seen, opened), -1)), m.gate)
        return bounded(x)


class FluxTransformer(nn.Module):
    """The velocity of noisy latents, by rectified flow (Liu et al. 2022)."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        dim, heads = s.dim, s.num_attention_heads
        self.axes = s.axes_dims_rope
        self.time_text_embed = TimeTextEmbedding(s.pooled_projection_dim, dim, s.guidance_embeds)
        self.context_embedder = Linear(s.joint_attention_dim, dim, True)
        self.x_embedder = Linear(s.in_channels, dim, True)
        self.transformer_blocks = nn.ModuleList(DoubleBlock(dim, heads) for _ in range(s.num_layers))
        self.single_transformer_blocks = nn.ModuleList(SingleBlock(dim, heads) for _ in range(s.num_single_layers))
        self.norm_out = AdaptiveNorm(dim, 2)
        self.proj_out = Linear(dim, s.patch_size**2 * s.out_channels, True)

    def forward(
        self,
        latents: torch.Tensor,
        states: torch.Tensor,
        pooled: torch.Tensor,
        timestep: torch.Tensor,
        guidance: torch.Tensor | None,
        positions: torch.Tensor,
    ) -> torch.Tensor:
        """latents [B, S, in_channels] at `timestep` [B], from 1, noise, to 0 -> the velocity [B, S, out_channels].

        The text is `states` [B, T, joint_attention_dim] and `pooled` [B, pooled_projection_dim]; `guidance` [B], such
        as 3.5, is for models that learned one, and None for others.  `positions` [S, 3] of the latents are, for each,
        the picture (0 that which is made), the row and the column.  Raises OptionError for a guidance too many or too
        few.
        """
        return self.step(latents, timestep, self.prepare(states, pooled, guidance, positions))

    def prepare(
        self, states: torch.Tensor, pooled: torch.Tensor, guidance: torch.Tensor | None, positions: torch.Tensor
    ) -> Conditions:
        """What all steps of a picture share; arguments and errors are those of `forward`."""
        dtype = self.dtype
        text: torch.Tensor = self.context_embedder(states.to(dtype))
        vector = self.time_text_embed.constant(pooled.to(dtype), guidance)
        # The tokens of the text all stand at the origin.
        places = torch.cat((positions.new_zeros(text.shape[1], len(self.axes)), positions))
        return Conditions(text, vector, rotation_of(places, self.axes, dtype))

    def step(self, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The velocity, as of `forward`; `conditions` come from `prepare`."""
        text = conditions.text.shape[1]
        x = torch.cat((conditions.text, self.x_embedder(latents.to(self.dtype))), 1)
        vector = F.silu(self.time_text_embed(timestep, conditions.vector))
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            x = block(x, text, vector, conditions.rotation)
        # Here the scale comes first.
        told = zip(x[:, text:], self.norm_out(vector), strict=True)
        return self.proj_out(torch.stack([modulated(rows, shift, scale) for rows, (scale, shift) in told]))  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: that of its biases, for weights may be packed."""
        assert self.x_embedder.bias is not None
        return self.x_embedder.bias.dtype
