"""Where a constrained sequence stands, and which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from bestiary.errors import GenerationError, RequestError
from bestiary.generation.constraints.masks import Mask, apply_masks, packed, unpacked
from bestiary.generation.constraints.rust import rust_call
from bestiary.generation.constraints.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

_DEAD_END = "A dead end: no token of this model can go on with the grammar."
_SOUND = ("NotStopped", "NoExtension", "EndOfSentence")


class ConstraintState:
    """One sequence under a grammar.  Made by `ConstraintCompiler.compile`; not for two threads at once.

    Where the grammar leaves no choice of text, only its usual spelling in tokens may come (see `forced`).  Elsewhere it
    is every token whose text keeps the whole a beginning of a text of the grammar, and end tokens where it is one.
    """

    def __init__(
        self,
        matcher: Any,
        vocabulary: Vocabulary,
        *,
        pool: Callable[[], Executor] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._pool = pool
        self._failed = failed
        self._taken: list[bool] = []
        """For each token so far whether llguidance was told of it; it need not be of an end that it knows already."""
        self._ended = False
        self._mask: Mask | None = None
        self._coming: Future[Mask] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete and nothing can follow it; the end token need not be asked of the model."""
        self._settle()
        return self._ended or bool(self._matcher.is_stopped())

    @property
    def can_end(self) -> bool:
        """Whether the text so far is one of the grammar."""
        self._settle()
        return self._ended or bool(self._matcher.is_accepting())

    def __len__(self) -> int:
        """Tokens so far."""
        return len(self._taken)

    def start(self) -> None:
        """Begin to compute the mask on another thread, while the forward pass runs; `mask` waits for it.

        llguidance holds no interpreter lock meanwhile.  Without a forward pass to hide behind this costs more than it
        gains: most masks take some 20 microseconds, a hundredth of them above 200.
        """
        if self._pool is not None and self._mask is None and self._coming is None:
            self._coming = self._pool().submit(self._computed)

    def mask(self) -> Mask:
        """The tokens that may come next, as int32 words [ceil(V / 32)] not to be written to.

        GenerationError at a dead end: the tokens of this model cannot go on, or the grammar became too complex.
        """
        self._settle()
        if self._mask is None:
            self._mask = self._computed()
        return self._mask

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The mask as booleans [V]."""
        return unpacked(self.mask(), self._vocabulary.rows)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [V] with -inf for every token that may not come.  GenerationError where none is left."""
        return apply_masks(logits[None], [self])[0]

    def advance(self, token: int) -> None:
        """The token that came.  GenerationError where it may not come; then the state is as before."""
        if self._accepted([token]) == 1:
            self._consume(token)
            return
        if self._mask is not None and 0 <= token < self._vocabulary.rows and self.allowed()[token] and not self._ended:
            self._fail("taking a token", "its automaton is too large")  # which llguidance reports as a refusal
        raise GenerationError(f"The grammar does not allow the token {token} here.", where=f"token {len(self)}")

    def accepts(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first, may come after each other; the state stays as it is."""
        return self._accepted(tokens)

    def forced(self) -> list[int]:
        """The tokens that must come next, in the usual spelling of their text; often none.

        They need no forward pass to be chosen.  `advance` by each.
        """
        self._settle()
        if self.is_finished:
            return []
        with self._call("looking for forced tokens"):
            tokens: list[int] = self._matcher.compute_ff_tokens()
        beyond = next((place for place, token in enumerate(tokens) if token >= self._vocabulary.rows), len(tokens))
        return tokens[:beyond]

    def rollback(self, count: int) -> None:
        """Forget the last `count` tokens.  RequestError for more than came; GenerationError where the grammar cannot.

        Grammars with `max_tokens` in a rule cannot; `copy` works with them too.
        """
        self._settle()
        if not 0 <= count <= len(self._taken):
            raise RequestError(f"{count} tokens cannot be taken back: {len(self._taken)} came.")
        if count == 0:
            return
        told = sum(self._taken[len(self._taken) - count :])
        del self._taken[len(self._taken) - count :]
        self._ended, self._mask = False, None
        with self._call("going back"):
            self._matcher.rollback(told)
        self._check("going back")

    def copy(self) -> Self:
        """A state of its own with the same past, for another continuation."""
        self._settle()
        with self._call("copying a state"):
            other = type(self)(self._matcher.deep_copy(), self._vocabulary, pool=self._pool, failed=self._failed)
        other._taken, other._ended, other._mask = list(self._taken), self._ended, self._mask
        return other

    # What follows speaks to llguidance.

    def _computed(self) -> Mask:
        vocabulary = self._vocabulary
        words = -(-vocabulary.rows // 32)
        with self._call("computing a mask"):
            ended = self._ended or bool(self._matcher.is_stopped())
            mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)[:words].copy()
            sound = ended or self._sound(mask)
        if not ended:
            self._check("computing a mask")  # after an error llguidance offers the end tokens
        if not sound:
            raise GenerationError(_DEAD_END, where=f"token {len(self)}")
        if vocabulary.rows % 32:
            mask[-1] &= np.int32((1 << vocabulary.rows % 32) - 1)
        if not self._taken and not ended:
            mask = self._at_first(mask)
        if not mask.any() and not ended:
            raise GenerationError(_DEAD_END, where=f"token {len(self)}")
        return mask

    def _sound(self, mask: Mask) -> bool:
        """Whether a mask of one token is more than the mark of a text that no tokens spell (see Vocabulary)."""
        [places] = mask.nonzero()
        word = int(mask[places[0]]) & 0xFFFFFFFF if len(places) == 1 else 0
        if not word or word & (word - 1):
            return True
        return int(self._matcher.validate_tokens([int(places[0]) * 32 + word.bit_length() - 1])) == 1

    def _at_first(self, mask: Mask) -> Mask:
        """The mask of the first token, whose leading space the tokenizer may drop."""
        twins = self._vocabulary.first_tokens
        if twins is None:
            return mask
        rows = self._vocabulary.rows
        allowed = unpacked(mask, rows)
        return packed(np.where(twins >= 0, allowed[twins], False))

    def _accepted(self, tokens: Sequence[int]) -> int:
        self._settle()
        rows, ends = self._vocabulary.rows, self._vocabulary.end_tokens
        known = next((place for place, token in enumerate(tokens) if not 0 <= token < rows), len(tokens))
        if self._ended or not known:
            return 0
        if self._matcher.is_stopped():
            return int(tokens[0] in ends)
        told = [int(token) for token in tokens[:known]]
        if not self._taken and (twins := self._vocabulary.first_tokens) is not None:
            told[0] = int(twins[told[0]])
            if told[0] < 0:
                return 0
        end = next((place + 1 for place, token in enumerate(told) if token in ends), len(told))
        with self._call("looking at tokens"):
            count = int(self._matcher.validate_tokens(told[:end]))
        self._check("looking at tokens")
        return count

    def _consume(self, token: int) -> None:
        is_end = token in self._vocabulary.end_tokens
        told = not self._matcher.is_stopped()
        if told:
            if not self._taken and (twins := self._vocabulary.first_tokens) is not None:
                token = int(twins[token])
            with self._call("taking a token"):
                self._matcher.consume_token(int(token))
            self._check("taking a token")
        self._taken.append(told)
        self._ended, self._mask = is_end, None

    def _settle(self) -> None:
        """Wait for the other thread: llguidance refuses a second call on one matcher."""
        if self._coming is not None:
            coming, self._coming = self._coming, None
            self._mask = coming.result()

    def _call(self, doing: str) -> Any:
        return rust_call(doing, self._failed)

    def _check(self, doing: str) -> None:
        error, reason = self._matcher.get_error(), self._matcher.stop_reason()
        if not error and reason in _SOUND:
            return
        if "NoExtension" in error:
            raise GenerationError(_DEAD_END, where=f"token {len(self)}")
        self._fail(doing, (error or reason).removesuffix("\n<non-verbose/>").strip())

    def _fail(self, doing: str, told: str) -> NoReturn:
        if self._failed is not None:
            self._failed()  # copies share automata, which may be full or broken
        raise GenerationError(f"The grammar failed while {doing}: {told[:300]}", where=f"token {len(self)}")
