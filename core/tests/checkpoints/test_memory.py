"""The peak of resident memory while a file is read tensor by tensor."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MEGA = 1 << 20


def test_release_keeps_the_peak_at_one_tensor(tmp_path: Path, child: Callable[..., Any]) -> None:
    path = tmp_path / "model.safetensors"
    each, count = 10 * MEGA, 30
    header = {
        str(number): {"dtype": "F32", "shape": [each // 4], "data_offsets": [number * each, (number + 1) * each]}
        for number in range(count)
    }
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.writelines(bytes([number]) * each for number in range(count))
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak is read from /proc of Linux")
    peak = child("memory", path)
    path.unlink()
    assert peak["largest"] == each
    assert peak["released"] <= each + 50 * MEGA, peak  # 14 MB when this was written
    assert peak["kept"] > 0.9 * count * each, "the measure does not measure"
