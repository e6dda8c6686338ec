"""One answer on its way: a sequence, its own randomness, grammar and text."""

from __future__ import annotations

import time
from collections.abc import Sequence as Many
from typing import TYPE_CHECKING

from bestiary.errors import BestiaryError, GenerationError
from bestiary.generation.choosing import Row
from bestiary.generation.completion import Chunk, TokenLogprob, Usage
from bestiary.generation.detokenizer import Detokenizer
from bestiary.generation.engine.events import Ended
from bestiary.generation.engine.sequence import Sequence
from bestiary.generation.history import History
from bestiary.generation.randomness import key
from bestiary.generation.stop import StopStrings

if TYPE_CHECKING:
    from bestiary.generation.constraints.state import ConstraintState
    from bestiary.generation.engine.request import Request


class Choice:
    """The state of one answer; only the engine's loop touches it.

    A step asks for `rows`, one for each token that may be chosen, and hands what was chosen to `take`.
    """

    def __init__(
        self, request: Request, index: int, sequence: Sequence, seed: int, constraint: ConstraintState | None
    ) -> None:
        self.request, self.index, self.sequence = request, index, sequence
        self.constraint = constraint
        self.draft: object = None
        """What a drafter remembers of this answer."""
        self.drafted = self.accepted = 0
        self.begun: float | None = None
        self.logprob = 0.0
        """The sum over its tokens, where the request compares answers by it."""
        self.count = 0
        self.reason = ""
        """Why it is complete."""
        self._seed = seed
        self._history = History()
        self._detokenizer, self._stops = Detokenizer(request.tokenizer), StopStrings(request.sampling.stop)
        self._first: float | None = None

    @property
    def room(self) -> int:
        """How many more tokens it may have."""
        return self.request.most - self.count

    def rows(self) -> list[Row]:
        """What the next token is chosen by, and after it each token that follows a draft, as if the draft were right.

        Fewer than there are drafts where the grammar refuses one.  GenerationError at a dead end of the grammar.
        """
        sequence = self.sequence
        tokens, drafts = sequence.tokens, sequence.drafts
        if not drafts:
            return [self.row(tokens, 0, self.constraint)]
        known = len(tokens) - drafts
        state = self.constraint.copy() if self.constraint else None
        made = [self.row(tokens[:known], 0, state)]
        for place, draft in enumerate(tokens[known:], 1):
            try:
                if state is not None:
                    state.advance(draft)
                    if state.is_finished:
                        break
                made.append(self.row(tokens[: known + place], place, state))
            except GenerationError:
                break
        return made

    def row(self, tokens: Many[int], place: int, state: ConstraintState | None) -> Row:
        """What the token after `place` drafts is chosen by; GenerationError at a dead end of the grammar."""
        request = self.request
        return Row(
            request.sampling,
            tokens,
            self.sequence.prompt_length,
            key(self._seed, self.count + place),
            request.breakers,
            request.ends,
            None if state is None else state.mask(),
            place,
            self._history,
        )

    def take(self, chosen: Many[int | BestiaryError], logprobs: Many[TokenLogprob | None]) -> bool:
        """Append what was chosen for `rows`, as far as the drafts were right; True where the answer is complete.

        Raises the error of the first token.
        """
        sequence = self.sequence
        drafts = sequence.tokens[len(sequence.tokens) - sequence.drafts :] if sequence.drafts else []
        self.drafted += len(drafts)
        sequence.keep_drafts(0)
        sequence.sound = len(sequence.tokens)
        for place, (token, logprob) in enumerate(zip(chosen, logprobs, strict=True)):
            if isinstance(token, BestiaryError):
                if place == 0:
                    token.where = token.where or f"position {len(sequence.tokens) - 1}"
                    raise token
                break  # it may never come to this: the next step will tell
            right = place < len(drafts) and token == drafts[place]
            self.accepted += right
            sequence.sound += right
            if self._push(token, logprob):
                return True
            if not right:
                break
        if self.constraint is not None:
            if not self.request.with_logprobs:
                for token in self.constraint.forced():
                    if self._push(token, None):
                        return True
            self.constraint.start()  # the next mask, while the next forward pass runs
        sequence.wanted = len(sequence.tokens) - 1
        return False

    def ended(self, outcome: str) -> Ended:
        """What is told of it at its end."""
        request, sequence = self.request, self.sequence
        return Ended(
            request.id,
            self.index,
            outcome,
            sequence.prompt_length,
            sequence.reused,
            self.count,
            None if self.begun is None else self.begun - request.started,
            self._first,
            time.perf_counter() - request.started,
            sequence.preemptions,
            self.drafted,
            self.accepted,
        )

    def _push(self, token: int, logprob: TokenLogprob | None) -> bool:
        """Append one token and hand out its text; True where the answer is complete."""
        request = self.request
        self.sequence.tokens.append(token)
        ended, complete = token in request.ends, False
        if self.constraint is not None:
            self.constraint.advance(token)
            complete = self.constraint.is_finished
        self.count += 1
        seconds = time.perf_counter() - request.started
        self._first = self._first or seconds
        if logprob is not None:
            self.logprob += logprob.logprob
        logprobs = (logprob,) if logprob is not None and request.sampling.logprobs is not None else None
        text, stopped = self._stops.push("" if ended else self._detokenizer.push(token))
        if not (ended or stopped or complete or self.count == request.most):
            request.give(self, Chunk(text, (token,), logprobs, index=self.index))
            return False
        if not stopped:
            tail, stopped = self._stops.push(self._detokenizer.flush())
            text += tail + ("" if stopped else self._stops.flush())
        self.reason = "stop" if ended or stopped or complete else "length"
        usage = Usage(self.sequence.prompt_length, self.count, self._first, seconds)
        request.give(self, Chunk(text, (token,), logprobs, self.reason, usage, index=self.index))
        return True
