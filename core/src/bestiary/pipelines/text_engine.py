"""The engine of a text model, with what `load` was told of: adapters, mixtures and drafts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from bestiary.adapters.laying import Base
from bestiary.adapters.peft import read_peft
from bestiary.adapters.residency import Adapters
from bestiary.config import read_json
from bestiary.errors import OptionError, shown
from bestiary.generation.carried import carried_text
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.memory import default_tokens, tokens_in
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.speculation.drafter import Drafter, NGramDrafter
from bestiary.generation.speculation.model import ModelDrafter
from bestiary.generation.tokenizer import Tokenizer
from bestiary.loading import LoadedModel, load_weights
from bestiary.nn import MLP, CausalLM, GatedMLP, LanguageModel, LayerNorm, LayerSpec, Linear, RecurrentSpec, RMSNorm
from bestiary.nn.operations import PLAIN
from bestiary.pipelines.text_options import OWN, TextOptions
from bestiary.placement import free_memory
from bestiary.protocols import Repository


def make_engine(options: TextOptions, loaded: LoadedModel, tokenizer: Tokenizer, end_tokens: frozenset[int]) -> Engine:
    """The engine of a loaded model, with what drafts for it and the adapters that `load` was told of."""
    assert isinstance(loaded.model, CausalLM)
    context = loaded.identified.config.text.get("max_position_embeddings") or 1 << 20
    base = Base(loaded.model, loaded.plan, loaded.shapes, loaded.device, loaded.dtype, loaded.identified.repository.id)
    model = _mixture(options, loaded, base, tokenizer, context)
    engine = Engine(
        model or loaded.model,
        tokenizer,
        device=loaded.device,
        dtype=loaded.dtype,
        end_tokens=end_tokens,
        context_length=context,
        cache_tokens=_cache_tokens(options, loaded, (model or loaded.model).specs, context),
        block_size=options.block_size,
        cache_type=_cache_type(options, loaded),
        limits=Limits(sequences=options.max_requests),
        max_waiting=options.max_waiting,
        adapters=None if model else _make_adapters(options, loaded, base),
        operations=loaded.operations or PLAIN,
        replay=options.replay,
    )
    engine.drafter = _make_drafter(options, engine, loaded)
    return engine


def _cache_tokens(options: TextOptions, loaded: LoadedModel, specs: Sequence[LayerSpec], context: int) -> int:
    if loaded.cache_tokens is not None:
        return loaded.cache_tokens
    free = free_memory(loaded.device)
    if options.cache_bytes is not None:
        return tokens_in(options.cache_bytes, free, specs, context, loaded.dtype, _cache_type(options, loaded))
    return default_tokens(free, specs, context, loaded.dtype, _cache_type(options, loaded))


def _cache_type(options: TextOptions, loaded: LoadedModel) -> str:
    """Packed weights are less exact than half precision, which is read in half the time of float32."""
    fast = loaded.operations is not None and loaded.operations.attend is not None
    if options.cache_type != "auto" or not fast or loaded.dtype != torch.float32:
        return options.cache_type
    packed = any(isinstance(part, Linear) and part.packed is not None for part in loaded.model.modules())
    return "float16" if packed else "auto"


def _mixture(
    options: TextOptions, loaded: LoadedModel, base: Base, tokenizer: Tokenizer, context: int
) -> LanguageModel | None:
    """The model that mixes adapters or experts, where one is asked for."""
    identified, xlora = loaded.identified, None
    if options.xlora is not None:
        xlora = identified.repository_of(options.xlora)
    elif identified.adapter is not None and _is_xlora(identified.adapter):
        xlora = identified.adapter
    if xlora is not None:
        from bestiary.adapters.xlora_attach import attach_xlora
        from bestiary.adapters.xlora_files import read_xlora

        order = options.xlora_order
        return attach_xlora(base, read_xlora(xlora, read_json(Path(order)) if isinstance(order, str) else order))
    if options.anymoe is None:
        return None
    from bestiary.adapters.anymoe_attach import make_anymoe

    open, registry = identified.repository_of, identified.registry
    return make_anymoe(base, options.anymoe, open, registry, tokenizer.encode, context, progress=loaded.progress)


def _is_xlora(adapter: Repository) -> bool:
    from bestiary.adapters.xlora_files import XLORA_CONFIG

    if XLORA_CONFIG in adapter.files():
        return True
    return read_json(adapter.path("adapter_config.json")).get("peft_type") == "XLORA"


def _make_adapters(options: TextOptions, loaded: LoadedModel, base: Base) -> Adapters:
    made = Adapters(base, open=lambda id: read_peft(loaded.identified.repository_of(id)))
    for alias, source in (options.adapters or {}).items():
        made.load(alias, source)
    if loaded.identified.adapter is not None:
        made.load(OWN, read_peft(loaded.identified.adapter))
    return made


def _make_drafter(options: TextOptions, engine: Engine, loaded: LoadedModel) -> Drafter | None:
    """Raises OptionError where a draft model cannot serve, and whatever its load raises."""
    if options.draft is None:
        return None
    if any(isinstance(spec, RecurrentSpec) for spec in engine.model.specs):
        raise OptionError("A model with recurrent layers cannot take drafts back.", fix="load it without draft")
    if options.draft == "ngram":
        return NGramDrafter(options.draft_tokens)
    if not isinstance(options.draft, str):
        raise OptionError(f"draft is {shown(options.draft)}.", fix='give "ngram", or the id of a smaller text model')
    identified = loaded.identified.other(options.draft)
    carried = carried_text(identified)
    spoken = carried.tokenizer if carried else Tokenizer.from_repository(identified.repository)
    if not spoken.same_tokens(engine.tokenizer):
        raise OptionError(
            "The draft model has another vocabulary.",
            where=identified.repository.origin,
            fix="use a smaller model of the same family",
        )
    small = load_weights(identified, identified.registry, device=loaded.device, wished=loaded.wished)
    if not isinstance(small.model, CausalLM):
        raise OptionError(f"{options.draft} is no text model, and cannot draft for one.")
    cache = engine.cache.beside(small.model.specs, small.dtype, small.device)
    return ModelDrafter(small.model, options.draft_tokens, cache, engine.model.vocab_size)


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile fuse what has neither state nor adapters: norms and activations between matrices."""
    for module in model.modules():
        if isinstance(module, GatedMLP | MLP | RMSNorm | LayerNorm):
            module.compile(dynamic=True)
