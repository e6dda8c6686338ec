"""Packed weights multiply, move their rows and look rows up as the plain numbers do."""

from collections.abc import Callable

import gguf
import numpy
import pytest
import torch
import torch.nn.functional as F

from bestiary.nn import PackedWeight
from bestiary.nn.packed import moved
from bestiary_quant import packed
from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.blocks.types import TYPES, BlockType
from bestiary_quant.packed import PackedMatrix, PackedStack

KINDS = ("Q4_0", "Q8_0", "Q5_1", "MXFP4", "TQ2_0")


def matrix(name: str = "Q8_0", rows: int = 48, columns: int = 256, seed: int = 0) -> tuple[PackedMatrix, torch.Tensor]:
    """A packed matrix, with what gguf says are its numbers."""
    values = numpy.random.default_rng(seed).standard_normal((rows, columns)).astype(numpy.float32)
    code = gguf.GGMLQuantizationType[name]
    data = gguf.quants.quantize(values, code)
    return PackedMatrix(torch.from_numpy(data), TYPES[code]), torch.from_numpy(gguf.quants.dequantize(data, code))


@pytest.mark.parametrize("name", KINDS)
def test_a_product_is_that_of_the_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PANEL", 5 * 256)  # five rows: the last panel has three
    weight, plain = matrix(name)
    held: PackedWeight = weight
    assert held.shape == (48, 256) and held.nbytes == weight.data.numel()
    for tokens in (0, 1, 7):
        x = torch.randn(tokens, 256, generator=torch.Generator().manual_seed(tokens))
        exact = x.double() @ plain.double().T
        assert held.multiply(x).dtype == torch.float32
        torch.testing.assert_close(held.multiply(x).double(), exact, rtol=0, atol=2e-5 * 16)
        half = held.multiply(x.bfloat16())
        assert half.dtype == torch.bfloat16
        assert torch.equal(
            half, torch.cat([F.linear(x.bfloat16(), part.bfloat16()) for part in torch.split(plain, 5)], 1)
        )


