"""Training the gates of an AnyMoE model: which expert answers which prompt.

As in mistral.rs (mistralrs-core/src/pipeline/amoe.rs) nothing but the gates learns, by AdamW without decay, each from
the mean of its probabilities over a prompt.  The loss is the cross entropy of that mean, -log p(expert); mistral.rs
puts the mean through a softmax once more, so that its losses are larger and never reach zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from bestiary.adapters.anymoe import AnyMoeModel, Gate
from bestiary.adapters.anymoe_config import AnyMoeConfig, Row
from bestiary.errors import ConfigError, GenerationError, OptionError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.records import Progress


@dataclass(frozen=True)
class Training:
    """What a training did."""

    losses: tuple[tuple[float, ...], ...]
    """By step, and in it by gate."""

    @property
    def final(self) -> tuple[float, ...]:
        return self.losses[-1]


def train_gates(
    model: AnyMoeModel,
    rows: Sequence[Row],
    encode: Callable[[str], Sequence[int]],
    config: AnyMoeConfig,
    *,
    dtype: torch.dtype,
    context_length: int,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Training:
    """Train the gates on rows in an order by `seed`, and write the losses to `config.loss_csv_path`.

    `encode` makes the tokens of a prompt, as it will be asked; `dtype` is the model's.  Nobody else may run the model
    meanwhile.  Raises ConfigError for a row that the model cannot read, GenerationError where a loss is not finite, and
    OptionError where the losses cannot be written.
    """
    examples = [_example(model, row, encode, context_length, number) for number, row in enumerate(rows)]
    if not examples:
        raise ConfigError("There are no rows to train on.")
    gates, random = model.gates, torch.Generator().manual_seed(seed)
    parameters = [parameter for gate in gates.values() for parameter in gate.parameters()]
    device = parameters[0].device
    # The losses have no parameter in common, so that one optimizer does what one for each gate would.
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    total = config.epochs * -(-len(examples) // config.batch_size)
    losses: list[tuple[float, ...]] = []
    _log(config.loss_csv_path, ["Step", *(f"Gating layer {gate}" for gate in range(len(gates)))], "w")
    with _learning(parameters):
        for _ in range(config.epochs):
            order = torch.randperm(len(examples), generator=random).tolist()
            for start in range(0, len(order), config.batch_size):
                batch = [examples[place] for place in order[start : start + config.batch_size]]
                labels = torch.tensor([expert for _, expert in batch], device=device)
                counts = [len(tokens) for tokens, _ in batch]
                seen = _gate_inputs(model, [tokens for tokens, _ in batch], device, dtype)
                each = [gate_loss(gate, x, counts, labels) for gate, x in zip(gates.values(), seen, strict=True)]
                losses.append(tuple(loss.item() for loss in each))
                _check(losses, gates)
                _log(config.loss_csv_path, [f"Step {len(losses) - 1}", *(f"{loss:.4f}" for loss in losses[-1])])
                optimizer.zero_grad()
                torch.autograd.backward(each)
                optimizer.step()
                if progress:
                    mean = sum(losses[-1]) / len(losses[-1])
                    progress(Progress("train", len(losses), total, f"loss {mean:.4f}"))
    return Training(tuple(losses))


def gate_loss(gate: Gate, x: torch.Tensor, counts: Sequence[int], labels: torch.Tensor) -> torch.Tensor:
    """-log of the mean probability of each sequence's expert, in the mean over the sequences.

    x [T, D] are the inputs of the gate for sequences of these lengths, `labels` [N] their experts.
    """
    means = [part.logsumexp(0) - math.log(len(part)) for part in gate(x).split(list(counts))]
    return F.nll_loss(torch.stack(means), labels)


def _example(
    model: AnyMoeModel, row: Row, encode: Callable[[str], Sequence[int]], context_length: int, number: int
) -> tuple[list[int], int]:
    tokens, where, last = list(encode(row.prompt)), f"row {number}", model.vocab_size - 1
    if not 0 < len(tokens) <= context_length:
        raise ConfigError(f"The prompt has {len(tokens)} tokens; 1 to {context_length} can be read.", where=where)
    if not 0 <= min(tokens) <= max(tokens) <= last:
        raise ConfigError(
            f"The prompt has tokens from {min(tokens)} to {max(tokens)}; {last} is the last.", where=where
        )
    if not 0 <= row.expert < model.expert_count:
        raise ConfigError(f"The row is for expert {row.expert} of {model.expert_count}.", where=where)
    return tokens, row.expert


def _gate_inputs(
    model: AnyMoeModel, prompts: Sequence[list[int]], device: torch.device, dtype: torch.dtype
) -> list[torch.Tensor]:
    """What each gate sees [T, D] when the model, with its gates as they are, reads these prompts."""
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs, layer=layer: seen.update({layer: inputs[0].detach()}))
        for layer, block in model.blocks.items()
    ]
    caches = [SequenceCache(len(model.specs)) for _ in prompts]
    batch = make_batch(caches, [len(prompt) for prompt in prompts], device, dtype=dtype)
    try:
        with torch.no_grad():
            model.hidden(torch.tensor([token for prompt in prompts for token in prompt], device=device), batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[layer] for layer in model.blocks]


@contextmanager
def _learning(parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def _check(losses: Sequence[tuple[float, ...]], gates: dict[int, Gate]) -> None:
    for layer, loss in zip(gates, losses[-1], strict=True):
        if not math.isfinite(loss):
            raise GenerationError(
                f"At step {len(losses) - 1} the loss of the gate in layer {layer} is {loss}.",
                fix="lower lr; where it is so at step 0, the model itself makes values that are not finite",
            )


def _log(path: str | None, cells: Sequence[str], mode: str = "a") -> None:
    """A line of the losses, in the form of mistral.rs."""
    if path is None:
        return
    try:
        with Path(path).open(mode, encoding="utf-8") as file:
            file.write(",".join(cells) + "\n")
    except OSError as error:
        raise OptionError(f"The losses cannot be written: {error.strerror}.", where=path) from error
