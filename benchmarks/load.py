"""What a load costs: peak memory over the model's own size, and seconds, beside safetensors' own reader.

    python benchmarks/load.py [--megabytes 800] [--json]

Makes a random Llama checkpoint in a temporary folder, loads it in a fresh process with Bestiary, and copies the same
file with safetensors.torch.load_file in another.  Peak is all the memory that the process ever held (VmHWM), its own
and the file's, less what it held before the load.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

WATCH = """
import json, sys, time
from pathlib import Path
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: int(line.split()[1]) * 1024 for line in lines for key in ("VmHWM", "VmRSS") if line.startswith(key)}
def measure(load):
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak()["VmRSS"], time.perf_counter()
    kept = load()
    seconds = time.perf_counter() - start
    print(json.dumps({"peak": peak()["VmHWM"] - before, "seconds": seconds, "held": peak()["VmRSS"] - before}))
folder, dtype = sys.argv[1], sys.argv[2]
"""
OURS = (
    WATCH
    + """
import torch
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
import bestiary.building, bestiary.placement, bestiary_llama.model
registry = default_registry()
identified = identify_model(folder, SourceOptions(offline=True), registry)
measure(lambda: load_weights(identified, registry, dtype=dtype, device="cpu"))
"""
)
THEIRS = (
    WATCH
    + """
import torch
from safetensors.torch import load_file
dtype = getattr(torch, dtype)
read = lambda: load_file(folder + "/model.safetensors").items()
measure(lambda: {name: tensor.to(dtype, copy=True) for name, tensor in read()})
"""
)


def make_checkpoint(folder: Path, megabytes: int) -> tuple[int, int]:
    """A random bfloat16 Llama of about this size; returns the bytes of all tensors, and of the largest."""
    import torch
    from safetensors.torch import save_file

    from bestiary.building import build_empty
    from bestiary.config import normalise
    from bestiary_llama import bestiary_architectures

    hidden, vocabulary = 1024, 32000
    layer = 2 * (4 * hidden * hidden + 3 * hidden * 4 * hidden)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": max(1, (megabytes * 1_000_000 - 4 * vocabulary * hidden) // layer),
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = build_empty(bestiary_architectures()[0], normalise(config, "benchmark"))
    tensors = {name: torch.randn(value.shape).bfloat16() for name, value in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    sizes = [tensor.nbytes for tensor in tensors.values()]
    return sum(sizes), max(sizes)


def run(code: str, folder: Path, dtype: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", code, str(folder), dtype], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=800)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        total, largest = make_checkpoint(folder, options.megabytes)
        for dtype, factor in (("bfloat16", 1), ("float32", 2)):
            for who, code in (("bestiary", OURS), ("safetensors", THEIRS)):
                # The first run may wait for the disk, or for what was just written to it.
                found = min((run(code, folder, dtype) for _ in range(3)), key=lambda row: row["seconds"])
                rows.append({"who": who, "dtype": dtype, "model": total * factor, "largest": largest * factor, **found})
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'':12} {'dtype':9} {'model':>8} {'tensor':>8} {'peak':>8} {'over':>8} {'seconds':>8}   (MB)")
    for row in rows:
        megabytes = [row[key] / 1e6 for key in ("model", "largest", "peak")]
        over = megabytes[2] - megabytes[0]
        print(
            f"{row['who']:12} {row['dtype']:9} {megabytes[0]:8.0f} {megabytes[1]:8.0f} {megabytes[2]:8.0f} "
            f"{over:8.0f} {row['seconds']:8.2f}"
        )


if __name__ == "__main__":
    main()
