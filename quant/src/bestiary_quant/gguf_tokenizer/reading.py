"""From the metadata of a GGUF file to a tokenizer of Bestiary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import tokenizers
from tokenizers import processors

from bestiary.errors import TokenizerError, shown
from bestiary.generation.tokenizer import Tokenizer
from bestiary.generation.tokenizer_files import rust_edge
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.byte_level import build_byte_level, build_spaced
from bestiary_quant.gguf_tokenizer.pieces import build_pieces
from bestiary_quant.gguf_tokenizer.special import added_tokens, find_roles
from bestiary_quant.gguf_tokenizer.splits import SPLITS
from bestiary_quant.gguf_tokenizer.unigram import build_unigram
from bestiary_quant.gguf_tokenizer.vocabulary import PREFIX, Vocabulary, flag, read_vocabulary
from bestiary_quant.gguf_tokenizer.words import build_words, respelled

_BUILDERS: Mapping[str, Callable[[Metadata, Vocabulary], tokenizers.Tokenizer]] = MappingProxyType(
    {
        "gpt2": build_byte_level,
        "llama": build_pieces,
        "gemma4": build_spaced,
        "t5": build_unigram,
        "bert": build_words,
    }
)
_BESIDE = "put tokenizer.json and tokenizer_config.json of the model beside the file"


def has_tokenizer(metadata: Metadata) -> bool:
    """Whether the metadata describe a tokenizer of a kind that is known."""
    return (metadata.text(f"{PREFIX}model") or "none") in _BUILDERS


def read_gguf_tokenizer(metadata: Metadata, vocabulary: Vocabulary | None = None) -> Tokenizer:
    """The tokenizer that the metadata describe, with the ids of the file; `vocabulary` is theirs where it was read.

    Raises TokenizerError where they describe none, one of an unknown kind, or none that is sound; CheckpointError where
    they hold strings that are no text.
    """
    model = metadata.text(f"{PREFIX}model") or "none"
    if model not in _BUILDERS:
        raise _no_tokenizer(model, metadata.origin)
    vocabulary = vocabulary or read_vocabulary(metadata)
    if model == "bert":
        vocabulary = respelled(vocabulary)
    backend = _BUILDERS[model](metadata, vocabulary)
    roles = find_roles(metadata, vocabulary)
    added = added_tokens(metadata, vocabulary, roles.values())
    first, last = _ends(metadata, model, roles)
    with rust_edge("adding its special tokens", metadata.origin):
        backend.add_tokens(added)
        if first is not None or last is not None:
            backend.post_processor = _around(vocabulary, first, last)
    named = {role: vocabulary.tokens[place] for role, place in roles.items()}
    # llama.cpp cleans the spaces of some BPE models up too, which takes some that the model wrote.
    return Tokenizer(backend, special_tokens=named, clean_up=model == "bert", origin=metadata.origin)


def _ends(metadata: Metadata, model: str, roles: Mapping[str, int]) -> tuple[int | None, int | None]:
    """The tokens put before and after a text; what a file does not say depends on its kind, as in llama.cpp."""
    if model == "bert":
        return roles.get("cls_token"), roles.get("sep_token")
    split = SPLITS.get(metadata.text(f"{PREFIX}pre") or "") if model == "gpt2" else None
    before = flag(metadata, "add_bos_token", model == "llama" or (split is not None and split.add_bos))
    after = flag(metadata, "add_eos_token", model == "t5")
    # Files of Gemma 4 that deny it were converted wrongly (https://github.com/ggml-org/llama.cpp/pull/21500).
    before = before or model == "gemma4"
    return roles.get("bos_token") if before else None, roles.get("eos_token") if after else None


def _around(vocabulary: Vocabulary, first: int | None, last: int | None) -> processors.TemplateProcessing:
    # Under names of their own: the library reads ":" and "$" in the names of its templates.
    ends = {name: place for name, place in (("first", first), ("last", last)) if place is not None}
    return processors.TemplateProcessing(
        single=[name for name in ("first", "$A", "last") if name == "$A" or name in ends],
        special_tokens=[
            {"id": name, "ids": [place], "tokens": [vocabulary.tokens[place]]} for name, place in ends.items()
        ],
    )


def _no_tokenizer(model: str, origin: str) -> TokenizerError:
    if model in ("none", "no_vocab"):
        return TokenizerError("The file carries no tokenizer.", where=origin, fix=_BESIDE)
    return TokenizerError(
        f"The file's tokenizer is of a kind that is not known: tokenizer.ggml.model is {shown(model)}; known are "
        f"{', '.join(_BUILDERS)}.",
        where=origin,
        fix=_BESIDE,
    )
