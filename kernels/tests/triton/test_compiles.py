"""Every kernel compiles for the GPUs that it is meant for, on a machine that has none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the kernels for GPUs need triton, an optional extra")

SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
"""Bytes of shared memory that a block may have (CUDA C++ Programming Guide, "Technical Specifications")."""
KERNELS = {
    "few_rows",
    "many_rows",
    "grouped_rows",
    "one_row",
    "gated",
    "one_token",
    "one_part",
    "all_parts",
    "one_tile",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", [90, *(pytest.param(other, marks=pytest.mark.thorough) for other in (80, 100))])
def test_compiles(capability: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("compiling.py")
    # A cache of its own: what was compiled before says nothing of the source as it is.
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "error"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, str(script), str(capability)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert {entry["kernel"].split()[-1] for entry in compiled} == KERNELS
    for entry in compiled:
        assert entry["target"].startswith(f"sm_{capability}")
        assert entry["shared"] <= SHARED[capability], entry
