"""Strings of bits are those of whole numbers written out, and come back."""

from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary_quant.checkpoints import bits
from bestiary_quant.checkpoints.bits import pack, row_bytes, turn, unpack


@pytest.mark.parametrize("width", range(1, 9))
@settings(max_examples=30, deadline=None)
@given(columns=st.integers(1, 70), rows=st.integers(1, 4), seed=st.integers(0, 1 << 30))
def test_words_of_whole_numbers(width: int, columns: int, rows: int, seed: int, packing: ModuleType) -> None:
    codes = torch.randint(0, 1 << width, (rows, columns), generator=torch.Generator().manual_seed(seed))
    words = packing.words(codes.tolist(), width).view(torch.uint8)
    made = pack(codes.to(torch.uint8), width)
    assert made.shape == (rows, row_bytes(columns, width)) and torch.equal(made, words[:, : made.shape[1]])
    assert torch.equal(unpack(words, width, columns), codes.to(torch.uint8))
    assert torch.equal(unpack(made, width, columns), codes.to(torch.uint8))


@pytest.mark.parametrize("width", range(1, 9))
def test_codes_that_lie_across_are_turned_a_few_columns_at_a_time(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "PANEL", 100)
    codes = torch.randint(0, 1 << width, (5, 61), dtype=torch.uint8)
    asked = []

    def panel(part: slice) -> torch.Tensor:
        asked.append(part)
        return codes.T[part]

    assert torch.equal(turn(panel, 5, 61, width, 8, torch.device("cpu")), pack(codes, width))
    assert [part.start for part in asked] == list(range(0, 61, 16))
