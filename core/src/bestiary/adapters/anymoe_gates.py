"""Trained gates in a file, as mistral.rs has it: gate.safetensors with moe_gate.N.weight and moe_gate.N.bias."""

from __future__ import annotations

import contextlib
import re
from contextlib import closing
from pathlib import Path

import torch

from bestiary.adapters.anymoe import AnyMoeModel
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.errors import CheckpointError, OptionError, WeightMismatch, shown
from bestiary.nearest import did_you_mean
from bestiary.protocols import Repository

GATES = "gate.safetensors"
_NAME = re.compile(r"moe_gate\.([0-9]{1,4})\.(weight|bias)")


def save_gates(model: AnyMoeModel, folder: Path) -> Path:
    """Write the gates into a folder, which is made where there is none; returns the file.  Raises OptionError."""
    from safetensors.torch import save

    tensors = {
        f"moe_gate.{layer}.{name}": parameter.detach().cpu().contiguous()
        for layer, gate in model.gates.items()
        for name, parameter in gate.named_parameters()
    }
    target, whole = folder / GATES, folder / f".{GATES}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(save(tensors))
        whole.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            whole.unlink()
        raise OptionError(f"The gates cannot be saved: {error.strerror}.", where=target) from error
    return target


def load_gates(model: AnyMoeModel, repository: Repository) -> None:
    """Read the gates of exactly these layers and experts.  Raises CheckpointError, WeightMismatch."""
    name = _file(repository)
    origin = f"{repository.origin}: {name}"
    wanted = {
        f"moe_gate.{layer}.{leaf}": parameter
        for layer, gate in model.gates.items()
        for leaf, parameter in gate.named_parameters()
    }
    repository.fetch((name,))
    with closing(safetensors_checkpoint.open(repository, (name,))) as checkpoint:
        given = checkpoint.names()
        missing = [key for key in wanted if key not in given]
        unexpected = [key for key in given if key not in wanted]
        if missing or unexpected:
            layers = sorted({int(match[1]) for key in given if (match := _NAME.fullmatch(key))})
            raise WeightMismatch(
                f"The file has gates of the layers {shown(layers)}; the model's are {shown(sorted(model.gates))}."
                + (f" {shown(unexpected[0])} is no gate of it." if unexpected else ""),
                where=origin,
                fix="give the layers that the gates were trained for",
                missing=missing,
                unexpected=unexpected,
            )
        read: dict[str, torch.Tensor] = {}
        for key, parameter in wanted.items():
            if checkpoint.shape(key) != tuple(parameter.shape):
                raise WeightMismatch(
                    f"{key} has the shape {list(checkpoint.shape(key))}; for {model.expert_count} experts it would be "
                    f"{list(parameter.shape)}.",
                    where=origin,
                    fix="give the model_ids that the gates were trained for",
                    misshaped={key: (checkpoint.shape(key), tuple(parameter.shape))},
                )
            tensor = checkpoint.read(key)
            if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
                raise CheckpointError(f"{key} is not of finite floating-point numbers.", where=origin)
            read[key] = tensor.clone()
    with torch.no_grad():
        for key, parameter in wanted.items():
            parameter.copy_(read[key])


def _file(repository: Repository) -> str:
    found = [name for name in repository.files() if name.endswith(".safetensors")]
    if GATES in found:
        return GATES
    if len(found) != 1:
        raise CheckpointError(
            f"There is no {GATES} among {len(found)} .safetensors files.",
            where=repository.origin,
            fix=did_you_mean(GATES, repository.files()) or "give the folder or repository of trained gates",
        )
    return found[0]
