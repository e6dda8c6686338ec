"""LoRA adapters of image models, in the key styles in which they are published, to the parameters of our networks.

    diffusers   transformer.transformer_blocks.0.attn.to_q.lora_A.weight
    PEFT        base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight, beside adapter_config.json
    ComfyUI     diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight, lora_down and lora_up as well
    Kohya       lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight, lora_te1_... for the first text encoder

A path names a layer as one of the layouts has it that the architecture's weight rules read; where a rule splits or
moves the rows of a weight, those of B go with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import torch

from bestiary.adapters.peft import CONFIG, LoraWeights, read_peft
from bestiary.adapters.placing import place
from bestiary.building import build_empty
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.checkpoints.refuse import refuse
from bestiary.errors import CheckpointError, WeightMismatch, shown
from bestiary.identified import Identified
from bestiary.nearest import did_you_mean
from bestiary.nn import Linear
from bestiary.protocols import Repository
from bestiary.weights import plan

MOST_RANK = 1024
MOST_BYTES = 8 << 30
_PREFERRED = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_KEY = re.compile(
    r"(?P<path>.+?)\.(?:(?P<down>lora_A|lora_down|lora\.down)|(?P<up>lora_B|lora_up|lora\.up))(?:\.[^.]+)?\.weight"
    r"|(?P<scaled>.+)\.alpha"
)
_DOTTED = re.compile(r"(?:base_model\.model\.)?(?:(?P<part>transformer|text_encoder|text_encoder_2)\.)?(?P<path>.+)")
_COMFY = ("diffusion_model.", "model.diffusion_model.")
_FLAT = {
    "lora_unet_": "transformer",
    "lora_te1_": "text_encoder",
    "lora_te_": "text_encoder",
    "lora_te3_": "text_encoder_2",
}


@dataclass(frozen=True)
class LoraPart:
    """A change B A of some rows of a linear layer."""

    start: int
    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[rows, rank], times its scaling."""


Lora = Mapping[str, Mapping[str, tuple[LoraPart, ...]]]
"""By part of a pipeline, and there by the path of the layer."""


def read_lora(repository: Repository, networks: Mapping[str, Identified]) -> Lora:
    """Fetch, read and check an adapter against the networks of a pipeline.

    Raises CheckpointError for files that are no LoRA, WeightMismatch, with everything that does not fit, for one that
    belongs to another model.
    """
    if CONFIG in repository.files():
        adapter = read_peft(repository, most_rank=MOST_RANK)
        found = {("transformer", path.removeprefix("transformer.")): lora for path, lora in adapter.weights.items()}
        return _laid(found, networks, repository.origin)
    return _laid(_read(repository), networks, repository.origin)


def _read(repository: Repository) -> dict[tuple[str, str], LoraWeights]:
    name = _file(repository)
    repository.fetch((name,))
    origin = f"{repository.origin}: {name}"
    with closing(safetensors_checkpoint.open(repository, (name,))) as checkpoint:
        pairs: dict[tuple[str, str], dict[str, str]] = {}
        for key in checkpoint.names():
            kind, path = _kind(key, origin)
            pairs.setdefault(path, {})[kind] = key
        if not pairs:
            raise CheckpointError("The file has no tensors.", where=origin)
        stated = _alphas(checkpoint.metadata)
        return {path: _weights(path, found, checkpoint, stated, origin) for path, found in pairs.items()}


def _file(repository: Repository) -> str:
    names = [name for name in repository.files() if name.endswith(".safetensors") and "/" not in name]
    chosen = next((name for name in _PREFERRED if name in names), None) or (names[0] if len(names) == 1 else None)
    if chosen is None:
        if not names:
            refuse(repository.files(), repository.origin)
        raise CheckpointError(
            f"Which file is the adapter cannot be told: there are {len(names)} .safetensors files.",
            where=repository.origin,
            fix="give the path of the file" if names else "give a LoRA in safetensors",
        )
    if repository.files()[chosen] > MOST_BYTES:
        raise CheckpointError(f"The adapter has more than {MOST_BYTES} bytes.", where=repository.origin)
    return chosen


def _kind(key: str, origin: str) -> tuple[str, tuple[str, str]]:
    match = _KEY.fullmatch(key)
    if match is None:
        raise CheckpointError(
            f"The tensor {shown(key)} is no part of a LoRA that is read here.",
            where=origin,
            fix="of adapters, low-rank changes of linear layers are read; merge others into their model",
        )
    kind = "a" if match["down"] else "b" if match["up"] else "alpha"
    path = match["path"] or match["scaled"]
    for prefix, part in _FLAT.items():
        if path.startswith(prefix):
            return kind, (part, path.removeprefix(prefix))
    for prefix in _COMFY:
        if path.startswith(prefix):
            return kind, ("transformer", path.removeprefix(prefix))
    dotted = _DOTTED.fullmatch(path)
    assert dotted is not None
    return kind, (dotted["part"] or "transformer", dotted["path"])


def _alphas(metadata: Mapping[str, str]) -> Mapping[str, float]:
    """By part, the scaling that diffusers writes into the file: alpha over rank."""
    try:
        stated = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        return {
            key.removesuffix(".lora_alpha"): float(alpha) / float(stated[key.removesuffix("lora_alpha") + "r"])
            for key, alpha in stated.items()
            if key.endswith(".lora_alpha")
        }
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, RecursionError):
        return {}


