"""An AnyMoE model made of a loaded one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from torch import nn

from bestiary.adapters.anymoe import AnyMoeMLP, AnyMoeModel, Gate, Means
from bestiary.adapters.anymoe_config import AnyMoeConfig, LoraExperts, read_rows
from bestiary.adapters.anymoe_experts import fine_tuned, lora_experts
from bestiary.adapters.anymoe_gates import load_gates, save_gates
from bestiary.adapters.anymoe_training import train_gates
from bestiary.adapters.laying import Base
from bestiary.adapters.peft import read_peft
from bestiary.building import Pack
from bestiary.config import read_json
from bestiary.errors import CheckpointError, OptionError
from bestiary.nn import DecoderLayer
from bestiary.opening import choose_loader
from bestiary.protocols import Repository
from bestiary.records import Progress, resolve
from bestiary.registry import Registry


def make_anymoe(
    base: Base,
    config: AnyMoeConfig,
    open: Callable[[str], Repository],
    registry: Registry,
    encode: Callable[[str], Sequence[int]],
    context_length: int,
    *,
    pack: Pack | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> AnyMoeModel:
    """Experts and gates as a configuration has them: trained and, with `gate_model_id`, saved there, or read from it.

    `open` finds the repository of an id, `encode` makes the tokens of a prompt of the dataset.  Raises whatever
    `attach_anymoe`, `train_gates`, `save_gates`, `load_gates` and `read_rows` do.
    """
    rows = None
    if config.training and config.dataset_json is not None:
        rows = read_rows(Path(config.dataset_json), len(config.model_ids) + 1)
    gates = open(config.gate_model_id) if rows is None and config.gate_model_id is not None else None
    experts = [open(id) for id in config.model_ids]
    model = attach_anymoe(base, config, experts, registry, pack=pack, progress=progress)
    if gates is not None:
        load_gates(model, gates)
    if rows is not None:
        train_gates(model, rows, encode, config, dtype=base.dtype, context_length=context_length, progress=progress)
        if config.gate_model_id is not None:
            save_gates(model, Path(config.gate_model_id))
    return model


def attach_anymoe(
    base: Base,
    config: AnyMoeConfig,
    experts: Sequence[Repository],
    registry: Registry,
    *,
    pack: Pack | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> AnyMoeModel:
    """Put experts into the layers of a loaded model, which from then on runs inside the model that is returned only.

    `experts` are the repositories of `config.model_ids`.  Until the gates are trained or loaded, the model's own blocks
    do all the work.  `pack` makes packed weights of fine-tuned experts, as it did of the model's.  Raises OptionError
    for a configuration that is not of this model, WeightMismatch and CheckpointError for experts that do not fit it.
    """
    if len(experts) != len(config.model_ids):
        raise OptionError(f"{len(experts)} repositories are given for {len(config.model_ids)} model_ids.")
    layers = _layers(base, config)
    blocks = {layer: f"{path}.mlp" for layer, path in layers.items()}
    _check_names(base, config, blocks)
    others = [_expert(base, config, blocks, each, registry, pack, progress) for each in experts]
    means = Means()
    made: dict[int, AnyMoeMLP] = {}
    for index, (layer, path) in enumerate(blocks.items()):
        gate = Gate(config.hidden_size, len(others) + 1).to(base.device)
        own = base.model.get_submodule(path)
        made[layer] = AnyMoeMLP(gate, [own, *(each[layer] for each in others)], means, index)
    for layer, path in layers.items():
        base.model.get_submodule(path).mlp = made[layer]
    return AnyMoeModel(base.model, made, means).eval()  # type: ignore[arg-type]


def _layers(base: Base, config: AnyMoeConfig) -> dict[int, str]:
    """The paths of the chosen layers, by number and in their order."""
    held = {
        int(path.rpartition(".")[2]): path
        for path, module in base.model.named_modules()
        if isinstance(module, DecoderLayer)
    }
    for layer in config.layers:
        if layer not in held:
            raise OptionError(f"layers has {layer}; the model has the layers 0 to {max(held, default=-1)}.")
    if not held:
        raise OptionError(f"{type(base.model).__name__} has no layers with a feed-forward block.")
    chosen = sorted(config.layers or held)
    for layer in chosen:
        if isinstance(base.model.get_submodule(held[layer]).mlp, AnyMoeMLP):
            raise OptionError(f"Layer {layer} has experts of AnyMoE already.", fix="give all model_ids at once")
    shapes = base.plan.shapes(lambda name: base.shapes[name])
    for head in base.heads:
        width = shapes[base.plan.ties.get(f"{head}.weight", f"{head}.weight")][1]
        if width != config.hidden_size:
            raise OptionError(f"hidden_size is {config.hidden_size}; the model's is {width}.")
    return {layer: held[layer] for layer in chosen}


def _check_names(base: Base, config: AnyMoeConfig, blocks: Mapping[int, str]) -> None:
    """`prefix` and `mlp` say where the blocks lie in the checkpoints: it must be where the model's came from."""
    for layer, path in blocks.items():
        due = f"{config.prefix}.{layer}.{config.mlp}."
        sources = [
            source
            for name, recipe in base.plan.recipes.items()
            if name.startswith(f"{path}.")
            for source in recipe.sources()
        ]
        other = next((source for source in sources if not source.startswith(due)), None)
        if other is not None:
            raise OptionError(
                f"By prefix and mlp the block of layer {layer} would be {due}*; the model's own has {other}.",
                fix="take prefix and mlp from the names of the tensors: model.layers.0.mlp.up_proj.weight has the "
                "prefix model.layers and the mlp mlp",
            )


def _expert(
    base: Base,
    config: AnyMoeConfig,
    blocks: Mapping[int, str],
    repository: Repository,
    registry: Registry,
    pack: Pack | None,
    progress: Callable[[Progress], None] | None,
) -> dict[int, nn.Module]:
    if isinstance(config.expert_type, LoraExperts):
        adapter = read_peft(repository)
        return lora_experts(base, blocks, adapter, config.expert_type, config.prefix, config.mlp)
    if "config.json" in repository.files() and read_json(repository.path("config.json")).get("quantization_config"):
        raise CheckpointError(
            "The expert's checkpoint is quantized, which is not read for experts.",
            where=repository.origin,
            fix="give the checkpoint that it was made from; quant=... packs the experts too",
        )
    loader, names = choose_loader(repository, registry)
    repository.fetch(names, progress)
    with closing(resolve(loader.open)(repository, names)) as checkpoint:
        return fine_tuned(base, blocks, checkpoint, pack=pack, progress=progress)
