"""What GPTQ and AWQ make is what the readers of checkpoints make of the same codes in the words of a file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bestiary.checkpoints import safetensors_checkpoint
from bestiary.sources.folder import Folder
from bestiary_quant.calibration.awq import awq
from bestiary_quant.calibration.gptq import gptq
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.loading import load

PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""The outputs of a word of AWQ, from its lowest bits on (AutoAWQ, awq/modules/linear/gemm.py)."""


def words(rows: list[list[int]], bits: int) -> torch.Tensor:
    """Codes one behind the other, lowest bit first, in 32-bit words (AutoGPTQ, QuantLinear.pack)."""
    made = []
    for row in rows:
        whole = sum(code << (bits * place) for place, code in enumerate(row))
        count = len(row) * bits // 32
        made.append([(whole >> (32 * place) & 0xFFFFFFFF) for place in range(count)])
    return torch.tensor(made, dtype=torch.int64).to(torch.int32)


def read(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> CodedMatrix:
    save_file({f"x.{name}": tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    plain = safetensors_checkpoint.open(Folder(folder, "test"), ("model.safetensors",))
    try:
        found = load(plain, config).packed("x.weight")
        assert isinstance(found, CodedMatrix)
        return found
    finally:
        plain.close()


def assert_same(ours: CodedMatrix, theirs: CodedMatrix) -> None:
    assert ours.codes.bits == theirs.codes.bits and ours.codes.table == theirs.codes.table
    assert torch.equal(ours.codes.data, theirs.codes.data) and ours.scaling.run == theirs.scaling.run
    assert ours.scaling.tensors().keys() == theirs.scaling.tensors().keys()
    for name, tensor in ours.scaling.tensors().items():
        other = theirs.scaling.tensors()[name]
        assert tensor.dtype == other.dtype and torch.equal(tensor, other), name
    assert torch.equal(ours.dequantize(), theirs.dequantize())


def numbers(made: CodedMatrix) -> list[list[int]]:
    middle = 0 if made.codes.table is None else 1 << made.codes.bits - 1
    return (made.codes.numbers(slice(None)).int() + middle).tolist()


@pytest.mark.parametrize("act_order", [False, True], ids=["in order", "act_order"])
@pytest.mark.parametrize("symmetric", [False, True], ids=["zeros", "symmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(bits: int, symmetric: bool, act_order: bool, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(32, 128, generator=random), torch.randn(300, 128, generator=random)
    made = gptq(weight, inputs.T @ inputs, bits, 64, symmetric=symmetric, act_order=act_order)
    tensors = {"qweight": words(numbers(made), bits).T, "scales": made.scaling.scales.T}
    if made.scaling.zeros is not None:
        tensors["qzeros"] = words(made.scaling.zeros.T.tolist(), bits)
    if made.scaling.order is not None:
        tensors["g_idx"] = made.scaling.order.int()
    config = {"quant_method": "gptq", "bits": bits, "group_size": 64, "sym": symmetric, "desc_act": act_order}
    assert_same(made, read(tmp_path, tensors, {**config, "checkpoint_format": "gptq_v2"}))


def test_awq(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(32, 128, generator=random), torch.randn(300, 128, generator=random)
    made = awq(weight, inputs, 64)
    assert made.scaling.zeros is not None

    def along_outputs(codes: torch.Tensor) -> torch.Tensor:
        return words(codes.view(len(codes), -1, 8)[:, :, list(PLACES)].flatten(1).tolist(), 4)

    tensors = {
        "qweight": along_outputs(torch.tensor(numbers(made)).T),
        "qzeros": along_outputs(made.scaling.zeros.T.int()),
        "scales": made.scaling.scales.T,
    }
    config = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True}
    assert_same(made, read(tmp_path, tensors, config))