def _weights(
    path: tuple[str, str],
    found: Mapping[str, str],
    checkpoint: safetensors_checkpoint.SafetensorsCheckpoint,
    stated: Mapping[str, float],
    origin: str,
) -> LoraWeights:
    if missing := {"a", "b"} - found.keys():
        which = "down (lora_A)" if "a" in missing else "up (lora_B)"
        raise CheckpointError(f"{path[1]} of the adapter has no {which} matrix.", where=origin)
    a, b = (checkpoint.read(found[kind]).clone() for kind in ("a", "b"))
    # Some are written as convolutions of one pixel.
    a, b = (each.flatten(1) if each.ndim == 4 and each.shape[2:] == (1, 1) else each for each in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not 1 <= a.shape[0] <= MOST_RANK:
        raise CheckpointError(f"{path[1]} has A {list(a.shape)} and B {list(b.shape)}: no LoRA.", where=origin)
    scaling = stated.get(path[0], 1.0)
    if "alpha" in found:
        alpha = checkpoint.read(found["alpha"])
        if alpha.numel() != 1:
            raise CheckpointError(f"The alpha of {path[1]} has {alpha.numel()} numbers.", where=origin)
        scaling = float(alpha) / a.shape[0]
    if (
        not all(each.is_floating_point() and bool(each.float().isfinite().all()) for each in (a, b))
        or scaling != scaling
    ):
        raise CheckpointError(f"{path[1]} has values that are not finite numbers.", where=origin)
    return LoraWeights(a, b, scaling)


# From paths to layers


def _laid(
    found: Mapping[tuple[str, str], LoraWeights], networks: Mapping[str, Identified], origin: str
) -> dict[str, dict[str, tuple[LoraPart, ...]]]:
    names = {part: _Names(network) for part, network in networks.items() if any(each == part for each, _ in found)}
    made: dict[str, dict[str, tuple[LoraPart, ...]]] = {}
    faults: list[str] = []
    for (part, path), lora in found.items():
        if part not in names:
            faults.append(f"{part}: the model has no such part, which {path} changes")
            continue
        try:
            for layer, change in names[part].changes(path, lora):
                layers = made.setdefault(part, {})
                layers[layer] = (*layers.get(layer, ()), change)
        except WeightMismatch as error:
            faults.append(f"{part}: {error.what}")
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise WeightMismatch(
            "The adapter does not fit the model:\n  " + "\n  ".join(faults[:20]) + more,
            where=origin,
            fix="use it with the model that it was trained for",
        )
    return made


class _Names:
    """The layers of one network, by all names that its weight rules know."""

    def __init__(self, network: Identified) -> None:
        self._architecture, self._config = network.architecture, network.config
        empty = build_empty(network.architecture, network.config)
        self._shapes = {
            path: (module.weight.shape[0], module.weight.shape[1])
            for path, module in empty.named_modules()
            if isinstance(module, Linear) and module.weight is not None
        }
        self._flat: dict[str, str] = {path.replace(".", "_"): path for path in self._shapes}
        self._patterns = list(_flat_patterns(source for rule in self._architecture.weights for source in rule.sources))

    def changes(self, path: str, lora: LoraWeights) -> list[tuple[str, LoraPart]]:
        """The layers that a path means, each with its rows of the change.  Raises WeightMismatch."""
        dotted = path if "." in path else self._dotted(path)
        source = f"{dotted}.weight"
        made = plan(self._architecture.weights, [source], self._config)
        b = lora.b.float() * lora.scaling
        shapes = {source: (b.shape[0], lora.a.shape[1])}
        changes: list[tuple[str, LoraPart]] = []
        for name, recipe in made.recipes.items():
            layer = name.removesuffix(".weight")
            if layer not in self._shapes:
                near = did_you_mean(layer, self._shapes)
                raise WeightMismatch(f"there is no layer {path}. {near}".rstrip())
            rows, columns = self._shapes[layer]
            for part in place(recipe, shapes, source, b):
                if part.b.shape[0] != rows or lora.a.shape[1] != columns:
                    given = [part.b.shape[0], lora.a.shape[1]]
                    raise WeightMismatch(f"{path} is for a weight {given}; {layer} has {[rows, columns]}")
                changes.append((layer, LoraPart(part.start, lora.a, part.b)))
        if not changes:
            raise WeightMismatch(f"{path} is a part of the model that is not loaded")
        return changes

    def _dotted(self, flat: str) -> str:
        """The path that Kohya wrote with underscores in place of dots."""
        if flat in self._flat:
            return self._flat[flat]
        for pattern, parts in self._patterns:
            if match := pattern.fullmatch(flat):
                numbers: Iterator[str] = iter(match.groups())
                return ".".join([str(next(numbers)) if part == "*" else part for part in parts])
        raise WeightMismatch(f"there is no layer {flat}")


def _flat_patterns(sources: Iterable[str]) -> Iterator[tuple[re.Pattern[str], list[str]]]:
    for source in sources:
        if source.endswith(".weight") and "**" not in source:
            parts = source.removesuffix(".weight").split(".")
            yield re.compile("_".join("([0-9]+)" if part == "*" else re.escape(part) for part in parts)), parts
