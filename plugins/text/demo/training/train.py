"""Trains the demo model from nothing and writes it into the package's model folder."""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import tokenizer as tokenizer_maker
import torch
from dialogues import dialogue
from rendering import MODEL, Renderer, Sample
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

SEED = 7
CONTROL = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
CONFIGURED = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
    "attention_bias", "mlp_bias", "attention_dropout", "initializer_range", "use_cache",
]  # fmt: skip
POOL = 4096  # dialogues that are sorted by length together, so that a batch needs little padding


def network() -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer_maker.VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            **CONTROL,
        )
    )


def batches(renderer: Renderer, first: int, budget: int) -> Iterator[list[Sample]]:
    """Batches of about `budget` tokens, padding included; the same sequence in every run."""
    pool = first
    while True:
        dice = Random(f"{SEED}/{pool}")
        samples = sorted((renderer.sample(dialogue(dice)) for _ in range(POOL)), key=lambda sample: len(sample.tokens))
        groups: list[list[Sample]] = [[]]
        for sample in samples:
            if (len(groups[-1]) + 1) * len(sample.tokens) > budget:
                groups.append([])
            groups[-1].append(sample)
        dice.shuffle(groups)
        yield from groups
        pool += 1


def loss_of(model: LlamaForCausalLM, decoder: Callable[..., Any], samples: list[Sample]) -> Tensor:
    """Mean cross entropy over the learned tokens; padding is on the right and so needs no mask."""
    longest = max(len(sample.tokens) for sample in samples)
    tokens = torch.tensor([sample.tokens + [0] * (longest - len(sample.tokens)) for sample in samples])  # [B, T]
    learned = torch.tensor([sample.learned + [False] * (longest - len(sample.learned)) for sample in samples])  # [B, T]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = decoder(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state  # [B, T-1, D]
        logits = model.lm_head(hidden[learned[:, 1:]])  # [N, V]: only what is learned
    return torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:][learned[:, 1:]])


def rate(step: int, progress: float, peak: float) -> float:
    """Cosine to a twentieth of the peak over the run's progress from 0 to 1, after a short warm-up."""
    if step < 200:
        return peak * (step + 1) / 200
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def export(model: LlamaForCausalLM) -> None:
    """The weights in bfloat16 and the two configurations, as transformers spells them."""
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, MODEL / "model.safetensors", metadata={"format": "pt"})
    (MODEL / "model.safetensors").chmod(0o644)
    config = model.config.to_dict()
    written: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    written |= (
        {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
        | {name: config[name] for name in CONFIGURED}
        | CONTROL
        | {"rope_theta": 10000.0}
    )
    (MODEL / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    sampling = {"do_sample": True, "temperature": 0.2, "top_p": 0.9, "top_k": 20}
    GenerationConfig(**CONTROL, **sampling, max_new_tokens=256).save_pretrained(MODEL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, help="end by then, the learning rate falling accordingly")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--budget", type=int, default=5120, help="tokens in a batch")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"), help="resumed from if there")
    parser.add_argument("--compile", action="store_true", help="a sixth faster; needs a C++ compiler")
    options = parser.parse_args()

    torch.set_num_threads(2)
    if not (MODEL / "tokenizer.json").exists():
        tokenizer_maker.main()
    renderer = Renderer(Tokenizer.from_file(str(MODEL / "tokenizer.json")))
    model, step, pool = network(), 0, 0
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.peak, betas=(0.9, 0.98), fused=True)
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, pool = saved["step"], saved["pool"] + 1000  # other dialogues than before
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters, from step {step}", flush=True)

    decoder = torch.compile(model.model, dynamic=True) if options.compile else model.model
    first, started, seen, total = step, time.monotonic(), 0, 0.0
    for batch in batches(renderer, pool, options.budget):
        progress = step / options.steps
        if options.minutes:
            spent = (time.monotonic() - started) / 60 / options.minutes
            progress = max(progress, first / options.steps + (1 - first / options.steps) * spent)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(step, progress, options.peak)
        loss = loss_of(model, decoder, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, seen, total = step + 1, seen + sum(len(sample.tokens) for sample in batch), total + loss.item()
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"step {step} loss {total / 100:.4f} tokens/s {seen / seconds:.0f} seconds {seconds:.0f}", flush=True)
            total = 0.0
        if step % 100 == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "pool": pool}
            torch.save(state, options.checkpoint)
    export(model)


if __name__ == "__main__":
    main()
