"""Panels that are kept on disk: mapped the next time, made anew where anything is otherwise, and never half."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from packed_weights import make

from bestiary.nn.packed import PackedForm
from bestiary_kernels.cpu.library import library
from bestiary_kernels.cpu.panel_cache import cached, folder
from bestiary_kernels.cpu.panels import Panels, pack_blocks
from bestiary_kernels.cpu.weights import PanelWeight, adopt

ROWS, COLUMNS = 300, 512


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BESTIARY_PANELS", str(tmp_path / "panels"))
    return tmp_path / "panels"


class Packer:
    """Packs a weight, and counts how often."""

    def __init__(self, seed: int = 0) -> None:
        made = make(library(), "Q4_K", ROWS, COLUMNS, seed)
        assert made.blocks is not None
        self.blocks, self.type, self.times = made.blocks, made.panels.type, 0

    def __call__(self) -> Panels:
        self.times += 1
        return pack_blocks(library(), self.blocks, self.type, 1)

    def get(self, source: str) -> Panels:
        return cached(source, self.type, ROWS, self.blocks.shape[1], self)


def test_a_weight_is_packed_once(place: Path) -> None:
    packer = Packer()
    first, second = packer.get("model/weight"), packer.get("model/weight")
    assert packer.times == 1 and torch.equal(first.data, second.data) and torch.equal(first.data, packer().data)
    assert second.rows == ROWS and second.columns == COLUMNS


def test_other_models_and_names_are_others(place: Path) -> None:
    packer, other = Packer(), Packer(1)
    packer.get("model/weight")
    assert torch.equal(other.get("model/other").data, other().data)
    assert torch.equal(other.get("changed/weight").data, other().data)


def test_a_damaged_file_is_made_anew(place: Path) -> None:
    packer = Packer()
    made = packer.get("model/weight").data.clone()
    (path,) = place.rglob("*.panels")
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(packer.get("model/weight").data, made) and packer.times == 2
    assert not list(place.rglob("*.tmp")) and len(list(place.rglob("*.*"))) == 1


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BESTIARY_PANELS", "off")
    packer = Packer()
    packer.get("model/weight")
    packer.get("model/weight")
    assert folder() is None and packer.times == 2


def test_a_folder_that_cannot_be_written_does_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BESTIARY_PANELS", str(tmp_path / "file" / "panels"))
    packer = Packer()
    assert torch.equal(packer.get("model/weight").data, packer().data)


def test_the_longest_unused_model_makes_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packer = Packer()
    size = packer().data.numel()
    monkeypatch.setenv("BESTIARY_PANELS_GB", str(2.5 * size / 1e9))
    for model in ("first", "second"):
        packer.get(f"{model}/weight")
    (oldest,) = [path.parent for path in place.rglob("*.panels")][:1]
    times = {path.parent: path.parent.stat().st_mtime_ns for path in place.rglob("*.panels")}
    oldest = min(times, key=lambda path: times[path])
    packer.get("third/weight")
    assert not oldest.exists() and len(list(place.rglob("*.panels"))) == 2


@dataclass(frozen=True)
class Ordered:
    """A packed weight with rows in an order of its own."""

    blocks: torch.Tensor
    order: torch.Tensor
    shape = (ROWS, COLUMNS)

    def form(self) -> PackedForm:
        return PackedForm("Q4_K", {"blocks": self.blocks}, self.order)


def test_rows_in_another_order_are_other_panels(place: Path) -> None:
    """Of one weight of one file, as another rule of a weight map moves its rows."""
    packer = Packer()
    for order in (torch.arange(ROWS).flip(0), torch.arange(ROWS).roll(7)):
        for _ in range(2):
            made = adopt(Ordered(packer.blocks, order), "model/weight")  # type: ignore[arg-type]
            assert isinstance(made, PanelWeight)
            assert torch.equal(made.panels.data, pack_blocks(library(), packer.blocks[order], packer.type, 1).data)
    assert len(list(place.rglob("*.panels"))) == 2
