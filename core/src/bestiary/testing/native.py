"""Tests of what native kernels compute."""

from __future__ import annotations

import pytest


def need_native_kernels() -> None:
    """Skip the test, or the module that says so at its top, where there are none: without a compiler none are built."""
    # The inner module, because a folder of the outer one's name may outlive the package.
    operations = pytest.importorskip("bestiary_kernels.cpu.operations", reason="the kernels are not installed")
    if reason := operations.unavailable():
        pytest.skip(f"no native library: {reason}", allow_module_level=True)
