"""The package installs where there is no C++ compiler, and says what it goes without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2]


def test_a_wheel_without_a_compiler_has_the_python_part(tmp_path: Path) -> None:
    beside = str(Path(sys.executable).parent)
    if shutil.which("cmake", path=beside) is None:
        pytest.skip("cmake is not installed beside Python: `make setup` installs it")
    environment = {**os.environ, "CXX": "/nonexistent/c++", "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps", "--no-index"]
    build = ["--config-settings=build-dir=" + str(tmp_path / "build"), "--wheel-dir", str(tmp_path), str(KERNELS)]
    made = subprocess.run([*command, *build], env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "There is no C++ compiler" in made.stdout + made.stderr
    (wheel,) = tmp_path.glob("bestiary_kernels-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "bestiary_kernels/cpu/library.py" in names
    assert not [name for name in names if name.endswith((".so", ".dylib", ".dll"))]
