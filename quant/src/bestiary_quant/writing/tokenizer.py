"""The tokenizer of a repository as the metadata of a GGUF file: the opposite of `bestiary_quant.gguf_tokenizer`.

The keys are those that llama.cpp's converter writes (conversion/base.py; gguf-py/gguf/vocab.py, SpecialVocab).  What is
written is read back, and has to give the ids of the original on the texts of `probe`.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from typing import Any

import tokenizers

from bestiary.errors import TokenizerError, shown
from bestiary.generation.carried import CarriedText
from bestiary.generation.template_sources import find_templates
from bestiary.generation.tokenizer_files import read_tokenizer, rust_edge
from bestiary.protocols import Repository
from bestiary_quant.gguf.cursor import Cursor
from bestiary_quant.gguf.metadata import read_metadata
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import ROLES
from bestiary_quant.gguf_tokenizer.templates import KEY
from bestiary_quant.gguf_tokenizer.vocabulary import UNKNOWN
from bestiary_quant.writing import values
from bestiary_quant.writing.cuts import cut_name
from bestiary_quant.writing.merges import merge_pairs, merge_texts, scores_of_merges
from bestiary_quant.writing.probe import PROBES
from bestiary_quant.writing.tokens import Tokens, list_tokens
from bestiary_quant.writing.values import Pairs

log = logging.getLogger("bestiary_quant.writing")

PREFIX = "tokenizer.ggml."
_MARKS = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model")


def tokenizer_pairs(
    repository: Repository, rows: int, config: Mapping[str, Any], carried: CarriedText | None = None
) -> Pairs:
    """Tokenizer and chat templates; `rows` are those of the embedding, `config` has ids of tokens without a text.

    `carried` is what the weight files of some formats have of both; a repository without any tokenizer gives a file
    without one.  Raises TokenizerError for one that GGUF files have no way to say, TemplateError for malformed
    templates.
    """
    templates = template_pairs(find_templates(repository)[0] if carried is None else carried.chat_templates)
    if carried is not None:
        backend, named = carried.tokenizer.backend, carried.tokenizer.special_tokens
    elif any(name in repository.files() for name in _MARKS):
        files = read_tokenizer(repository)
        backend, named = files.backend, files.special_tokens
    else:
        log.warning("%s has no tokenizer; the file will have none either", repository.origin)
        return {f"{PREFIX}model": values.text("none"), **templates}
    with rust_edge("being taken apart", repository.origin):
        state: dict[str, Any] = json.loads(backend.to_str())
    tokens = list_tokens(state, rows, repository.origin)
    pairs = _model_pairs(state, tokens, backend, repository.origin)
    pairs.update(_role_pairs(named, tokens, config))
    pairs.update(_end_pairs(backend, named))
    _check(pairs, backend, repository.origin)
    return {**pairs, **templates}


def template_pairs(found: Mapping[str, str]) -> Pairs:
    """Chat templates by name."""
    others = sorted(name for name in found if name != "default")
    pairs = {f"{KEY}.{''.join(c if c.isalnum() else '_' for c in name)}": values.text(found[name]) for name in others}
    if others:
        pairs["tokenizer.chat_templates"] = values.texts(others)
    if "default" in found:
        pairs[KEY] = values.text(found["default"])
    return pairs


def _model_pairs(state: Mapping[str, Any], tokens: Tokens, backend: tokenizers.Tokenizer, origin: str) -> Pairs:
    model = state["model"]
    parts = json.dumps([state.get("pre_tokenizer"), state.get("normalizer")])
    if model["type"] == "Unigram":
        own = _unigram(state, tokens, parts)
    elif model["type"] == "BPE" and '"ByteLevel"' in parts:
        merges = merge_texts(merge_pairs(model["merges"], origin), origin)
        own = {
            "model": values.text("gpt2"),
            "pre": values.text(cut_name(state, backend, origin)),
            "merges": values.texts(merges),
        }
    elif model["type"] == "BPE" and model.get("byte_fallback"):
        scores = scores_of_merges(tokens, merge_pairs(model["merges"], origin))
        own = {"model": values.text("llama"), "pre": values.text("default"), "scores": values.numbers(scores)}
        own["add_space_prefix"] = values.flag(_prefixes(parts))
    else:
        raise TokenizerError(
            f"The tokenizer is of a kind that GGUF files of language models do not have ({shown(model['type'])}).",
            where=origin,
        )
    first = {"model": own.pop("model"), "pre": own.pop("pre", None)}
    named = {name: value for name, value in first.items() if value is not None}
    named |= {"tokens": values.texts(tokens.texts), "token_type": values.whole_numbers(tokens.types), **own}
    return {PREFIX + name: value for name, value in named.items()}


def _unigram(state: Mapping[str, Any], tokens: Tokens, parts: str) -> dict[str, bytes]:
    stated = dict(state["model"]["vocab"])
    scores = [float(stated.get(text, -10000.0)) for text in tokens.texts]
    own = {"model": values.text("t5"), "scores": values.numbers(scores)}
    own["add_space_prefix"] = values.flag(_prefixes(parts))
    own["remove_extra_whitespaces"] = values.flag('"WhitespaceSplit"' in parts or " {2,}" in parts)
    charsmap = next(_found(state.get("normalizer"), "precompiled_charsmap"), None)
    if charsmap:
        own["precompiled_charsmap"] = values.raw_bytes(base64.b64decode(charsmap))
    return own


def _found(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        for inner in value.values():
            yield from _found(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(inner, key)


def _prefixes(parts: str) -> bool:
    """Whether a space is put before a text."""
    return any(mark in parts for mark in ('"Prepend"', '"always"', '"first"', '"add_prefix_space": true'))


def _role_pairs(named: Mapping[str, str], tokens: Tokens, config: Mapping[str, Any]) -> Pairs:
    """The ids of tokens with a role, of what the tokenizer calls so, else of the configuration."""
    pairs: Pairs = {}
    for role, key in ROLES.items():
        place = tokens.ids.get(named[role]) if role in named else config.get(f"{role}_id")
        place = place[0] if isinstance(place, list) and place else place
        if isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(tokens.texts):
            pairs[PREFIX + key] = values.u32(place)
    unknown = next((place for place, kind in enumerate(tokens.types) if kind == UNKNOWN), None)
    if unknown is not None:
        pairs.setdefault(f"{PREFIX}unknown_token_id", values.u32(unknown))
    return pairs


def _end_pairs(backend: tokenizers.Tokenizer, named: Mapping[str, str]) -> Pairs:
    """Whether the tokenizer puts its first and its last token around a text."""
    with rust_edge("encoding a letter"):
        whole, bare = backend.encode("a").ids, backend.encode("a", add_special_tokens=False).ids
    extra = len(whole) - len(bare)
    before = next((n for n in range(extra + 1) if whole[n : n + len(bare)] == bare), 0)
    ids = {role: backend.token_to_id(text) for role, text in named.items()}
    pairs = {}
    pairs[f"{PREFIX}add_bos_token"] = values.flag(before > 0 and whole[0] == ids.get("bos_token"))
    pairs[f"{PREFIX}add_eos_token"] = values.flag(extra > before and whole[-1] == ids.get("eos_token"))
    return pairs


def _check(pairs: Pairs, original: tokenizers.Tokenizer, origin: str) -> None:
    """Raises TokenizerError where the tokenizer that a reader makes of the pairs gives other ids."""
    data = values.encoded(pairs)
    made = read_gguf_tokenizer(read_metadata(Cursor(data, len(data), origin), len(pairs)))
    for probe in PROBES:
        with rust_edge("encoding a text", origin):
            due = original.encode(probe, add_special_tokens=False).ids
        if made.encode(probe, add_special_tokens=False) != due:
            raise TokenizerError(
                f"The tokenizer cannot be written into a GGUF file: read back, it cuts {shown(probe)} differently.",
                where=origin,
                fix="write the model as safetensors, with --to safetensors:SCHEME",
            )
    log.debug("%s: the tokenizer gives the same ids when it is read back", origin)
