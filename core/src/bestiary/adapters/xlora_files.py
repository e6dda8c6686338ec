"""X-LoRA models in files: the configuration, the classifier, and the adapters that it mixes.

Two forms.  The authors' library and mistral.rs have xlora_config.json and xlora_classifier.safetensors (tensors
`inner.N` and `last`); PEFT has adapter_config.json and adapter_model.safetensors (tensors `layers.N`).  The adapters
lie in a folder each, in either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import torch

from bestiary.adapters.peft import CONFIG, MOST_BYTES, MOST_RANK, WEIGHTS, PeftAdapter, read_peft
from bestiary.adapters.xlora_config import XLoraConfig, parse_order, parse_xlora_config
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.config import read_json
from bestiary.errors import CheckpointError, ConfigError, ModelNotFound, OptionError, shown
from bestiary.nearest import did_you_mean
from bestiary.protocols import Repository

XLORA_CONFIG, XLORA_WEIGHTS = "xlora_config.json", "xlora_classifier.safetensors"
_TENSOR = re.compile(
    r"(?:.*\binternal_xlora_classifier\.)?(?:layers\.(?P<peft>[0-9]{1,4})|inner\.(?P<inner>[0-9]{1,4})|last)"
    r"\.(?P<leaf>weight|bias)"
)


@dataclass(frozen=True)
class Affine:
    """A linear layer of the classifier."""

    weight: torch.Tensor
    """[out, in] float32"""
    bias: torch.Tensor | None
    """[out] float32"""


@dataclass(frozen=True)
class XLora:
    """An X-LoRA model that was read and checked in itself; whether it fits a model shows when it is attached."""

    config: XLoraConfig
    classifier: tuple[Affine, ...]
    adapters: tuple[PeftAdapter, ...]
    layers: Mapping[str, int] | None = None
    """The number of each adapted layer's scalings, by its path; None: in the order of the model."""
    origin: str = ""

    @property
    def layer_count(self) -> int:
        """For how many layers the classifier makes scalings; 1 where all share them."""
        return len(self.classifier[-1].weight) // len(self.adapters)


def read_xlora(
    repository: Repository,
    order: Mapping[str, Any] | None = None,
    *,
    most_rank: int = MOST_RANK,
    most_bytes: int = MOST_BYTES,
) -> XLora:
    """Fetch, read and check an X-LoRA model; `order` is the content of a mistral.rs ordering file.

    `most_rank` is of each adapter, `most_bytes` of all weights together.  Raises ModelNotFound, ConfigError for the
    configuration or the ordering, CheckpointError for weights, OptionError where a limit is exceeded.
    """
    ordering = parse_order(order or {})
    folder, config_name, weights_name = _find(repository)
    origin = f"{repository.origin}: {config_name}"
    config = parse_xlora_config(read_json(repository.path(config_name)), origin)
    if ordering.base and config.base and ordering.base != config.base:
        raise ConfigError(
            f"The ordering is for {shown(ordering.base)}, the X-LoRA model for {shown(config.base)}.", where=origin
        )
    folders = [
        _adapter_folder(repository, folder, name, path)
        for name, path in ([(name, name) for name in ordering.adapters] if ordering.adapters else config.adapters)
    ]
    if not folders:
        raise ConfigError('The configuration names no "adapters".', where=origin, fix="give an ordering that does")
    sizes = repository.files()
    total = sizes[weights_name] + sum(sizes.get(f"{name}/{WEIGHTS}", 0) for name in folders)
    if total > most_bytes:
        raise OptionError(f"The X-LoRA model has {total} bytes; the limit is {most_bytes}.", where=origin)
    classifier, peft = _read_classifier(repository, weights_name, config, len(folders))
    adapters = tuple(read_peft(repository, name, most_rank=most_rank, most_bytes=most_bytes) for name in folders)
    for name, adapter in zip(folders, adapters, strict=True):
        if adapter.config.dora:
            raise ConfigError("The adapter is a DoRA; X-LoRA mixes plain LoRA only.", where=f"{origin}, {name}")
    if config.top_k is not None and config.top_k > len(adapters):
        raise ConfigError(f'"top_k_lora" is {config.top_k}, of {len(adapters)} adapters.', where=origin)
    return XLora(replace(config, relu=config.relu or peft), classifier, adapters, ordering.layers, repository.origin)


