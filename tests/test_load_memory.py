"""The memory that a load needs, by the benchmark that measures it."""

import json
import subprocess
import sys
from pathlib import Path

import bestiary
from bestiary.building import resident_bytes
from bestiary.cli import invoke

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "load.py"


def test_the_peak_is_the_model_and_one_tensor() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--megabytes", "300", "--json"], capture_output=True, text=True, check=True
    )
    rows = [row for row in json.loads(done.stdout) if row["who"] == "bestiary"]
    assert {row["dtype"] for row in rows} == {"bfloat16", "float32"}
    for row in rows:
        assert row["model"] <= row["peak"] <= row["model"] + row["largest"] + 150e6, row


def test_a_packed_file_is_no_larger_in_memory(tmp_path: Path) -> None:
    """The packaged model as Q4_K_M: what its weights take is what the file has of them."""
    path = tmp_path / "demo.gguf"
    assert invoke(["quantize", "demo", "--to", "gguf:q4_k_m", "-o", str(path)]) == 0
    with bestiary.load(str(path), dtype="float32", progress=False) as pipe:
        assert resident_bytes(pipe.model) <= 1.1 * path.stat().st_size
        assert pipe.model.model.layers[0].mlp.down_proj.packed.kind.name == "Q4_K"


def test_packing_needs_the_packed_model_and_less_than_one_tensor() -> None:
    arguments = ["--quant", "q8_0", "--hidden", "1024", "--layers", "1", "--vocabulary", "150000", "--json"]
    script = str(BENCHMARK.with_name("load_packed.py"))
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    assert row["packed"] <= row["peak"] <= row["packed"] + 200e6 < row["packed"] + row["largest"], row
