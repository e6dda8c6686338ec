"""Which tokens have a role, which end an answer, and which are found in a text before anything is merged.

Defaults and names are those of llama.cpp (src/llama-vocab.cpp, llama_vocab::impl::load).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from tokenizers import AddedToken

from bestiary.errors import TokenizerError
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.vocabulary import (
    CONTROL,
    NORMAL,
    PREFIX,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    flag,
    read_vocabulary,
)

log = logging.getLogger("bestiary.quant")

MAX_ADDED_TEXT = 1 << 21
"""Characters of all added tokens together, for each may become a state of what finds them."""

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "bos_token": "bos_token_id",
        "eos_token": "eos_token_id",
        "unk_token": "unknown_token_id",
        "sep_token": "seperator_token_id",  # as the format spells it
        "pad_token": "padding_token_id",
        "cls_token": "cls_token_id",
        "mask_token": "mask_token_id",
    }
)
_DEFAULTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "llama": {"bos_token": 1, "eos_token": 2, "unk_token": 0},
        "bert": {"cls_token": 101, "unk_token": 100, "sep_token": 102, "pad_token": 0, "mask_token": 103},
        "t5": {"eos_token": 1, "unk_token": 2, "pad_token": 0},
    }
)
"""By `tokenizer.ggml.model`, where the file does not say."""
_NONE = (-1, (1 << 32) - 1)
_IDLE = ("pad_token", "sep_token", "mask_token")
"""Roles without which text is generated as well; files of extended models have wrong ids there."""

_FURTHER_ENDS = ("eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id")
_END_NAMES = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
        *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>"),
        *("<REPO>", "<reponame>", "<|file_sep|>"),
    )
)


def find_role(metadata: Metadata, vocabulary: Vocabulary, role: str) -> int | None:
    """The id of the token with a role of ROLES, None where there is none.  TokenizerError for one out of range."""
    model = metadata.text(f"{PREFIX}model") or ""
    stated = metadata.whole(PREFIX + ROLES[role])
    if stated is None and (model, role) == ("bert", "cls_token"):
        stated = metadata.whole(PREFIX + ROLES["bos_token"])
    found = _DEFAULTS.get(model, {}).get(role) if stated is None else stated
    if found is None or found in _NONE:
        return None
    if not 0 <= found < len(vocabulary.tokens):
        if stated is None:
            return None
        if role not in _IDLE:
            raise _out_of_range(metadata, ROLES[role], found, vocabulary)
        log.warning("%s: the %s %d is no token and is left out", metadata.origin, role, found)
        return None
    if found in vocabulary.absent:
        return None
    # Configurations state ids that nobody uses, and number 0 of many vocabularies is "!".
    used = role == "eos_token" or (role == "bos_token" and flag(metadata, "add_bos_token", False))
    return found if used or not vocabulary.typed or vocabulary.types[found] != NORMAL else None


def find_roles(metadata: Metadata, vocabulary: Vocabulary) -> dict[str, int]:
    """Every role that a token has, with its id."""
    found = {role: find_role(metadata, vocabulary, role) for role in ROLES}
    return {role: place for role, place in found.items() if place is not None}


def end_ids(metadata: Metadata, vocabulary: Vocabulary | None = None) -> frozenset[int]:
    """The ids that end an answer: those that the file states, and tokens with the names that chat models use.

    Unlike in llama.cpp, a name that is an ordinary piece of text ends nothing: Qwen's vocabularies hold "</s>".
    """
    vocabulary = vocabulary or read_vocabulary(metadata)
    ends = _named_ends(vocabulary)
    for key in _FURTHER_ENDS:
        place = metadata.whole(PREFIX + key)
        if place is not None and place not in _NONE:
            if not 0 <= place < len(vocabulary.tokens):
                raise _out_of_range(metadata, key, place, vocabulary)
            ends.add(place)
    if (eos := find_role(metadata, vocabulary, "eos_token")) is not None:
        ends.add(eos)
    names = {vocabulary.tokens[place] for place in ends}
    if names & {"<|call|>", "<|calls|>"} and names & {"<|return|>", "<|flush|>"}:
        ends.discard(vocabulary.ids.get("<|end|>", -1))  # there it ends one message of several
    if names & {"<|tool_response>", "<|plamo:eos|>"}:
        ends.discard(vocabulary.ids.get("</s>", -1))
    return frozenset(ends)


def added_tokens(metadata: Metadata, vocabulary: Vocabulary, roles: Collection[int]) -> list[AddedToken]:
    """The tokens that are found in a text before anything is merged, by id; special ones control and are not spoken.

    `roles` are the ids that `find_roles` gave.  Raises TokenizerError where there are too many to look for.
    """
    special = {place for place in _named_ends(vocabulary) if vocabulary.types[place] == NORMAL}
    special.update(roles)
    unlike = [(place, kind) for place, kind in enumerate(vocabulary.types) if kind != NORMAL]
    special.update(place for place, kind in unlike if kind in (CONTROL, UNKNOWN))
    chosen = special.union(place for place, kind in unlike if kind == USER_DEFINED)
    chosen -= vocabulary.absent
    if sum(len(vocabulary.tokens[place]) for place in chosen) > MAX_ADDED_TEXT:
        raise TokenizerError(
            f"{len(chosen)} tokens control, or are defined by users; their texts have more than {MAX_ADDED_TEXT} "
            "characters together.",
            where=metadata.origin,
        )
    strips = _strips(metadata)
    return [
        AddedToken(text, special=place in special, normalized=False, lstrip=left, rstrip=right)
        for place in sorted(chosen)
        for text in (vocabulary.tokens[place],)
        for left, right in (strips(text),)
    ]


def _named_ends(vocabulary: Vocabulary) -> set[int]:
    found = {place for name in _END_NAMES if (place := vocabulary.ids.get(name)) is not None}
    return {
        place
        for place in found
        if not vocabulary.typed
        or vocabulary.types[place] != NORMAL
        or (vocabulary.tokens[place].startswith("<|") and vocabulary.tokens[place].endswith("|>"))
    }


def _strips(metadata: Metadata) -> Callable[[str], tuple[bool, bool]]:
    """Whether a token takes the space before and after it; no file says so, and llama.cpp goes by names like these."""
    name = (metadata.text("general.name") or "").lower()
    if metadata.text(f"{PREFIX}model") == "llama" and ("phi-3" in name or "phi3" in name):
        return lambda text: (False, text not in ("<unk>", "<s>", "<|endoftext|>"))
    way, architecture = metadata.text(f"{PREFIX}pre") or "", metadata.architecture or ""
    masks = set[str]()
    if way in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or architecture in ("nomic-bert-moe", "jina-bert-v3"):
        masks.add("<mask>")
    if "modern-bert" in name:
        masks.add("[MASK]")
    return lambda text: (text in masks, False)


def _out_of_range(metadata: Metadata, key: str, place: int, vocabulary: Vocabulary) -> TokenizerError:
    return TokenizerError(
        f"The metadata {PREFIX + key!r} is {place}, and there are {len(vocabulary.tokens)} tokens.",
        where=metadata.origin,
    )
