"""The codebooks: each codes what those before it left of a frame (Zeghidour et al. 2021, arXiv 2107.03312)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.errors import RequestError


class Table(nn.Module):
    """The vectors of a codebook [N, D]."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, dim))


class Projection(nn.Module):
    """A matrix and a bias, as a convolution of one tap [O, I, 1]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, inputs, 1)), nn.Parameter(torch.empty(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight[:, :, 0].to(x.dtype), self.bias.to(x.dtype))


class Codebook(nn.Module):
    """Vectors of few numbers, in which the nearest is sought by direction alone (Yu et al. 2021, arXiv 2110.04627)."""

    def __init__(self, size: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.in_proj, self.out_proj, self.codebook = Projection(hidden, dim), Projection(dim, hidden), Table(size, dim)

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """Frames x [B, T, H] -> codes [B, T]."""
        sought = F.normalize(self.in_proj(x).flatten(0, 1))
        table = F.normalize(self.codebook.weight.to(x.dtype))
        # In the order of transformers, whose rounding decides between codes that are equally near.
        squares = sought.square().sum(1, keepdim=True)
        nearness = -(squares - 2 * sought @ table.t()) + table.square().sum(1)
        return nearness.argmax(1).view(x.shape[:2])

    def vectors(self, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """codes [B, T] -> [B, T, D]."""
        return F.embedding(codes, self.codebook.weight).to(dtype)


class Quantizer(nn.Module):
    """Residual vector quantization."""

    def __init__(self, count: int, size: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(Codebook(size, dim, hidden) for _ in range(count))
        self._size = size

    def encode(self, frames: torch.Tensor, count: int) -> torch.Tensor:
        """frames [B, T, H] -> codes [B, count, T]."""
        codes, left = [], frames
        for book in self._first(count):
            codes.append(book.nearest(left))
            left = left - book.out_proj(book.vectors(codes[-1], left.dtype))
        return torch.stack(codes, 1)

    def decode(self, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """codes [B, Q, T] of the first Q codebooks -> frames [B, T, H]."""
        books = self._first(codes.shape[1])
        # The sum of the projections is one projection of the vectors side by side.
        vectors = torch.cat([book.vectors(code, dtype) for book, code in zip(books, codes.unbind(1), strict=True)], 2)
        weight = torch.cat([book.out_proj.weight[:, :, 0] for book in books], 1).to(dtype)
        bias = torch.stack([book.out_proj.bias for book in books]).to(dtype).sum(0)
        return F.linear(vectors, weight, bias)

    def _first(self, count: int) -> list[Codebook]:
        return [self.quantizers[index] for index in range(count)]  # type: ignore[misc]

    def check(self, codes: torch.Tensor) -> None:
        """Raises RequestError for what are no codes of these codebooks."""
        count = len(self.quantizers)
        kinds = (torch.int64, torch.int32)
        if codes.ndim != 3 or not codes.numel() or codes.dtype not in kinds or codes.shape[1] > count:
            came = f"{str(codes.dtype).removeprefix('torch.')} {list(codes.shape)}"
            raise RequestError(f"Codes came as {came}; int64 [B, Q, T] of up to {count} codebooks is due.")
        # A row that the table does not have would end the work of a whole GPU.
        least, most = (int(value) for value in codes.aminmax())
        if least < 0 or most >= self._size:
            raise RequestError(
                f"The code {least if least < 0 else most} came; a codebook has those below {self._size}.",
                fix="leave out the codes that begin, end and pad a sound",
            )
