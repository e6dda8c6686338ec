"""The table of types agrees with the gguf package, and every decoder is there."""

import gguf
import pytest

from bestiary.records import resolve
from bestiary_quant.blocks.types import REMOVED, TYPES, BlockType

ALL = pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.name)


@ALL
def test_numbers_and_sizes_are_those_of_the_format(kind: BlockType) -> None:
    code = gguf.GGMLQuantizationType[kind.name]
    assert code == kind.code
    # ggml's block_q8_1 has had 16-bit floats since 2023; the package still counts the older 32-bit ones.
    assert gguf.GGML_QUANT_SIZES[code] == ((32, 40) if kind.name == "Q8_1" else (kind.length, kind.nbytes))


@ALL
def test_a_type_is_plain_or_has_a_decoder(kind: BlockType) -> None:
    assert kind.packed == (kind.dtype is None)
    if kind.decode is not None:
        assert callable(resolve(kind.decode))


def test_every_number_of_the_format_is_known_or_removed() -> None:
    assert {int(code) for code in gguf.GGMLQuantizationType} == set(TYPES)
    assert not REMOVED & set(TYPES)
