"""The source for Arm processors compiles, where a compiler for them is: g++ for aarch64, or the one of ziglang."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"


def arm_compiler() -> list[str]:
    found = shutil.which("aarch64-linux-gnu-g++")
    if found:
        return [found, "-march=armv8.2-a+dotprod+fp16"]
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no compiler for Arm: install g++-aarch64-linux-gnu, or `pip install ziglang`")
    zig = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu"]
    return [*zig, "-mcpu=generic+dotprod+fullfp16"]


@pytest.mark.parametrize("name", ("isa.cpp", "team.cpp", "api.cpp"))
def test_it_compiles(name: str) -> None:
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-DISA=neon"]
    done = subprocess.run([*arm_compiler(), *flags, str(NATIVE / name)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr[-3000:]
