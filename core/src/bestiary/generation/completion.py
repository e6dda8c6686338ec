"""What generation returns."""

from collections.abc import Iterable
from dataclasses import dataclass

from bestiary.errors import GenerationError
from bestiary.generation.tools.events import Message


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

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer.  The last one has the finish_reason and the usage, and may have no text."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None

    def __str__(self) -> str:
        return self.text


def collect(chunks: Iterable[Chunk]) -> Completion:
    """The whole answer of a stream."""
    text: list[str] = []
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    chunk = None
    for chunk in chunks:
        text.append(chunk.text)
        tokens.extend(chunk.tokens)
        logprobs.extend(chunk.logprobs or ())
    if chunk is None or chunk.finish_reason is None or chunk.usage is None:
        raise GenerationError("The stream ended before its last chunk.")
    with_logprobs = chunk.logprobs is not None
    return Completion(
        "".join(text), tuple(tokens), tuple(logprobs) if with_logprobs else None, chunk.finish_reason, chunk.usage
    )
