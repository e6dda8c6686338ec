"""What an engine tells those who listen, as it happens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Queued:
    """A request arrived."""

    request: int
    prompt_tokens: int
    choices: int
    """Answers that will be made to it."""


@dataclass(frozen=True)
class Begun:
    """The first tokens of an answer's prompt are in the step that now runs."""

    request: int
    choice: int
    queue_seconds: float
    reused_tokens: int


@dataclass(frozen=True)
class Stepped:
    """A step ran."""

    seconds: float
    sequences: int
    tokens: int
    """Tokens that were computed, of prompts and answers."""


@dataclass(frozen=True)
class Ended:
    """An answer is complete, was cancelled or failed.  Times are in seconds since its request arrived."""

    request: int
    choice: int
    outcome: str
    """"stop" or "length", "cancelled", or the class of the error."""
    prompt_tokens: int
    reused_tokens: int
    """Prompt tokens that were found in the cache instead of computed."""
    completion_tokens: int
    queue_seconds: float | None
    first_token_seconds: float | None
    seconds: float
    preemptions: int
    drafted: int
    """Tokens that were guessed for it."""
    accepted: int
    """Guesses that the model confirmed."""

    @property
    def inter_token_seconds(self) -> float | None:
        """The mean time between its tokens."""
        if self.first_token_seconds is None or self.completion_tokens < 2:
            return None
        return (self.seconds - self.first_token_seconds) / (self.completion_tokens - 1)


Event = Queued | Begun | Stepped | Ended