def _find(repository: Repository) -> tuple[str, str, str]:
    """The folder, configuration and classifier of the one X-LoRA model in a repository."""
    files = repository.files()
    found = [name for name in files if PurePosixPath(name).name == XLORA_CONFIG]
    if XLORA_CONFIG in found:
        found = [XLORA_CONFIG]
    if len(found) > 1:
        names = ", ".join(map(shown, found[:5]))
        raise ConfigError(f"There is more than one {XLORA_CONFIG}: {names}.", where=repository.origin)
    if found:
        folder = found[0].removesuffix(XLORA_CONFIG)
        return folder, found[0], _existing(folder + XLORA_WEIGHTS, files, repository.origin)
    if CONFIG in files and read_json(repository.path(CONFIG)).get("peft_type") == "XLORA":
        return "", CONFIG, _existing(WEIGHTS, files, repository.origin)
    raise ModelNotFound(
        f"There is no {XLORA_CONFIG}, nor an {CONFIG} of an X-LoRA model.",
        where=repository.origin,
        fix=did_you_mean(XLORA_CONFIG, files) or "give the folder or repository of an X-LoRA model",
    )


def _existing(name: str, files: Iterable[str], origin: str) -> str:
    if name not in files:
        fix = did_you_mean(name, files) or "fetch it again; pickled classifiers are not opened"
        raise CheckpointError(f"The X-LoRA model has no {name}.", where=origin, fix=fix)
    return name


def _adapter_folder(repository: Repository, folder: str, name: str, path: str) -> str:
    """The folder of an adapter, by its name, or else by the last part of the path that it was trained from."""
    configs = [file.removesuffix(f"/{CONFIG}") for file in repository.files() if file.endswith(f"/{CONFIG}")]
    for wanted in dict.fromkeys((name, PurePosixPath(path.replace("\\", "/")).name)):
        found = [config for config in configs if config in (wanted, folder + wanted)]
        found = found or [config for config in configs if config.rpartition("/")[2] == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(map(shown, found[:5]))
            raise ConfigError(f"The adapter {shown(name)} lies in several folders: {places}.", where=repository.origin)
    near = did_you_mean(name, [config.rpartition("/")[2] for config in configs])
    raise ConfigError(
        f"There is no adapter {shown(name)} here.",
        where=repository.origin,
        fix=near or "put each adapter into a folder of its name, or give an ordering with the names of the folders",
    )


def _read_classifier(
    repository: Repository, name: str, config: XLoraConfig, adapters: int
) -> tuple[tuple[Affine, ...], bool]:
    """Its layers in their order, and whether PEFT wrote them."""
    origin = f"{repository.origin}: {name}"
    repository.fetch((name,))
    layers: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
    peft = False
    with closing(safetensors_checkpoint.open(repository, (name,))) as checkpoint:
        for tensor in checkpoint.names():
            match = _TENSOR.fullmatch(tensor)
            if match is None:
                raise CheckpointError(f"{shown(tensor)} is no part of an X-LoRA classifier.", where=origin)
            number = match["peft"] or match["inner"]
            peft = peft or match["peft"] is not None
            part = layers.setdefault((0, int(number)) if number else (1, 0), {})
            if match["leaf"] in part:
                raise CheckpointError(f"{shown(tensor)} is a second classifier's.", where=origin)
            part[match["leaf"]] = _checked(checkpoint.read(tensor), tensor, origin)
            checkpoint.release()
    if len(layers) != config.depth:
        raise CheckpointError(
            f'The classifier has {len(layers)} layers; "xlora_depth" is {config.depth}.',
            where=origin,
            fix="save it again: PEFT 0.21 leaves out layers whose number is the name of an adapter" if peft else None,
        )
    made = tuple(_affine(layers[place], origin) for place in sorted(layers))
    _check_widths(made, config, adapters, origin)
    return made, peft


def _checked(tensor: torch.Tensor, name: str, origin: str) -> torch.Tensor:
    if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
        raise CheckpointError(f"{shown(name)} is not of finite floating-point numbers.", where=origin)
    return tensor.to(torch.float32, copy=True)


def _affine(part: Mapping[str, torch.Tensor], origin: str) -> Affine:
    weight, bias = part.get("weight"), part.get("bias")
    if (
        weight is None
        or weight.ndim != 2
        or not weight.numel()
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        shapes = {leaf: list(tensor.shape) for leaf, tensor in part.items()}
        raise CheckpointError(f"A layer of the classifier has the shapes {shapes}.", where=origin)
    return Affine(weight, bias)


def _check_widths(layers: tuple[Affine, ...], config: XLoraConfig, adapters: int, origin: str) -> None:
    width = config.hidden_size
    for layer in layers:
        if layer.weight.shape[1] != width:
            raise CheckpointError(
                f"A layer of the classifier reads {layer.weight.shape[1]} numbers and is given {width}.", where=origin
            )
        width = layer.weight.shape[0]
    if width % adapters if config.layerwise else width != adapters:
        raise CheckpointError(
            f"The classifier makes {width} scalings for {adapters} adapters"
            f"{' in each layer' if config.layerwise else ''}.",
            where=origin,
            fix='check "adapters" and "layerwise_scalings" of the configuration, and the "order"',
        )
