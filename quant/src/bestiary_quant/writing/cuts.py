"""How a tokenizer.json cuts a text before it merges, found among the ways that GGUF has names for.

The expressions are compared with those of `bestiary_quant.gguf_tokenizer.splits`; where none is the same, as authors
spell one way differently, a text that the ways cut differently decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer_files import rust_edge
from bestiary_quant.gguf_tokenizer.splits import SPLITS, Split
from bestiary_quant.writing.probe import PROBES

_GPT2 = SPLITS["gpt-2"].patterns[0]
_PREFERRED = ("default", "gpt-2", "llama-bpe", "qwen2", "starcoder", "falcon", "gpt-4o", "deepseek-llm", "deepseek-v3")
"""Of several names for one way those that llama.cpp's converter gives to the models that had it first."""


def cut_name(state: Mapping[str, Any], backend: tokenizers.Tokenizer, origin: str) -> str:
    """`tokenizer.ggml.pre` of a byte-level tokenizer.  Raises TokenizerError where no name means what it does."""
    steps = list(_steps(state.get("pre_tokenizer")))
    if any(step.get("add_prefix_space") for step in steps if step["type"] == "ByteLevel"):
        raise _unknown("puts a space before a text", origin)
    patterns = tuple(pattern for step in steps for pattern in _pattern(step))
    forms = {step["type"] for step in _steps(state.get("normalizer"), "normalizers")}
    if forms - {"NFC"}:
        raise _unknown(f"changes a text first ({', '.join(sorted(forms - {'NFC'}))})", origin)
    wanted = Split(patterns, "NFC" in forms, bool(state["model"].get("ignore_merges")))
    same = [name for name, split in SPLITS.items() if replace(split, add_bos=False) == wanted]
    if not same:
        alike = {key: split for key, split in SPLITS.items() if split.composed == wanted.composed}
        cuts = _cut(backend)
        same = [name for name, split in alike.items() if split.whole == wanted.whole and _cut(_only(split)) == cuts]
    if not same:
        raise _unknown("cuts a text by expressions that no name stands for", origin)
    return next((name for name in _PREFERRED if name in same), same[0])


def _steps(step: Mapping[str, Any] | None, inner: str = "pretokenizers") -> Iterator[Mapping[str, Any]]:
    if step is None:
        return
    if step["type"] == "Sequence":
        for part in step[inner]:
            yield from _steps(part, inner)
    else:
        yield step


def _pattern(step: Mapping[str, Any]) -> list[str]:
    """The expressions whose matches a step isolates."""
    match step["type"]:
        case "Split":
            return [str(step["pattern"].get("Regex", step["pattern"]))]
        case "ByteLevel":
            return [_GPT2] if step.get("use_regex", True) else []
        case "Digits":
            return [r"\p{N}" if step.get("individual_digits") else r"\p{N}+"]
        case kind:
            return [kind]  # which is no expression of any way


def _cut(backend: tokenizers.Tokenizer) -> list[list[str]]:
    """Where the probes are cut."""
    made = []
    for text in PROBES:
        with rust_edge("cutting a text"):
            form = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
            cuts = [] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(form)
        made.append([part for part, _ in cuts])
    return made


def _only(split: Split) -> tokenizers.Tokenizer:
    """A tokenizer that does nothing but cut."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    if split.composed:
        backend.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, level])
    return backend


def _unknown(what: str, origin: str) -> TokenizerError:
    return TokenizerError(
        f"The tokenizer cannot be written into a GGUF file: it {what}.",
        where=origin,
        fix="write the model as safetensors, with --to safetensors:SCHEME",
    )
