"""Where byte-level tokenizers cut a text before they merge: `tokenizer.ggml.pre` names the way.

The names, and what each means, are those of llama.cpp (src/llama-vocab.cpp, load and llm_tokenizer_bpe).  Where its
comments quote the expression of the model's own tokenizer.json, that one stands here: llama.cpp rewrites some for an
engine that knows less.  Normal forms are not in the file; they are those of the tokenizers in transformers
(models/{qwen2,qwen3_5,gpt_neox,cohere}/tokenization_*.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bestiary.errors import TokenizerError, shown
from bestiary.nearest import did_you_mean
from bestiary_quant.gguf_tokenizer import characters

log = logging.getLogger("bestiary.quant")


@dataclass(frozen=True)
class Split:
    """Each pattern isolates its matches in the pieces that those before it left."""

    patterns: tuple[str, ...]
    composed: bool = False
    """Whether the text is brought into the normal form NFC before."""
    whole: bool = False
    """Whether a piece that is a token stays whole, whatever the merges say (`ignore_merges` of `tokenizers`)."""
    add_bos: bool = False
    """Whether a text begins with BOS where the file does not say."""


# Parts of the expressions
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_AFTER_MARK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""


def _any(*parts: str) -> str:
    return "|".join(parts)


def _cased(suffix: str, number: str, but: str = "", ends: str = r"\r\n/") -> str:
    """Words end where a capital follows a small letter; `but` is taken from the letters, `ends` may follow marks."""
    capitals = rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{but}]"
    smalls = rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{but}]"
    marks = rf" ?[^\s\p{{L}}\p{{N}}]+[{ends}]*"
    return _any(f"{capitals}*{smalls}+{suffix}", f"{capitals}+{smalls}*{suffix}", number, marks, _SPACES)


# Whole expressions, by the model that had them first
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _any(_SUFFIX, _WORD, r"\p{N}{1,3}", _MARKS, _SPACES)
_QWEN2 = _any(_SUFFIX, _WORD, r"\p{N}", _MARKS, _SPACES)
_QWEN35 = _any(_SUFFIX, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", _SPACES)
_GPT4O = _cased(f"{_SUFFIX}?", r"\p{N}{1,3}")
_KIMI = r"[\p{Han}]+|" + _cased(f"{_SUFFIX}?", r"\p{N}{1,3}", but=r"&&[^\p{Han}]", ends=r"\r\n")
_DEEPSEEK3 = _any(_AFTER_MARK, r" ?[\p{P}\p{S}]+[\r\n]*", _SPACES)
_SPARK = _any(_AFTER_MARK, r" ?[\p{P}\p{S}]+", r"[\r\n]|\s+(?!\S)|\s+")
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_BAILING = _any(
    r"'(?i:[sdmt]|ll|ve|re)",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]++[\r\n]*",
    r"\s*[\r\n]|\s+(?!\S)|\s+",
)
_EXAONE_MOE = _any(
    _SUFFIX,
    r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
    r"\s*[\r\n]|\s+(?!\S)|\s+",
)
_JAIS2 = _any(
    *(_SUFFIX, _WORD, r"\p{N}{1,3}", _MARKS, r"\s*[\r\n]+"),
    *(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4)),
    r"\s{1,2}(?!\S)|\s{1}",
)
_HAN_AND_KANA = f"[{characters.HAN_AND_KANA}]+"
_EAST_ASIAN = f"[{characters.EAST_ASIAN}]+"
_DEEPSEEK_LLM = (r"[\r\n]", rf"\s?[{characters.CASED_LETTERS}]+", rf"\s?[{characters.MARKS}]+", r"\s+$", _EAST_ASIAN)
_YOUTU = f"[{characters.HANGUL}]+|[{characters.CJK_MARKS}]+|[{characters.BOPOMOFO}]+|{_HAN_AND_KANA}"
_CHAMELEON = (r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}")
# Expressions that cut numbers from their end look for it however far it is, which takes the square of their length in
# time.  Here they see 300 digits.
_TINY_AYA = r"\d{1,3}(?=(?:\d{3}){0,100}\b)"
_SUPERBPE = r"(?=(\d{3}){1,100}(?!\d))"
_AFMOE = r"\p{N}{1,3}(?=(?:\p{N}{3}){0,100}(?!\p{N}))"

DEFAULT = Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_ROWS: tuple[tuple[str, Split], ...] = (
    ("default", DEFAULT),
    ("gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe", Split((_GPT2,))),
    ("gigachat a.x-4.0 mellum exaone4 jais trillion granite-docling", Split((_GPT2,))),
    ("mpt olmo modern-bert", Split((_GPT2,), composed=True)),
    ("starcoder refact smollm codeshell exaone minerva-7b mellum2", Split((r"\p{N}", _GPT2))),
    ("command-r", Split((r"\p{N}", _GPT2), composed=True)),
    ("falcon", Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    ("chatglm-bpe dbrx smaug-bpe", Split((_LLAMA3,))),
    ("glm4 glm5", Split((_LLAMA3,), whole=True)),
    ("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral", Split((_LLAMA3,), whole=True, add_bos=True)),
    ("midm-2.0 lfm2 jina-v5-nano", Split((_LLAMA3,), whole=True, add_bos=True)),
    ("minicpm5", Split((r"\p{N}{1,3}", _any(_SUFFIX, _WORD, r"\p{N}+", _MARKS, _SPACES)), whole=True)),
    ("jais-2", Split((_JAIS2,))),
    ("qwen2 deepseek-r1-qwen megrez", Split((_QWEN2,), composed=True)),
    ("kormo f2llmv2 stablelm2 hunyuan solar-open grok-2", Split((_QWEN2,))),
    ("qwen35", Split((_QWEN35,), composed=True)),
    ("laguna", Split((r"[^\n]+|[\n]+", _QWEN2))),
    ("ufakzeka", Split((_any(_WORD, r"\p{N}", _MARKS, _SPACES),))),
    ("seed-coder", Split((_any(_SUFFIX, _WORD, r"\p{N}{1}", r" ?[^\s\p{L}\p{N}\r\n]+", _SPACES),))),
    ("exaone-moe", Split((_EXAONE_MOE,))),
    ("bailingmoe bailingmoe2 llada-moe", Split((_BAILING,))),
    ("deepseek-llm", Split((*_DEEPSEEK_LLM, r"\p{N}+"))),
    ("deepseek-coder", Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, r"\p{N}"))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Split((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK3))),
    ("spark2_5", Split((r"\p{N}{1,3}", _HAN_AND_KANA, _SPARK, r"\p{N}"))),
    ("youtu", Split((_YOUTU, _cased(f"{_SUFFIX}?", r"\p{N}")), whole=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", Split((_GPT4O,))),
    ("granite-embed-multi-97m", Split((_GPT4O,), whole=True)),
    ("tekken", Split((_cased("", r"\p{N}"),), whole=True, add_bos=True)),
    ("tiny_aya cohere2moe", Split((_TINY_AYA, _GPT4O), composed=True)),
    ("kimi-k2", Split((_KIMI,))),
    ("poro-chat bloom gpt3-finnish", Split((_BLOOM,))),
    ("viking", Split((_BLOOM, r"\p{N}"))),
    ("superbpe", Split((r"\p{N}+", _SUPERBPE))),
    ("afmoe", Split((_AFMOE, f"[{characters.ASIAN}]+", _DEEPSEEK3))),
    ("chameleon", Split((*_CHAMELEON, r"[\p{P}!-/:-@\[-`{-~]", _GPT2), add_bos=True)),
)
SPLITS: Mapping[str, Split] = MappingProxyType({name: split for names, split in _ROWS for name in names.split()})
SPACED = frozenset(("gemma4", "granite-embed-multi-311m", "sarvam-moe"))
"""Ways that cut nothing: a space is a letter of its own, as in SentencePiece."""


def find_split(name: str | None, origin: str) -> Split:
    """Raises TokenizerError, which names it, for a way that is not known: other cuts would be other tokens."""
    if name is None:
        log.warning("%s does not say how its tokenizer cuts a text; answers may be poor", origin)
        return DEFAULT
    if name not in SPLITS:
        raise TokenizerError(
            f"The file's tokenizer cuts a text in a way that is not known: tokenizer.ggml.pre is {shown(name)}.",
            where=origin,
            fix=f"put tokenizer.json of the model beside the file. {did_you_mean(name[:40], SPLITS)}".rstrip(),
        )
    return SPLITS[name]
