"""What `bestiary.load` may be told about a text pipeline, and the engine that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from bestiary.adapters.laying import Base
from bestiary.adapters.peft import read_peft
from bestiary.adapters.residency import Adapters
from bestiary.errors import OptionError, shown
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.memory import default_tokens
from bestiary.generation.engine.scheduler import Limits
from bestiary.generation.speculation.drafter import Drafter, NGramDrafter
from bestiary.generation.speculation.model import ModelDrafter
from bestiary.generation.tokenizer import Tokenizer
from bestiary.loading import LoadedModel, load_weights
from bestiary.nn import MLP, CausalLM, GatedMLP, LayerNorm, RecurrentSpec, RMSNorm


OWN = "default"
"""The alias of the adapter whose id was loaded; requests that name none have it."""


@dataclass(frozen=True)
class TextOptions:
    """Raises OptionError for a value out of its bounds."""

    draft: Any = None
    """What guesses tokens ahead, which changes the speed and nothing else: "ngram" (from the text itself), the id of a
    smaller model with the same vocabulary."""
    draft_tokens: int = 4
    """Tokens that are guessed for each step."""
    adapters: Mapping[str, str] | None = None
    """PEFT adapters by the alias under which requests ask for them: an id or a folder each."""
    max_requests: int = 64
    """Requests that run at once; the others wait."""
    max_waiting: int = 1024
    """Requests that may wait; more are refused with Overloaded."""
    compile: bool = False
    """Whether torch.compile compiles the layers, at the first requests."""

    def __post_init__(self) -> None:
        for name, most in (("draft_tokens", 32), ("max_requests", 4096), ("max_waiting", 1 << 20)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise OptionError(f"{name} is {shown(value)}; a whole number from 1 to {most} is due.")
        if not isinstance(self.compile, bool):
            raise OptionError(f"compile is {shown(self.compile)}; True or False is due.")
        named = self.adapters
        if named is not None and not (
            isinstance(named, Mapping)
            and all(isinstance(alias, str) and isinstance(source, str) for alias, source in named.items())
        ):
            raise OptionError("adapters is a mapping of aliases to ids or folders.")


def make_engine(options: TextOptions, loaded: LoadedModel, tokenizer: Tokenizer, end_tokens: frozenset[int]) -> Engine:
    """The engine of a loaded model, with what drafts for it and the adapters that `load` was told of."""
    assert isinstance(loaded.model, CausalLM)
    context = loaded.identified.config.text.get("max_position_embeddings") or 1 << 20
    engine = Engine(
        loaded.model,
        tokenizer,
        device=loaded.device,
        dtype=loaded.dtype,
        end_tokens=end_tokens,
        context_length=context,
        cache_tokens=loaded.cache_tokens or default_tokens(loaded.model.specs, context, loaded.dtype, loaded.device),
        limits=Limits(sequences=options.max_requests),
        max_waiting=options.max_waiting,
        adapters=_make_adapters(options, loaded),
    )
    engine.drafter = _make_drafter(options, engine, loaded)
    return engine


def _make_adapters(options: TextOptions, loaded: LoadedModel) -> Adapters:
    base = Base(loaded.model, loaded.plan, loaded.shapes, loaded.device, loaded.dtype, loaded.identified.repository.id)
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
    if not Tokenizer.from_repository(identified.repository).same_tokens(engine.tokenizer):
        raise OptionError(
            "The draft model has another vocabulary.",
            where=identified.repository.origin,
            fix="use a smaller model of the same family",
        )
    small = load_weights(identified, identified.registry, device=loaded.device)
    if not isinstance(small.model, CausalLM):
        raise OptionError(f"{options.draft} is no text model, and cannot draft for one.")
    cache = engine.cache.beside(small.model.specs, small.dtype, small.device)
    return ModelDrafter(small.model, options.draft_tokens, cache, engine.model.vocab_size)


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile fuse what has neither state nor adapters: norms and activations between matrices."""
    for module in model.modules():
        if isinstance(module, GatedMLP | MLP | RMSNorm | LayerNorm):
            module.compile(dynamic=True)
