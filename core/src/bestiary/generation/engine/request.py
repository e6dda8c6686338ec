"""One request on its way from a caller to the engine's loop and back."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Sequence as Many
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Self

from bestiary.errors import BestiaryError
from bestiary.generation.completion import Chunk, TokenLogprob
from bestiary.generation.engine.choice import Choice
from bestiary.generation.engine.sequence import Sequence
from bestiary.generation.engine.terms import Terms
from bestiary.generation.randomness import derived
from bestiary.generation.sampling import Sampling
from bestiary.generation.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bestiary.adapters.residency import Lease
    from bestiary.generation.constraints.state import ConstraintState
    from bestiary.media.prompt import MediaPrompt

_numbers = count()


class Request:
    """A prompt, the answers that are made to it, and the chunks that wait for a reader.

    The loop makes the answers; the caller iterates, in any thread, and calls `cancel` to stop.
    """

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        terms: Terms,
        *,
        most: int,
        ends: frozenset[int],
        tokenizer: Tokenizer,
        constraint: ConstraintState | None = None,
        adapter: Lease | None = None,
        echo: str = "",
        media: MediaPrompt | None = None,
    ) -> None:
        """`most` tokens at most for each answer, which begins with `echo`."""
        self.id = next(_numbers)
        self.sampling, self.terms = sampling, terms
        self.most, self.ends, self.tokenizer = most, ends, tokenizer
        self.cancelled = False
        self.started = time.perf_counter()
        self.deadline = None if terms.timeout is None else self.started + terms.timeout
        # As DRY's reference has it: a breaker is the last token of its text.
        self.breakers = frozenset(
            tokenizer.encode_after(text)[-1] for text in sampling.dry_sequence_breakers if sampling.dry_multiplier
        )
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        many = sampling.best_of or sampling.n
        self.compares = many > sampling.n
        """Whether all answers are made before the best are given out."""
        self.with_logprobs = self.compares or sampling.logprobs is not None
        self._lease = adapter
        generation = None if adapter is None else adapter.generation
        salt = repr((terms.cache_salt, generation and generation.exact)).encode()
        wanted = len(prompt) - 1 if sampling.prompt_logprobs is None else 0
        self.choices = [
            Choice(
                self,
                index,
                Sequence(list(prompt), len(prompt), terms.priority, salt, generation, media, wanted=wanted),
                derived(seed, index),
                constraint if constraint is None or index == 0 else constraint.copy(),
            )
            for index in range(many)
        ]
        self.unborn = self.choices[1:]
        """Answers that share the first one's prompt as soon as it is computed."""
        self.prompt_logprobs: list[TokenLogprob] = []
        self._echo = echo
        self._started_choices: set[int] = set()
        self._held: dict[int, list[Chunk]] = {}
        self._complete = 0
        self._chunks: queue.SimpleQueue[Chunk | BestiaryError | None] = queue.SimpleQueue()

    # The loop's side

    def give(self, choice: Choice, chunk: Chunk) -> None:
        """A piece of an answer, for the reader."""
        if choice.index not in self._started_choices:
            self._started_choices.add(choice.index)
            first = choice.index == 0 and self.sampling.prompt_logprobs is not None
            chunk = replace(
                chunk,
                text=self._echo + chunk.text,
                prompt_logprobs=tuple(self.prompt_logprobs) if first else None,
            )
        if not self.compares:
            self._chunks.put(chunk)
            return
        self._held.setdefault(choice.index, []).append(chunk)
        self._complete += chunk.finish_reason is not None
        if self._complete == len(self.choices):
            self._give_best()

    def fail(self, error: BestiaryError) -> None:
        """The request ends with an error, raised where the caller reads."""
        self._chunks.put(error)

    def release(self) -> None:
        """The engine has done with it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _give_best(self) -> None:
        """The n answers of the highest mean log-probability of a token (as in OpenAI's best_of), the best first."""
        ranked = sorted(self.choices, key=lambda choice: -choice.logprob / choice.count)
        prompt_logprobs = self._held[0][0].prompt_logprobs
        for index, choice in enumerate(ranked[: self.sampling.n]):
            for place, chunk in enumerate(self._held[choice.index]):
                shown = prompt_logprobs if index == place == 0 else None
                self._chunks.put(replace(chunk, index=index, prompt_logprobs=shown))

    # The caller's side

    def next(self) -> Chunk:
        """The next chunk, waiting for it.  Raises the error of the request, and StopIteration once it is cancelled."""
        chunk = self._chunks.get()
        if chunk is None:
            raise StopIteration
        if isinstance(chunk, BestiaryError):
            raise chunk
        return chunk

    def cancel(self) -> None:
        """Stop within the engine's next step; harmless when repeated, or when the answer is complete."""
        self.cancelled = True
        self._chunks.put(None)  # whoever waits for a chunk would wait for ever

    # Log-probabilities

    def logprob(self, token: int, value: tuple[float, Many[tuple[int, float]]]) -> TokenLogprob:
        """A token's log-probability, and those of the most probable tokens of its step, with their texts."""
        own, best = value
        return TokenLogprob(
            token,
            self._text(token),
            own,
            tuple(TokenLogprob(other, self._text(other), logprob) for other, logprob in best),
        )

    def _text(self, token: int) -> str:
        # A model may have more rows than the tokenizer has tokens; those have no text.
        return self.tokenizer.pieces.piece(token).decode("utf-8", errors="replace")


class Stream:
    """The chunks of a request as an iterator; closing or forgetting it cancels the request.

    It holds its `engine`, which would otherwise end with the last other holder and leave the reader waiting.
    """

    def __init__(self, request: Request, engine: object) -> None:
        self._request, self._engine = request, engine
        self._left = request.sampling.n

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        if not self._left:
            raise StopIteration
        try:
            chunk = self._request.next()
        except BaseException:
            self.close()
            raise
        self._left -= chunk.finish_reason is not None
        return chunk

    def close(self) -> None:
        """Stop the request, if it is not complete."""
        self._left = 0
        self._request.cancel()

    def __del__(self) -> None:
        self._request.cancel()
