"""The arithmetic of convolutions over rows, in float32 on a CPU: products of matrices, without a copy of the input.

Weights lie by taps [K, I, O], so that each tap is a matrix.
"""

from __future__ import annotations

import torch

_TILE = 4
_INPUTS = 6
# Winograd's F(4, 3) (Lavin and Gray 2015, arXiv 1509.09308): what its six products multiply, of three taps.
_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
SEVEN = 7
"""The taps that `seven_taps` takes."""


def by_taps(weight: torch.Tensor) -> torch.Tensor:
    """A weight [O, I, K] as [K, I, O] in float32, of which each tap is turned."""
    # A transposition of one matrix is what torch copies fast.
    return _apart(weight).view(-1, *weight.shape[:2]).transpose(1, 2)


def for_seven(weight: torch.Tensor) -> torch.Tensor:
    """A weight [O, I, 7] as `seven_taps` takes it [13, I, O]."""
    made = torch.zeros(2 * _INPUTS + 1, SEVEN)
    made[:_INPUTS, :3] = made[_INPUTS:-1, 4:] = torch.tensor(_KERNEL)
    made[-1, 3] = 1.0
    return (made @ _apart(weight)).view(-1, *weight.shape[:2]).transpose(1, 2)


def _apart(weight: torch.Tensor) -> torch.Tensor:
    """A weight [A, B, K] as [K, A B] in float32."""
    return weight.float().flatten(0, 1).t().contiguous()


def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, dilation: int) -> torch.Tensor:
    """Rows x [T, I] by a weight [K, I, O], without padding: [(T - (K - 1) dilation - 1) // stride + 1, O]."""
    last = len(x) - (len(weight) - 1) * dilation
    y = torch.addmm(bias, x[:last:stride], weight[0])
    for tap in range(1, len(weight)):
        y.addmm_(x[tap * dilation : tap * dilation + last : stride], weight[tap])
    return y


def seven_taps(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dilation: int) -> torch.Tensor:
    """Rows x [T + 6 dilation, I] by seven taps that lie `dilation` apart: [T, O], with 16 products in place of 28.

    Four results that lie `dilation` apart are a tile.  Three taps make a tile of six sums of rows (Winograd's F(4, 3)),
    the first three of its own and the last three, four rows on, of those of the next tile; the tap between is plain.
    """
    wide = dilation * x.shape[1]
    count = len(x) - 6 * dilation
    tiles = -(-count // (_TILE * dilation))
    lacking = tiles * _TILE * dilation - count
    if lacking:
        x = torch.cat((x, x.new_zeros(lacking, x.shape[1])))
    # `dilation` rows side by side are one, whose neighbours are those that the taps see.
    rows = x.view(-1, wide)
    x0, x1, x2, x3, x4, x5 = (rows[place : place + _TILE * tiles + 1 : _TILE] for place in range(_INPUTS))
    y = torch.addmm(bias, x[3 * dilation : 3 * dilation + tiles * _TILE * dilation], weight[-1])
    y0, y1, y2, y3 = y.view(tiles, _TILE, -1).unbind(1)

    def product(number: int, sums: torch.Tensor) -> torch.Tensor:
        flat = sums.view(-1, x.shape[1])
        made = torch.mm(flat[:-dilation], weight[number])
        return made.addmm_(flat[dilation:], weight[number + _INPUTS]).view(tiles, -1)

    even, odd = x4 - x2, x3 - x1
    y0 += product(0, even.add(x0 - x2, alpha=4))
    y3 += product(5, (x5 - x3).sub_(odd, alpha=4))
    first, second = product(3, even.add(odd, alpha=2)), product(4, even.sub(odd, alpha=2))
    both, apart = first + second, first.sub_(second)
    y0 += both
    y1.add_(apart, alpha=2)
    y2.add_(both, alpha=4)
    y3.add_(apart, alpha=8)
    even, odd = torch.sub(x4, x2, alpha=4, out=even), torch.sub(x3, x1, alpha=4, out=odd)
    first, second = product(1, even + odd), product(2, even.sub_(odd))
    both, apart = torch.add(first, second, out=both), first.sub_(second)
    y0 += both
    y1 += apart
    y2 += both
    y3 += apart
    return y[:count]
