"""The classifier of an X-LoRA model: from a token's hidden state to the scaling of each adapter in each layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.adapters.xlora_files import XLora


class XLoraClassifier(nn.Module):
    """Scalings [T, L, N] of N adapters in L layers (1 where all layers share them), in float32.

    Formulas are those of PEFT (peft/tuners/xlora): a softmax over the adapters, then the best `top_k` of a token keep
    theirs, then a softmax over what is not zero; each where the configuration has it.  Dropout is of training only.
    """

    def __init__(self, xlora: XLora) -> None:
        super().__init__()
        self.config, self.adapters, self.layers = xlora.config, len(xlora.adapters), xlora.layer_count
        self.weights = nn.ParameterList(nn.Parameter(part.weight, requires_grad=False) for part in xlora.classifier)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(len(part.weight)) if part.bias is None else part.bias, requires_grad=False)
            for part in xlora.classifier
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [T, D] -> [T, L, N]"""
        x = hidden.float()
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = F.linear(x.relu() if index and self.config.relu else x, weight, bias)
        scalings = x.view(len(x), self.layers, self.adapters)
        if self.config.softmax:
            scalings = (scalings / self.config.temperature).softmax(-1)
        return self._chosen(scalings)

    def first_pass(self, hidden_rows: int) -> torch.Tensor | None:
        """The scalings of the pass that makes the hidden states, for so many rows; None: no adapter works in it."""
        value = self.config.pass_value
        if value == 0:
            return None
        return self._chosen(self.weights[0].new_full((1, self.layers, self.adapters), value)).expand(
            hidden_rows, -1, -1
        )

    def _chosen(self, scalings: torch.Tensor) -> torch.Tensor:
        if self.config.top_k is not None:
            kept = scalings.topk(self.config.top_k).indices
            scalings = torch.zeros_like(scalings).scatter(-1, kept, scalings.gather(-1, kept))
        if self.config.softmax_top_k:
            zero = scalings == 0
            # Where all are zero the softmax is not a number, and masked too.
            scalings = scalings.masked_fill(zero, float("-inf")).softmax(-1).masked_fill(zero, 0.0)
        return scalings
