"""Placement: which device and type are taken, and the errors of those that are not there."""

import os
from typing import Any

import pytest
import torch

from bestiary import placement
from bestiary.errors import OptionError, OutOfMemory
from bestiary.placement import check_fits, choose_device, choose_dtype, free_memory


class Stored:
    """The types and sizes of a checkpoint's tensors."""

    def __init__(self, *tensors: tuple[str, int]) -> None:
        self.tensors = {str(place): tensor for place, tensor in enumerate(tensors)}

    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def dtype(self, name: str) -> str:
        return self.tensors[name][0]

    def nbytes(self, name: str) -> int:
        return self.tensors[name][1]


NOTHING: Any = Stored()


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_that_is_there_is_taken(device: Any) -> None:
    assert choose_device(device) == torch.device("cpu")


def test_auto_is_a_gpu_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.parametrize(
    "device", ["tpu", "", "cpu:-1", "CPU", "cuda:99", "xla", "hpu", "mtia", "meta", "gpu", None, 3.5, []]
)
def test_a_device_that_is_not_there_is_an_option_error(device: Any) -> None:
    with pytest.raises(OptionError, match="device") as found:
        choose_device(device)
    assert "cpu" in str(found.value.fix) and "\n" not in found.value.what


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("half", torch.float16),
        ("f32", torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_a_type_by_its_names(asked: Any, expected: torch.dtype) -> None:
    assert choose_dtype(asked, "float64", NOTHING) == expected


@pytest.mark.parametrize("asked", ["float64", "int8", "bf17", "", "BF16", torch.int8, torch.float64, 16, None, []])
def test_an_unknown_type_is_an_option_error_with_the_known_ones(asked: Any) -> None:
    with pytest.raises(OptionError, match="dtype") as found:
        choose_dtype(asked, None, NOTHING)
    assert "bfloat16" in str(found.value.fix)


@pytest.mark.parametrize(
    "stated, stored, expected",
    [
        ("bfloat16", [("F32", 10)], torch.bfloat16),
        ("torch.float16", [("F32", 10)], torch.float16),
        (torch.bfloat16, [("F32", 10)], torch.bfloat16),
        (None, [("F16", 10), ("F32", 5)], torch.float16),
        (None, [("F32", 10), ("BF16", 6), ("BF16", 6)], torch.bfloat16),
        (None, [("U8", 10)], torch.float32),
        (None, [], torch.float32),
        ("float64", [("BF16", 10)], torch.bfloat16),
        ({"a": 1}, [("F16", 10)], torch.float16),
    ],
)
def test_auto_is_what_the_configuration_states_else_what_most_bytes_are(
    stated: object, stored: list[tuple[str, int]], expected: torch.dtype
) -> None:
    made: Any = Stored(*stored)
    assert choose_dtype("auto", stated, made) == expected


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: 8_000_000_000)
    check_fits(8_000_000_000, torch.device("cpu"))
    with pytest.raises(OutOfMemory, match=r"need 140\.5 GB; 8\.0 GB are free on cpu") as found:
        check_fits(140_500_000_000, torch.device("cpu"))
    assert "bfloat16" in str(found.value.fix)


def test_a_system_that_does_not_say_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: None)
    check_fits(1 << 60, torch.device("cpu"))


def test_free_memory_of_this_machine_is_between_a_little_and_all_of_it() -> None:
    free, whole = free_memory(torch.device("cpu")), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free is not None and 1 << 20 < free <= whole
    assert free_memory(torch.device("meta")) is None
