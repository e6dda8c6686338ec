"""One request on its way from a caller to the engine's loop and back."""

from __future__ import annotations

import queue
import secrets
import time
from typing import Self

import torch

from bestiary.errors import BestiaryError, GenerationError
from bestiary.generation.completion import Chunk, TokenLogprob, Usage
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.detokenizer import Detokenizer
from bestiary.generation.engine.sequence import Sequence
from bestiary.generation.penalties import penalised
from bestiary.generation.sampling import Sampling, choose
from bestiary.generation.stop import StopStrings
from bestiary.generation.tokenizer import Tokenizer


class Request:
    """The state of one answer: its sequence, its own randomness and detokenizer, and the chunks that wait for a reader.

    The loop calls `push` for each token; the caller iterates, in any thread, and calls `cancel` to stop.
    """

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        most: int,
        ends: frozenset[int],
        tokenizer: Tokenizer,
        priority: int = 0,
        constraint: ConstraintState | None = None,
    ) -> None:
        self.sequence = Sequence(list(prompt), len(prompt), priority)
        self.sampling, self.most, self.ends = sampling, most, ends
        self.cancelled = False
        self._constraint = constraint
        self._tokenizer = tokenizer
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._randomness = torch.Generator().manual_seed(seed)
        # As DRY's reference has it: a breaker is the last token of its text.
        self._breakers = frozenset(
            tokenizer.encode_after(text)[-1] for text in sampling.dry_sequence_breakers if sampling.dry_multiplier
        )
        self._detokenizer, self._stops = Detokenizer(tokenizer), StopStrings(sampling.stop)
        self._chunks: queue.SimpleQueue[Chunk | BestiaryError] = queue.SimpleQueue()
        self._started = time.perf_counter()
        self._first = 0.0
        self._count = 0

    # The loop's side

    def push(self, logits: torch.Tensor) -> bool:
        """Choose the next token from logits [V] and hand out its text; True where the answer is complete."""
        sequence = self.sequence
        changed = penalised(
            logits,
            self.sampling,
            sequence.tokens,
            sequence.prompt_length,
            breakers=self._breakers,
            ends=self.ends,
        )
        if self._constraint is not None:
            changed = self._constraint.apply(changed)
        # The loop has looked at the model's own logits; NaN is no larger than -inf either.
        if changed is not logits and not float(changed.max()) > float("-inf"):
            raise GenerationError(
                "No token is left to choose from.", fix="check logit_bias, processors and min_tokens of the request"
            )
        token = choose(changed, self.sampling, self._randomness)
        sequence.tokens.append(token)
        ended, complete = token in self.ends, False
        if self._constraint is not None:
            self._constraint.advance(token)
            complete = self._constraint.is_finished
            self._constraint.start()  # the next mask, while the next forward pass runs
        self._count += 1
        self._first = self._first or time.perf_counter() - self._started
        logprobs = None if self.sampling.logprobs is None else (self._logprob(logits, token, self.sampling.logprobs),)
        text, stopped = self._stops.push("" if ended else self._detokenizer.push(token))
        if not (ended or stopped or complete or self._count == self.most):
            self._chunks.put(Chunk(text, (token,), logprobs))
            return False
        if not stopped:
            tail, stopped = self._stops.push(self._detokenizer.flush())
            text += tail + ("" if stopped else self._stops.flush())
        usage = Usage(self.sequence.prompt_length, self._count, self._first, time.perf_counter() - self._started)
        self._chunks.put(Chunk(text, (token,), logprobs, "stop" if ended or stopped or complete else "length", usage))
        return True

    def fail(self, error: BestiaryError) -> None:
        """The answer ends with an error, raised where the caller reads."""
        self._chunks.put(error)

    # The caller's side

    def next(self) -> Chunk:
        """The next chunk, waiting for it.  Raises the error with which the answer ended."""
        chunk = self._chunks.get()
        if isinstance(chunk, BestiaryError):
            raise chunk
        return chunk

    def cancel(self) -> None:
        """Stop within the engine's next step; harmless when repeated, or when the answer is complete."""
        self.cancelled = True

    def _logprob(self, logits: torch.Tensor, token: int, top: int) -> TokenLogprob:
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(min(top, len(logprobs))) if top else None
        others = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
        return TokenLogprob(
            token,
            self._text(token),
            float(logprobs[token]),
            tuple(TokenLogprob(other, self._text(other), value) for other, value in others),
        )

    def _text(self, token: int) -> str:
        # A model may have more rows than the tokenizer has tokens; those have no text.
        return self._tokenizer.pieces.piece(token).decode("utf-8", errors="replace")


class Stream:
    """The chunks of a request as an iterator; closing or forgetting it cancels the request.

    It holds its `engine`, which would otherwise end with the last other holder and leave the reader waiting.
    """

    def __init__(self, request: Request, engine: object) -> None:
        self._request, self._engine, self._over = request, engine, False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        if self._over:
            raise StopIteration
        try:
            chunk = self._request.next()
        except BaseException:
            self.close()
            raise
        self._over = chunk.finish_reason is not None
        return chunk

    def close(self) -> None:
        """Stop the request, if it is not complete."""
        self._over = True
        self._request.cancel()

    def __del__(self) -> None:
        self._request.cancel()
