"""Resizing, by Pillow or by who does it faster."""

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pluggy
import pytest
from PIL import Image

from bestiary.errors import OptionError
from bestiary.kernels import VARIABLE
from bestiary.media import images
from bestiary.records import KernelBackend
from bestiary.registry import Plugin, Registry

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
BLACK = Image.new("RGB", (7, 9))


@pytest.fixture(autouse=True)
def swallow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plugin that makes black pictures, and leaves those from 100 pixels of width on to Pillow."""
    module = ModuleType("swallow")
    vars(module).update(
        swift=lambda image, height, width, resample: None if width >= 100 else Image.new("RGB", (width, height)),
        there=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "swallow", module)
    record = KernelBackend("resize", ("uint8",), ("cpu",), "swallow:swift", 5, "swift", unavailable="swallow:there")
    plugin = Plugin("swallow", "bestiary-swallow", "1", "swallow", (record,))
    monkeypatch.setattr(images, "default_registry", lambda: Registry((plugin,), pluggy.PluginManager("bestiary")))
    monkeypatch.delenv(VARIABLE, raising=False)
    images._fast.cache_clear()
    yield
    images._fast.cache_clear()


def test_a_faster_resize_is_used() -> None:
    assert images.resize(PICTURE, 9, 7) == BLACK


def test_what_it_leaves_is_for_pillow() -> None:
    for resample in images.RESAMPLING:
        assert images.resize(PICTURE, 50, 100, resample) == PICTURE.resize((100, 50), images.RESAMPLING[resample])


def test_a_picture_of_that_size_stays_as_it_is() -> None:
    assert images.resize(PICTURE, 40, 30) is PICTURE


@pytest.mark.parametrize("words", ("off", "-swift"))
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv(VARIABLE, words)
    assert images.resize(PICTURE, 9, 7, Image.Resampling.LANCZOS) == PICTURE.resize((7, 9), Image.Resampling.LANCZOS)


def test_words_that_mean_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "swft")
    with pytest.raises(OptionError, match="swft"):
        images.resize(PICTURE, 9, 7)


def test_without_such_a_plugin_pillow_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "default_registry", lambda: Registry((), pluggy.PluginManager("bestiary")))
    assert images.resize(PICTURE, 9, 7) == PICTURE.resize((7, 9), Image.Resampling.BICUBIC)