def test_a_product_leaves_nothing_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is full of NaN here, so a place that is not written would show."""
    weight, _ = matrix(rows=9)
    monkeypatch.setattr(packed, "PANEL", 4 * 256)
    empty, new_empty = torch.empty, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **kind: empty(*shape, **kind).fill_(float("nan")))
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, *shape, **kind: new_empty(self, *shape, **kind).fill_(float("nan"))
    )
    assert bool(weight.multiply(torch.ones(3, 256)).isfinite().all())
    assert bool(weight.dequantize().isfinite().all())


@pytest.mark.parametrize("name", KINDS)
def test_the_numbers_are_exact_in_every_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PANEL", 1000)
    weight, plain = matrix(name)
    assert torch.equal(weight.dequantize(), plain)
    assert torch.equal(weight.dequantize(torch.bfloat16), plain.bfloat16())
    target = torch.zeros(60, 256)
    weight.copy_into(target[6:54])
    assert torch.equal(target[6:54], plain) and not target[:6].any() and not target[54:].any()
    assert torch.equal(weight.to("cpu").dequantize(), plain)
    own = weight.clone()
    assert own.data.data_ptr() != weight.data.data_ptr() and torch.equal(own.dequantize(), plain)


def test_a_panel_bounds_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def noted(data: torch.Tensor, kind: BlockType) -> torch.Tensor:
        sizes.append(len(data) * 256)
        return dequantize(data, kind)

    monkeypatch.setattr(packed, "PANEL", 2048)
    monkeypatch.setattr(packed, "dequantize", noted)
    weight, _ = matrix()
    weight.multiply(torch.ones(1, 256))
    assert sum(sizes) == 48 * 256 and max(sizes) == 2048
    monkeypatch.setattr(packed, "PANEL", 1)
    assert weight.multiply(torch.ones(2, 256)).shape == (2, 48)


def test_rows_are_looked_up_as_an_embedding_does() -> None:
    weight, plain = matrix()
    tokens = torch.tensor([5, 0, 47, 5])
    assert torch.equal(weight.rows(tokens).dequantize(), F.embedding(tokens, plain))
    assert torch.equal(weight.rows(tokens).dequantize(torch.bfloat16), F.embedding(tokens, plain.bfloat16()))
    part = weight.rows(slice(3, 9))
    assert torch.equal(part.dequantize(), plain[3:9])
    assert part.data.data_ptr() == weight.data[3:].data_ptr()
    with pytest.raises(IndexError):
        weight.rows(torch.tensor([48]))


def interleave(tensor: torch.Tensor) -> torch.Tensor:
    """The rotary rows of a Llama in GGUF, put back for 4 heads."""
    return tensor.reshape(4, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


MOVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rotary rows": interleave,
    "a part": lambda tensor: tensor[16:32],
    "a part of parts": lambda tensor: interleave(tensor)[8:24],
    "reversed": lambda tensor: tensor.flip(0),
    "repeated": lambda tensor: tensor[[0, 0, 3]],
    "as it is": lambda tensor: tensor,
}
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "halved": lambda tensor: tensor * 0.5,
    "doubled": lambda tensor: tensor * 2,
    "one more": lambda tensor: tensor + 1,
    "negated": lambda tensor: -tensor,
    "columns reversed": lambda tensor: tensor.flip(1),
    "columns rolled": lambda tensor: tensor.roll(1, 1),
    "a column twice": lambda tensor: tensor[:, [0, 0]],
    "transposed": lambda tensor: tensor.T,
    "one column": lambda tensor: tensor[:, :1],
    "flat": lambda tensor: tensor.flatten(),
    "nothing": lambda tensor: tensor[:0],
    "in floats": lambda tensor: tensor.float(),
    "columns of a known number": lambda tensor: tensor.view(48, 256),
    "zeros": torch.zeros_like,
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_rows_that_move_stay_packed(name: str, move: Callable[[torch.Tensor], torch.Tensor]) -> None:
    weight, plain = matrix(name)
    found = moved(weight, move)
    assert found is not None
    assert torch.equal(found.dequantize(), move(plain))


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_other_changes_are_noticed(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert moved(matrix()[0], change) is None


def test_a_part_in_order_is_a_view() -> None:
    weight, _ = matrix()
    part = moved(weight, lambda tensor: tensor[16:32])
    assert part is not None and part.data.data_ptr() == weight.data[16:].data_ptr()


def test_a_stack_of_experts() -> None:
    made = [matrix("Q4_0", seed=seed) for seed in range(3)]
    stack = PackedStack(torch.stack([weight.data for weight, _ in made]), made[0][0].kind)
    assert stack.shape == (3, 48, 256) and len(stack) == 3 and stack.nbytes == 3 * made[0][0].nbytes
    assert torch.equal(stack.dequantize(), torch.stack([plain for _, plain in made]))
    x = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    for expert in range(3):
        assert torch.equal(stack[expert].multiply(x), made[expert][0].multiply(x))
        assert stack[expert].data.data_ptr() == stack.data[expert].data_ptr()
    assert torch.equal(stack.to("cpu").clone().dequantize(torch.float16), stack.dequantize().half())
    with pytest.raises(IndexError):
        stack[3]


def test_rows_in_an_order_are_not_copied_before_they_are_needed() -> None:
    weight, plain = matrix()
    first, then = torch.randperm(48), torch.tensor([5, 5, 0, 40])
    chosen = weight.rows(first).rows(then)
    form = chosen.form()
    assert form.tensors["blocks"].data_ptr() == weight.data.data_ptr() and form.order is not None
    assert torch.equal(form.ordered().tensors["blocks"], weight.data[first][then])
    assert chosen.shape == (4, 256) and chosen.nbytes == 4 * weight.data.shape[1]
    assert torch.equal(chosen.dequantize(), plain[first][then])
    assert torch.equal(weight.rows(first).rows(slice(3, 9)).dequantize(), plain[first][3:9])
    assert torch.equal(chosen.to("cpu").data, chosen.clone().data) and chosen.form().ordered() == chosen.form()
