"""What each quantization costs a model: size, perplexity, distance from the plain model, and speed.

    python benchmarks/losses.py [--model demo] [--text FILE] [--calibration FILE] [--schemes q4k ...] [--json]

Perplexity is that of `bestiary perplexity`, by default of the packaged model on benchmarks/texts/conversations.jsonl,
which it has not seen; KL is the mean divergence of the next token's probabilities from those of the plain model in
float32, in nats, and "same" how often both have the same most probable token.  Speed is decoding of one request,
beside the plain model in bfloat16 in the same run.  Schemes that take importance into account are measured with the
calibration text too, and those that need one with it only.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bestiary
from bestiary.building import resident_bytes
from bestiary.generation.speed import measure
from bestiary.nn import Embedding, Linear
from bestiary_quant.calibration.methods import METHODS
from bestiary_quant.making.schemes import SCHEMES

TEXTS = Path(__file__).parent / "texts"
DEFAULT = (
    *("q8_0", "q6k", "q5k", "q5_1", "q5_0", "q4_k_m", "q4k", "q4_1", "q4_0", "iq4_xs", "iq4_nl", "q3k", "q2k"),
    *("fp8", "int8", "f8q8", "hqq8", "hqq4", "afq8", "afq6", "afq4", "afq3", "afq2", "mxfp4"),
    *("gptq8", "gptq4", "gptq3", "awq4"),
)


def sequences(pipe: Any, text: Path) -> list[tuple[list[int], int]]:
    """Tokens, and how many of them come before those that count."""
    if text.suffix == ".jsonl":
        talks = [json.loads(line)["messages"] for line in text.read_text().splitlines()]
        prompts = [pipe.tokenize_chat(messages[:-1]) for messages in talks]
        answers = [pipe.tokenizer.encode_after(messages[-1]["content"], allow_special=False) for messages in talks]
        return [([*prompt, *answer], len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]
    window = min(512, pipe.engine.context_length)
    tokens = pipe.tokenize(text.read_text())
    parts = [tokens[start : start + window] for start in range(0, len(tokens), window // 2)]
    return [(part, 1 if number == 0 else window // 2) for number, part in enumerate(parts) if len(part) > window // 2]


def logprobs(pipe: Any, wanted: Sequence[tuple[list[int], int]]) -> Iterator[torch.Tensor]:
    """Of the tokens that count, [T, V]."""
    for tokens, before in wanted:
        yield pipe.score(tokens).log_softmax(-1)[before - 1 : -1]


def losses(pipe: Any, wanted: Sequence[tuple[list[int], int]], plain: Sequence[torch.Tensor]) -> dict[str, float]:
    """Perplexity, KL in nats and the share of equal choices."""
    nll = kl = same = count = 0.0
    for (tokens, before), found, due in zip(wanted, logprobs(pipe, wanted), plain, strict=True):
        chosen = torch.tensor(tokens[before:])[:, None]
        nll -= float(found.gather(1, chosen).double().sum())
        kl += float((due.exp() * (due - found)).double().sum())
        same += float((due.argmax(-1) == found.argmax(-1)).sum())
        count += len(chosen)
    return {"perplexity": math.exp(nll / count), "kl": kl / count, "same": same / count, "tokens": count}


def spread(model: nn.Module) -> None:
    """Plain numbers in place of packed weights, which in float32 give the same logits, and sooner."""
    for module in model.modules():
        packed = getattr(module, "packed", None)
        if packed is None:
            continue
        if isinstance(module, Embedding):
            module.hold(nn.Parameter(packed.dequantize(), False), torch.float32)
        elif isinstance(module, Linear):
            module.hold(nn.Parameter(packed.dequantize(), False))


def speed(pipe: Any) -> float:
    """Tokens per second of one request."""
    return float(measure(pipe.engine, 16, 48, 1, 2, 0)["decode_tokens_per_second"])


def rows(model: str, text: Path, calibration: Path, schemes: Sequence[str]) -> Iterator[dict[str, Any]]:
    options: dict[str, Any] = {"progress": False, "cache_tokens": 1024}
    with bestiary.load(model, dtype="float32", **options) as pipe:
        wanted = sequences(pipe, text)
        plain = list(logprobs(pipe, wanted))
        yield {"scheme": "float32", "bytes": resident_bytes(pipe.model), **losses(pipe, wanted, plain)}
    with bestiary.load(model, dtype="bfloat16", **options) as pipe:
        base = speed(pipe)
        yield {"scheme": "bfloat16", "bytes": resident_bytes(pipe.model), **losses(pipe, wanted, plain), "speed": 1.0}
    for scheme in schemes:
        for calibrated in (False, True):
            weighs = scheme in METHODS or any(scheme == s.name and s.weighs for s in SCHEMES.values())
            if (calibrated and not weighs and scheme != "q4_k_m") or (not calibrated and scheme in METHODS):
                continue
            own = {"calibration_file": str(calibration)} if calibrated else {}
            # Scored in float32, so that what is measured is the weights' loss; speed is that of bfloat16.
            with bestiary.load(model, dtype="float32", quant=scheme, **own, **options) as pipe:
                size = resident_bytes(pipe.model)
                spread(pipe.model)
                made = {"bytes": size, **losses(pipe, wanted, plain)}
            row = {"scheme": scheme, "calibrated": calibrated, **made}
            if not calibrated:
                with bestiary.load(model, dtype="bfloat16", quant=scheme, **options) as pipe:
                    row["speed"] = speed(pipe) / base
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text", type=Path, default=TEXTS / "conversations.jsonl")
    parser.add_argument("--calibration", type=Path, default=TEXTS / "calibration_conversations.txt")
    parser.add_argument("--schemes", nargs="*", default=DEFAULT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    made = []
    if not options.json:
        print("| scheme | MB | perplexity | KL | same token | speed |\n|---|---|---|---|---|---|")
    for row in rows(options.model, options.text, options.calibration, options.schemes):
        made.append(row)
        if not options.json:
            name = row["scheme"] + (", calibrated" if row.get("calibrated") else "")
            fast = f"{row['speed']:.2f}" if "speed" in row else ""
            print(
                f"| {name} | {row['bytes'] / 1e6:.2f} | {row['perplexity']:.4f} | {row['kl']:.5f} | "
                f"{row['same']:.2%} | {fast} |",
                flush=True,
            )
    if options.json:
        print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
