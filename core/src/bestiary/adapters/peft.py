"""LoRA adapters in the files of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors.

    W' = W + scaling * B A                              LoRA (Hu et al. 2021), A [rank, in], B [out, rank]
    W' = magnitude * (W + scaling * B A) / |...|        DoRA (Liu et al. 2024), |...| the norm of each row

Nothing here knows a model: paths are those of the modules that the adapter was trained on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import torch

from bestiary.adapters.peft_config import MOST_PATTERN, PeftConfig, parse_config
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.checkpoints.refuse import FIX
from bestiary.config import read_json
from bestiary.errors import CheckpointError, ConfigError, ModelNotFound, OptionError, shown
from bestiary.nearest import did_you_mean
from bestiary.protocols import Repository

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_RANK = 256
MOST_BYTES = 8 << 30
_PATTERN_SECONDS = 10.0
_PART = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)"
    r"(?:\.(?!weight$|bias$)(?P<name>[^.]+))?(?P<leaf>\.weight|\.bias)?"
)
_COPY = re.compile(r"(?:base_model\.model\.)?(?P<module>(?:(?!lora_|modules_to_save).)+?)(?:\.base_layer)?\.weight")
_EMBEDDING = re.compile(r".*\.lora_embedding_[AB](?:\..*)?")
_ORDER = ("gate_up_proj", "down_proj")
"""In which order the experts of transformers register their parameters; PEFT wraps the first one innermost."""


@dataclass(frozen=True)
class LoraWeights:
    """The change of one module, or of one parameter of stacked experts, as it is stored and on the CPU.

    For E stacked experts both have one dimension more: a [E, rank, in], b [E, out, rank].
    """

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank]"""
    scaling: float
    magnitude: torch.Tensor | None = None
    """[out], of DoRA."""

    @property
    def rank(self) -> int:
        return self.a.shape[-2]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.a, self.b) if self.magnitude is None else (self.a, self.b, self.magnitude)


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter that was read and checked in itself; whether it fits a model shows when it is laid on one."""

    config: PeftConfig
    weights: Mapping[str, LoraWeights]
    """By the path of a module, or of a parameter of stacked experts (`mlp.experts.gate_up_proj`), in the names of the
    model that it was trained on."""
    id: str = ""
    origin: str = ""
    copies: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Weights of that model, by the path of the module: PEFT adds those of the head to an adapter that changes it."""

    @property
    def numbers(self) -> int:
        """How many numbers the weights have."""
        return sum(tensor.numel() for lora in self.weights.values() for tensor in lora.tensors())

    @property
    def rank(self) -> int:
        """The largest rank of a module."""
        return max(lora.rank for lora in self.weights.values())

    @property
    def nbytes(self) -> int:
        """What the weights take as they are stored."""
        return sum(tensor.nbytes for lora in self.weights.values() for tensor in lora.tensors())


def read_peft(
    repository: Repository, folder: str = "", *, most_rank: int = MOST_RANK, most_bytes: int = MOST_BYTES
) -> PeftAdapter:
    """Fetch, read and check the adapter in `folder` of a repository.

    Raises ModelNotFound, ConfigError for adapter_config.json, CheckpointError for the weights (pickled ones are never
    opened), OptionError where a limit is exceeded.
    """
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    origin = f"{repository.origin}: {prefix}{CONFIG}"
    files = repository.files()
    if prefix + CONFIG not in files:
        raise ModelNotFound(
            f"There is no {CONFIG}: this is no adapter in PEFT's format.",
            where=repository.origin,
            fix="give the folder or repository that PEFT's save_pretrained wrote",
        )
    config = parse_config(read_json(repository.path(prefix + CONFIG)), origin)
    ranks = (config.rank, *(rank for _, rank in config.rank_pattern))
    if max(ranks) > most_rank:
        raise OptionError(f"The adapter has rank {max(ranks)}; the limit is {most_rank}.", where=origin)
    weights, copies = _read_weights(repository, prefix, config, most_bytes)
    return PeftAdapter(config, weights, repository.id, repository.origin, copies)


def _read_weights(
    repository: Repository, prefix: str, config: PeftConfig, most_bytes: int
) -> tuple[Mapping[str, LoraWeights], Mapping[str, torch.Tensor]]:
    name, files = prefix + WEIGHTS, repository.files()
    origin = f"{repository.origin}: {name}"
    if name not in files:
        pickled = f"{prefix}adapter_model.bin" in files
        raise CheckpointError(
            f"The adapter has no {WEIGHTS}"
            + (", only adapter_model.bin: opening that would run code from the file." if pickled else "."),
            where=repository.origin,
            fix=FIX if pickled else did_you_mean(name, files) or "fetch the adapter again",
        )
    if files[name] > most_bytes:
        raise OptionError(f"The adapter has {files[name]} bytes; the limit is {most_bytes}.", where=origin)
    repository.fetch((name,))
    with closing(safetensors_checkpoint.open(repository, (name,))) as checkpoint:
        copied = {match["module"]: match[0] for name in checkpoint.names() if (match := _COPY.fullmatch(name))}
        parts = _sort(sorted(set(checkpoint.names()).difference(copied.values())), origin)
        deadline = time.monotonic() + _PATTERN_SECONDS
        made: dict[str, LoraWeights] = {}
        for module, found in parts.items():
            if time.monotonic() > deadline:
                raise ConfigError("The patterns of the configuration take too long to match.", where=origin)
            tensors = {part: _checked(checkpoint.read(tensor), tensor, origin) for part, tensor in found.items()}
            path, parameter = _target(module, parts, config, origin)
            key = path if parameter in ("", "weight") else f"{path}.{parameter}"
            made[key] = _weights(path, parameter, tensors, config, origin)
            checkpoint.release()
        return made, {path: _checked(checkpoint.read(name), name, origin) for path, name in copied.items()}


