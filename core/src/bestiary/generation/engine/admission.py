"""What an engine refuses before it queues a request."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.errors import OptionError, RequestError
from bestiary.generation.sampling import Sampling


def check_prompt(prompt: Sequence[int], vocabulary: int, context_length: int) -> None:
    """Raises RequestError for a prompt without tokens, with ids that are none, or longer than the context."""
    if not prompt:
        raise RequestError("The prompt has no tokens.", fix="give a text, or at least one token id")
    if len(prompt) > context_length:
        raise _too_long(len(prompt), "context", context_length)
    if not all(type(token) is int and 0 <= token < vocabulary for token in prompt):
        raise RequestError(f"The prompt has token ids outside of the vocabulary of {vocabulary}.")


def most_tokens(prompt: Sequence[int], sampling: Sampling, context_length: int, capacity: int) -> int:
    """How many tokens an answer may have.  Raises RequestError where there is room for none."""
    holds, what = min((context_length, "context"), (capacity, "cache"))
    room = holds - len(prompt)
    if room < 1:
        raise _too_long(len(prompt), what, holds)
    return min(room, sampling.max_tokens or room)


def check_constraint(constrained: bool, sampling: Sampling) -> None:
    """Raises OptionError for settings that a grammar excludes."""
    if constrained and sampling.ignore_eos:
        raise OptionError("ignore_eos does not go with a grammar, which says itself where a text may end.")


def _too_long(length: int, what: str, holds: int) -> RequestError:
    remedy = "choose a model with a longer one" if what == "context" else "give it more memory with cache_tokens"
    return RequestError(
        f"The prompt has {length} tokens; the model's {what} holds {holds}.",
        fix=f"shorten the prompt, or {remedy}",
    )
