"""The memory that a load needs, by the benchmark that measures it."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "load.py"


def test_the_peak_is_the_model_and_one_tensor() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--megabytes", "300", "--json"], capture_output=True, text=True, check=True
    )
    rows = [row for row in json.loads(done.stdout) if row["who"] == "bestiary"]
    assert {row["dtype"] for row in rows} == {"bfloat16", "float32"}
    for row in rows:
        assert row["model"] <= row["peak"] <= row["model"] + row["largest"] + 150e6, row
