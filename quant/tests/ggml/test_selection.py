"""Which file is meant, told by the first bytes, for names say little."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bestiary.errors import CheckpointError
from bestiary.sources.folder import Folder
from bestiary_quant.ggml.header import sniff
from bestiary_quant.ggml.selection import chosen, files

GGML = struct.pack("<II", 0x67676A74, 3) + bytes(60)
PICKLE = b"PK\3\4" + bytes(60)
ADAPTER = struct.pack("<II", 0x67676C61, 1) + bytes(60)


@pytest.fixture
def having(tmp_path: Path, repository: Callable[[], Folder]) -> Callable[[Mapping[str, bytes]], Folder]:
    def write(contents: Mapping[str, bytes]) -> Folder:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return repository()

    return write


@pytest.mark.parametrize(
    ("magic", "is_one"),
    [(0x67676D6C, True), (0x67676D66, True), (0x67676A74, True), (0x67676C61, False), (0x6767736E, False)],
)
def test_marks(magic: int, is_one: bool) -> None:
    head = struct.pack("<I", magic)
    assert sniff("model.bin", head + bytes(12)) is is_one and sniff("any name", head) is is_one
    assert not sniff("model.ggml", head[::-1]) and not sniff("model.ggml", head[:3]) and not sniff("model.bin", b"")


def test_other_files_of_the_same_ending(having: Callable[[Mapping[str, bytes]], Folder]) -> None:
    found = having({"optimizer.bin": PICKLE, "a.bin": GGML, "b.ggml.txt": GGML, "GGUF.bin": b"GGUF" + bytes(60)})
    assert files(found) == ("a.bin",)


def test_one_of_many(having: Callable[[Mapping[str, bytes]], Folder]) -> None:
    names = ("llama-2-7b.ggmlv3.q4_K_M.bin", "llama-2-7b.ggmlv3.q4_K_S.bin", "llama-2-7b.ggmlv3.q4_0.bin")
    found = having(dict.fromkeys(names, GGML))
    for wanted in ("q4_k_m", "Q4_K_M", names[0]):
        assert files(found, wanted) == chosen(found, wanted) == (names[0],)
    assert chosen(found, "4") == (names[0],)
    for wanted, says in ((None, "3 models lie here: q4_0"), ("7b", "in the names of 3"), ("q4_k_l", "Did you mean")):
        with pytest.raises(CheckpointError) as caught:
            files(found, wanted)
        assert says in str(caught.value)
    with pytest.raises(CheckpointError, match="No file is called"):
        chosen(found, "q8_0")


def test_of_one_model_a_type_is_for_packing(having: Callable[[Mapping[str, bytes]], Folder]) -> None:
    found = having({"model.f16.bin": GGML})
    assert chosen(found, "q4k") is None and chosen(found, "4") is None and chosen(found, "f16") == ("model.f16.bin",)


def test_nothing_of_the_format(having: Callable[[Mapping[str, bytes]], Folder]) -> None:
    with pytest.raises(CheckpointError, match=r"no file of llama\.cpp from before GGUF"):
        files(having({"config.json": b"{}", "a.ggml": b"GGUF"}))
    with pytest.raises(CheckpointError, match=r"adapter that llama\.cpp made"):
        files(having({"lora.bin": ADAPTER}))


def test_pickles_are_told_as_such(having: Callable[[Mapping[str, bytes]], Folder]) -> None:
    with pytest.raises(CheckpointError, match=r"pickled \('pytorch_model-00001-of-00002\.bin'\)"):
        files(having({"pytorch_model-00001-of-00002.bin": PICKLE}))
