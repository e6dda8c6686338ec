"""What generation returns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bestiary.errors import GenerationError
from bestiary.generation.tools.events import Event, Message


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token with its log-probability under the model, before temperature and filters."""

    token: int
    text: str
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    """The most probable tokens of the step, best first, as many as `logprobs` asked for."""


@dataclass(frozen=True)
class Usage:
    """Counts of tokens, and seconds on the wall clock."""

    prompt_tokens: int
    completion_tokens: int
    seconds_to_first_token: float
    seconds: float

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: the tokens after the first, over the time after the first."""
        span = self.seconds - self.seconds_to_first_token
        return (self.completion_tokens - 1) / span if self.completion_tokens > 1 and span > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """A whole answer."""

    text: str
    tokens: tuple[int, ...]
    """The new token ids, the one that ended the answer among them."""
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: str
    """"stop": an end-of-text token or a stop string; "length": max_tokens or the end of the context."""
    usage: Usage
    message: Message | None = None
    """A chat's answer taken apart: content, reasoning and tool calls; None for completions."""
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the prompt's tokens from the second on, where `prompt_logprobs` asked for them."""
    others: tuple["Completion", ...] = ()
    """The other answers, where `n` asked for several."""

    @property
    def choices(self) -> tuple["Completion", ...]:
        """All the answers, this one first."""
        return (self, *self.others)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer; the last one of each answer has its finish_reason and usage, and maybe no text."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    index: int = 0
    """Which of several answers it belongs to."""
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    """With the first chunk of the first answer, where they were asked for."""
    events: tuple[Event, ...] = ()
    """In a chat: what was read in the answer; then `text` is content alone."""

    def __str__(self) -> str:
        return self.text


def collect(chunks: Iterable[Chunk]) -> Completion:
    """The whole answer of a stream, with the others where there are several."""
    parts: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        parts.setdefault(chunk.index, []).append(chunk)
    if not parts:
        raise GenerationError("The stream ended before its last chunk.")
    first, *others = (_whole(parts[index]) for index in sorted(parts))
    return replace(first, others=tuple(others))


def _whole(chunks: Sequence[Chunk]) -> Completion:
    last = chunks[-1]
    if last.finish_reason is None or last.usage is None:
        raise GenerationError("The stream ended before its last chunk.")
    logprobs = tuple(made for chunk in chunks for made in chunk.logprobs or ())
    return Completion(
        "".join(chunk.text for chunk in chunks),
        tuple(token for chunk in chunks for token in chunk.tokens),
        None if last.logprobs is None else logprobs,
        last.finish_reason,
        last.usage,
        prompt_logprobs=next((chunk.prompt_logprobs for chunk in chunks if chunk.prompt_logprobs is not None), None),
    )
