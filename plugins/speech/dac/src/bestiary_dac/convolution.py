"""Convolutions over time.  Steps are rows [B, T, C], so that a piece of a sound is one of memory."""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import nn

from bestiary_dac import taps
from bestiary_dac.flow import Flow, Prepared, results

_WIDE = 1 << 23
"""Numbers of a weight that are so many more than those of the steps that it takes that these are arranged for it."""


def by_rows(x: torch.Tensor) -> bool:
    """Whether a convolution of x [B, T, C] is computed as products of matrices: on a CPU, where sounds come alone."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and len(x) == 1


class Convolution(nn.Module):
    """A convolution of x [B, T, I] with kernels [O, I, K], and its bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: int = 0,
        fast: bool = False,
    ) -> None:
        """`fast` allows fewer products that round a little more, of seven taps."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, inputs, kernel)), nn.Parameter(torch.empty(outputs))
        self.stride, self.dilation, self.padding, self.fast = stride, dilation, padding, fast
        self.span = (kernel - 1) * dilation + 1
        """How many steps one result looks at."""

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        """What the next steps of a sound make, with silence around it."""
        return self.inner(flow.window(self, x, self.padding, self.span, self.stride), flow)

    def inner(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        """What those steps make that have all their neighbours in x."""
        if not results(x, self.span, self.stride):
            return x.new_empty((len(x), 0, len(self.bias)))
        rows = by_rows(x)
        weight, bias = flow.prepared(self, lambda: self._prepare(x.dtype, rows))
        if not rows:
            return F.conv1d(x.transpose(1, 2), weight, bias, self.stride, 0, self.dilation).transpose(1, 2)
        if self.fast:
            return taps.seven_taps(x[0], weight, bias, self.dilation)[None]
        if self._wide():
            seen = x[0].unfold(0, self.span, self.stride).flatten(1)  # [T, I K]
            return F.linear(seen, weight, bias)[None]
        return taps.convolved(x[0], weight, bias, self.stride, self.dilation)[None]

    def _prepare(self, dtype: torch.dtype, rows: bool) -> Prepared:
        if not rows:
            return self.weight.to(dtype), self.bias.to(dtype)
        if self._wide():
            return self.weight.float().flatten(1), self.bias.float()
        return taps.for_seven(self.weight) if self.fast else taps.by_taps(self.weight), self.bias.float()

    def _wide(self) -> bool:
        return self.weight.numel() >= _WIDE and self.dilation == 1 and not self.fast


class Upsampling(nn.Module):
    """A transposed convolution of x [B, T, I], whose kernels [I, O, 2 S] overlap by half: S T steps, [B, S T, O].

    Each S of them see one step and the one before it.  An odd S loses one of all the steps.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs, 2 * stride))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.stride, self.padding = stride, ceil(stride / 2)

    def forward(self, x: torch.Tensor, flow: Flow) -> torch.Tensor:
        """What the next steps of a sound make."""
        x = flow.window(self, x, 1, 2)
        count, outputs = results(x, 2), len(self.bias)
        if not count:
            return x.new_empty((len(x), 0, outputs))
        rows = by_rows(x)
        weight, bias = flow.prepared(self, lambda: self._prepare(x.dtype, rows))
        if not rows:
            y = F.conv_transpose1d(x.transpose(1, 2), weight, bias, self.stride).transpose(1, 2)
            return flow.trimmed(self, y[:, self.stride : -self.stride], self.padding)
        if self.weight.numel() >= _WIDE:
            each = (x[0] @ weight).view(-1, outputs, 2 * self.stride)
            both = (each[1:, :, : self.stride] + each[:-1, :, self.stride :]).transpose(1, 2)  # [T, S, O]
            return flow.trimmed(self, (both + bias).reshape(1, -1, outputs), self.padding)
        made = x.new_empty((count, self.stride, outputs))
        for phase in range(self.stride):
            torch.addmm(bias, x[0, 1:], weight[phase], out=made[:, phase])
            made[:, phase].addmm_(x[0, :-1], weight[phase + self.stride])
        return flow.trimmed(self, made.view(1, -1, outputs), self.padding)

    def _prepare(self, dtype: torch.dtype, rows: bool) -> Prepared:
        if not rows:
            return self.weight.to(dtype), self.bias.to(dtype)
        if self.weight.numel() >= _WIDE:
            return self.weight.float().flatten(1), self.bias.float()
        inputs, outputs, kernel = self.weight.shape
        turned = self.weight.float().view(-1, kernel).t().contiguous()
        return turned.view(kernel, inputs, outputs), self.bias.float()
