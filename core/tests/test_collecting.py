"""The collector is as it was afterwards, whatever happened."""

import gc

import pytest

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