def _sort(names: Iterable[str], origin: str) -> dict[str, dict[str, str]]:
    """Tensor names by module and part; every name has its place, or the file is refused."""
    parts: dict[str, dict[str, str]] = {}
    adapters: set[str | None] = set()
    for name in names:
        if "internal_xlora_classifier." in name:
            continue  # adapters from X-LoRA's authors carry a copy of its classifier
        match = _PART.fullmatch(name)
        if _EMBEDDING.fullmatch(name):
            raise CheckpointError(
                f"The adapter changes an embedding ({shown(name)}), which is not supported.",
                where=origin,
                fix="merge it into its model with PEFT (merge_and_unload), and load the result",
            )
        if match is None or match["leaf"] == ".bias" or len(match["module"]) > MOST_PATTERN:
            raise CheckpointError(f"The tensor {shown(name)} is no part of a LoRA adapter.", where=origin)
        adapters.add(match["name"])
        found = parts.setdefault(match["module"], {})
        if match["part"] in found or len(adapters) > 1:
            raise CheckpointError(
                f"The file holds more than one adapter: {shown(name)} is a second one.",
                where=origin,
                fix="save each adapter into a folder of its own",
            )
        found[match["part"]] = name
    for module, found in parts.items():
        for part, other in (("lora_A", "lora_B"), ("lora_B", "lora_A")):
            if part not in found:
                raise CheckpointError(
                    f"{module} has {', '.join(found)} and no {part}, which {other} needs.", where=origin
                )
    if not parts:
        raise CheckpointError("The file has no tensors of an adapter.", where=origin)
    return parts


def _checked(tensor: torch.Tensor, name: str, origin: str) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(f"{shown(name)} has the type {tensor.dtype}; a floating-point one is due.", where=origin)
    if not bool(tensor.float().isfinite().all()):
        raise CheckpointError(
            f"{shown(name)} has values that are not finite.", where=origin, fix="train or fetch the adapter again"
        )
    return tensor.clone()


def _target(module: str, modules: Mapping[str, object], config: PeftConfig, origin: str) -> tuple[str, str]:
    """The module that tensors belong to, and the parameter of it: "" for what a linear layer has.

    PEFT wraps a module once for each of its parameters, and the tensors have the names of the wrappers: the outermost
    that of the module, each further one `.base_layer` more.
    """
    path, depth = module, 0
    while path.endswith(".base_layer"):
        path, depth = path.removesuffix(".base_layer"), depth + 1
    owned = _owned(path, config)
    if not owned or owned == {"weight"}:
        if depth or not (owned or config.is_target(path)):
            raise CheckpointError(f"The configuration does not name {module}, which the file has.", where=origin)
        return path, "weight" if owned else ""
    wrapped = all(path + ".base_layer" * index in modules for index in range(len(owned)))
    if not wrapped or depth >= len(owned) or (len(owned) > 1 and not owned.issubset(_ORDER)):
        raise CheckpointError(
            f"Which parameters of {path} the tensors belong to cannot be told.",
            where=origin,
            fix=f"check target_parameters in {CONFIG} against the weights",
        )
    return path, sorted(owned, key=lambda name: _ORDER.index(name) if name in _ORDER else 0)[len(owned) - 1 - depth]


def _owned(path: str, config: PeftConfig) -> set[str]:
    """The parameters of a module that the configuration targets; a name alone means those of experts."""
    owned = set()
    for target in config.target_parameters:
        head, _, name = target.rpartition(".")
        if path.endswith(f".{head}") or path == head or (not head and path.endswith("experts")):
            owned.add(name)
    return owned


def _weights(
    path: str, parameter: str, tensors: Mapping[str, torch.Tensor], config: PeftConfig, origin: str
) -> LoraWeights:
    a, b, magnitude = tensors["lora_A"], tensors["lora_B"], tensors.get("lora_magnitude_vector")
    key = f"{path}.{parameter}" if parameter else path
    stacked, rank = parameter not in ("", "weight"), config.rank_of(key)
    rows = a.shape[0] if a.ndim == 2 else 0
    fits = b.ndim == 2 and rows == b.shape[1] and (rows and rows % rank == 0 if stacked else rows == rank)
    if not fits or not a.numel() or not b.numel():
        raise CheckpointError(
            f"{key} has A {list(a.shape)} and B {list(b.shape)}; with rank {rank} that is no adapter.",
            where=origin,
            fix=f"check r and rank_pattern in {CONFIG} against the weights",
        )
    if config.dora != (magnitude is not None) or (stacked and magnitude is not None):
        has = "a" if magnitude is not None else "no"
        raise CheckpointError(f"{key} has {has} magnitude, and use_dora is {config.dora}.", where=origin)
    if magnitude is not None and tuple(magnitude.shape) != (b.shape[0],):
        shape = list(magnitude.shape)
        raise CheckpointError(f"{key} has a magnitude of shape {shape} for {b.shape[0]} rows.", where=origin)
    if stacked:
        experts = rows // rank
        a = a.view(experts, rank, a.shape[1])
        b = b.view(b.shape[0], rank, experts).permute(2, 0, 1).contiguous()
    return LoraWeights(a, b, config.scaling(key), magnitude)
