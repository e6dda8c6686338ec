"""The collector is as it was afterwards, whatever happened."""

import gc
from collections.abc import Callable
from typing import Any

import pytest

import bestiary
from bestiary import loading, pulling
from bestiary.collecting import collector_held


def test_the_collector_runs_again_afterwards() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_held():
        assert not gc.isenabled()
        with collector_held():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_who_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with collector_held():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_load_holds_it_until_weights_come(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, bool] = {}

    def watched(module: Any, name: str) -> Callable[..., Any]:
        original = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            held[name] = not gc.isenabled()
            return original(*arguments, **options)

        return call

    for module, name in ((loading, "identify_model"), (loading, "open_weights"), (pulling, "pull")):
        monkeypatch.setattr(module, name, watched(module, name))
    with bestiary.load("demo", progress=False, cache_tokens=4096):
        assert held == {"identify_model": True, "open_weights": True, "pull": False} and gc.isenabled()
