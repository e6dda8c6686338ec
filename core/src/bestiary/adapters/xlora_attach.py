"""An X-LoRA model laid on its base: which layer has which scalings, and the mixtures in the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bestiary.adapters.laying import Base, lay
from bestiary.adapters.names import Names
from bestiary.adapters.step import Layers, Part
from bestiary.adapters.xlora import ExpertMixtures, Mixture, Scalings, Share, XLoraModel
from bestiary.adapters.xlora_classifier import XLoraClassifier
from bestiary.adapters.xlora_files import XLora
from bestiary.errors import OptionError, WeightMismatch, shown
from bestiary.nn import Experts, Linear

Place = tuple[str, int | None, int]
"""A parameter, an expert in it, and the first of the rows that a change is of."""


def attach_xlora(base: Base, xlora: XLora, *, non_granular_index: int | None = None) -> XLoraModel:
    """Put the mixtures into the layers of a loaded model, and return the model that makes their scalings.

    By itself the base model runs as before.  Raises WeightMismatch where an adapter or the classifier does not fit it,
    OptionError where its layers are adapted already, and for `non_granular_index` (mistral.rs's
    `tgt_non_granular_index`).
    """
    if non_granular_index is not None:
        raise OptionError(
            "Scalings that freeze after some tokens of an answer (tgt_non_granular_index) are not served: what the "
            "cache holds of a token would then depend on where the prompt ended, and prefixes are shared by their "
            "tokens alone.",
            fix="leave it out: every token has scalings of its own, as in training",
        )
    names, shapes = Names(base.plan, base.shapes), base.plan.shapes(lambda name: base.shapes[name])
    laid = [lay(adapter, base, names) for adapter in xlora.adapters]
    _check_heads(base, xlora, shapes, {path for layers in laid for path in layers.linears})
    numbers = _numbers(base, xlora, names) if xlora.config.layerwise else None
    scalings = Scalings()
    linears: dict[Linear, Mixture] = {}
    stacks: dict[Experts, dict[tuple[str, int], Mixture]] = {}
    for (path, name, expert), shares in _shares(laid, numbers).items():
        module = base.model.get_submodule(path)
        if isinstance(module, Linear | Experts) and module.adapter is not None:
            raise OptionError(
                f"{path} of the model is adapted already.", fix="attach X-LoRA to a model without adapters"
            )
        out = shapes[f"{path}.{name}"][-2]
        mixture = Mixture(scalings, path, shares, out, xlora.config.weight)
        if isinstance(module, Linear):
            linears[module] = mixture
        elif isinstance(module, Experts) and expert is not None:
            stacks.setdefault(module, {})[name, expert] = mixture
    for linear, mixture in linears.items():
        linear.adapter = mixture
    for experts, mixtures in stacks.items():
        experts.adapter = ExpertMixtures(mixtures)
    return XLoraModel(base.model, XLoraClassifier(xlora).to(base.device), scalings).eval()  # type: ignore[arg-type]


def _shares(
    laid: Sequence[Layers], numbers: Mapping[Place, int] | None
) -> Mapping[tuple[str, str, int | None], Sequence[Share]]:
    """What the adapters change, by layer, its parameter, and the expert in that; without `numbers` all is layer 0."""
    made: dict[tuple[str, str, int | None], list[Share]] = {}
    for adapter, layers in enumerate(laid):
        found: list[tuple[str, str, int | None, Sequence[Part]]] = [
            (path, "weight", None, parts) for path, parts in layers.linears.items()
        ]
        for path, stack in layers.experts.items():
            found += [(path, name, expert, parts) for (name, expert), parts in stack.items()]
        for path, name, expert, parts in found:
            for part in parts:
                number = 0 if numbers is None else numbers[f"{path}.{name}", expert, part.start]
                made.setdefault((path, name, expert), []).append(Share(adapter, number, part))
    return made


def _check_heads(base: Base, xlora: XLora, shapes: Mapping[str, tuple[int, ...]], adapted: set[str]) -> None:
    for head in base.heads:
        if head in adapted:
            raise WeightMismatch(
                f"An adapter changes {head}, which sees the wanted rows only and is not mixed.", where=xlora.origin
            )
        width = shapes[base.plan.ties.get(f"{head}.weight", f"{head}.weight")][1]
        if width != xlora.config.hidden_size:
            raise WeightMismatch(
                f"The classifier reads states of {xlora.config.hidden_size} numbers; the model's have {width}.",
                where=xlora.origin,
            )


def _numbers(base: Base, xlora: XLora, names: Names) -> Mapping[Place, int]:
    """Which of the classifier's layers is each changed place's: as the ordering says, or in the order of the model.

    PEFT numbers the modules that any adapter changes in the order in which the model holds them; for layers of equal
    names it is the same here.  Where one module there is several here, or a part of one, only an ordering can tell.
    """
    paths: dict[Place, str] = {}
    for adapter in xlora.adapters:
        for path, lora in adapter.weights.items():
            for change in names.changes(path, lora, adapter.config.version):
                paths[change.parameter, change.expert, change.start] = path
    if xlora.layers is not None:
        numbers = {}
        for place, path in paths.items():
            number = xlora.layers.get(path)
            if number is None or number >= xlora.layer_count:
                raise WeightMismatch(
                    f"The ordering gives {shown(path)} the number {number}; "
                    f"the classifier has scalings for {xlora.layer_count} layers.",
                    where=xlora.origin,
                )
            numbers[place] = number
        return numbers
    whole = {parameter for parameter, expert, start in paths if expert is None and start == 0}
    if not len(whole) == len(paths) == len(set(paths.values())):
        raise WeightMismatch(
            "The adapters' modules are not those of this model one by one, so that the classifier's layers cannot be "
            "told apart.",
            where=xlora.origin,
            fix='give an ordering with "layers": the number of each path',
        )
    if len(whole) != xlora.layer_count:
        raise WeightMismatch(
            f"The adapters change {len(whole)} layers; the classifier has scalings for {xlora.layer_count}.",
            where=xlora.origin,
            fix='give an ordering with "layers": the number of each path',
        )
    held = [f"{path}.weight" for path, _ in base.model.named_modules()]
    ordered = [parameter for parameter in held if parameter in whole]
    return {(parameter, None, 0): number for number, parameter in enumerate(ordered)}
