"""What a load costs that packs the weights on its way: peak memory over the packed model's size, and seconds.

    python benchmarks/load_packed.py [--quant q4k] [--hidden 2048] [--layers 16] [--vocabulary 128256] [--json]

Makes a random bfloat16 Llama in a temporary folder, by default in the shape of Llama 3.2 1B (1.2 billion parameters,
its largest tensor 525 MB), and loads it in a fresh process.  Peak is all the memory that the process ever held (VmHWM),
its own and the file's, less what it held before the load.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOAD = """
import json, sys, time
from pathlib import Path
import torch
import bestiary.loading, bestiary.pulling, bestiary_llama.model
import bestiary_quant.planning.plan, bestiary_quant.making.pack
from bestiary.building import resident_bytes
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import PackingRequest, SourceOptions
from bestiary.registry import default_registry

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: int(line.split()[1]) * 1024 for line in lines for key in ("VmHWM", "VmRSS") if line.startswith(key)}

folder, quant = sys.argv[1:]
registry = default_registry()
identified = identify_model(folder, SourceOptions(offline=True), registry)
torch.ones(64, 64) @ torch.ones(64, 64)
Path("/proc/self/clear_refs").write_text("5")
before, start = resident()["VmRSS"], time.perf_counter()
loaded = load_weights(identified, registry, device="cpu", packing=PackingRequest(quant))
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "packed": resident_bytes(loaded.model),
    "peak": resident()["VmHWM"] - before,
}))
"""


def make_checkpoint(folder: Path, hidden: int, layers: int, vocabulary: int) -> dict[str, int]:
    """A random bfloat16 Llama, tensor by tensor; returns its parameters, and the bytes of its largest tensor."""
    import torch
    from safetensors.torch import save_file

    from bestiary.building import build_empty
    from bestiary.config import normalise
    from bestiary_llama import bestiary_architectures

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": max(1, hidden // 256),
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = build_empty(bestiary_architectures()[0], normalise(config, "benchmark"))
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if name != "lm_head.weight"}
    random = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=random, dtype=torch.bfloat16) * 0.02 if len(shape) > 1 else torch.ones(shape)
        for name, shape in shapes.items()
    }
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    sizes = [tensor.numel() for tensor in tensors.values()]
    return {"parameters": sum(sizes), "largest": 2 * max(sizes)}


def measure(quant: str, hidden: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """One load in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        made = make_checkpoint(Path(name), hidden, layers, vocabulary)
        done = subprocess.run([sys.executable, "-c", LOAD, name, quant], capture_output=True, text=True, check=True)
        return {"quant": quant, **made, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quant", default="q4k")
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=128256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    row = measure(options.quant, options.hidden, options.layers, options.vocabulary)
    if options.json:
        print(json.dumps(row, indent=2))
        return
    print(
        f"{row['quant']}: {row['parameters'] / 1e6:.0f} million parameters, {2 * row['parameters'] / 1e6:.0f} MB in "
        f"bfloat16, largest tensor {row['largest'] / 1e6:.0f} MB; packed {row['packed'] / 1e6:.0f} MB, peak "
        f"{row['peak'] / 1e6:.0f} MB = packed + {(row['peak'] - row['packed']) / 1e6:.0f} MB; {row['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
