"""What each quantization costs: seconds and error, beside llama.cpp's error on the same numbers.

    python benchmarks/quantize.py [--rows 1024] [--threads N] [--schemes q4k q8_0 ...] [--json]

Quantises Gaussian weights of 4096 columns in bfloat16.  MB/s counts them as they are given, two bytes each.  Error is
the root of the mean square over that of the weights; "beside llama.cpp" is the ratio of squared errors on the numbers
of quant/tests/making/data, half of which are weights of trained models.
"""

import argparse
import json
import time
from pathlib import Path

import numpy
import torch

from bestiary_quant.blocks.dequantize import dequantize
from bestiary_quant.making.pack import pack
from bestiary_quant.making.schemes import SCHEMES, Scheme, find

DATA = Path(__file__).parent.parent / "quant/tests/making/data"


def measure(scheme: Scheme, weights: torch.Tensor, importance: torch.Tensor | None) -> dict[str, float]:
    """MB/s of the best of three runs, and the relative error."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        packed = pack(weights, scheme.name, importance)
        seconds.append(time.perf_counter() - start)
    assert packed is not None
    plain = weights.double()
    error = (packed.dequantize().double() - plain).square().mean().sqrt() / plain.square().mean().sqrt()
    return {
        "mb_per_s": weights.nbytes / min(seconds) / 1e6,
        "bits": packed.nbytes * 8 / weights.numel(),
        "error": float(error),
    }


def beside_llama_cpp(scheme: Scheme, weighted: bool) -> float | None:
    """Our squared error over that of llama.cpp, each weighted by importance if `weighted`; None without its bytes."""
    with numpy.load(DATA / "numbers.npz") as given, numpy.load(DATA / "llama_cpp.npz") as made:
        name = f"{scheme.kind.name}{'_weighted' if weighted else ''}" if scheme.kind else ""
        if scheme.kind is None or name not in made:
            return None
        x, importance = torch.from_numpy(given["x"]).float(), torch.from_numpy(given["importance"])
        theirs = dequantize(torch.from_numpy(made[name]), scheme.kind)
    packed = pack(x, scheme.name, importance if weighted else None)
    assert packed is not None
    ours, theirs = (
        (values - x).double().square() * (importance if weighted else 1) for values in (packed.dequantize(), theirs)
    )
    return float(ours.sum() / theirs.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--schemes", nargs="*", default=list(SCHEMES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    choice = torch.Generator().manual_seed(0)
    weights = (torch.randn(options.rows, 4096, generator=choice) * 0.02).bfloat16()
    importance = torch.exp(torch.randn(4096, generator=choice) * 1.5)
    rows = []
    for scheme in map(find, options.schemes):
        for weighted in (False, True) if scheme.weighs else (False,):
            found = measure(scheme, weights, importance if weighted else None)
            ratio = beside_llama_cpp(scheme, weighted)
            rows.append({"scheme": scheme.name, "importance": weighted, **found, "beside_llama_cpp": ratio})
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        f"{'':10} {'':10} {'bits':>7} {'MB/s':>8} {'error':>8} {'beside llama.cpp':>17}   ({options.threads} threads)"
    )
    for row in rows:
        beside = "" if row["beside_llama_cpp"] is None else f"{row['beside_llama_cpp']:.4f}"
        kind = "importance" if row["importance"] else ""
        print(
            f"{row['scheme']:10} {kind:10} {row['bits']:7.3f} {row['mb_per_s']:8.1f} {row['error']:8.4f} {beside:>17}"
        )


if __name__ == "__main__":
    main()
