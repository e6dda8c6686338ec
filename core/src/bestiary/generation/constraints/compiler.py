"""From a Grammar to the state of one sequence."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from bestiary.errors import GenerationError, RequestError
from bestiary.generation.constraints.blame import blamed
from bestiary.generation.constraints.grammar import Grammar
from bestiary.generation.constraints.limits import LIMITS
from bestiary.generation.constraints.rust import import_llguidance, refusal, rust_call
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.constraints.vocabulary import Vocabulary
from bestiary.generation.tokenizer import Tokenizer

Made = TypeVar("Made")
_TRIALS = 4


class ConstraintCompiler:
    """Compiles grammars for one model, and keeps the latest of them.

    Safe to use from several threads; a grammar that several ask for at once is compiled once.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, end_tokens: Iterable[int], *, kept: int = 32, threads: int = 2
    ) -> None:
        """`vocab_size` is the width of the model's logits; `end_tokens` end an answer, and come only where it may end.

        `threads` compute the masks that `ConstraintState.start` asks for.
        """
        self.vocabulary = Vocabulary(tokenizer, vocab_size, end_tokens)
        self._kept, self._threads = kept, threads
        self._compiled: OrderedDict[str, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def compile(self, grammar: Grammar) -> ConstraintState:
        """The state of a new sequence, before its first token.

        RequestError says what is wrong with the grammar, and where; TokenizerError that the tokenizer cannot be used.
        """
        with self._lock:
            future = self._compiled.get(grammar.text)
            mine = future is None
            if future is None:
                future = self._compiled[grammar.text] = Future()
                while len(self._compiled) > self._kept:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar.text)
        if mine:
            try:
                future.set_result(_with_room(lambda: self._matcher(grammar)))
            except BaseException as error:
                self._forget(grammar.text)  # an error is not kept: the next one to ask may have more memory
                future.set_exception(error if isinstance(error, Exception) else GenerationError("Interrupted."))
                if not isinstance(error, Exception):
                    raise
        matcher = future.result()
        with rust_call("copying a grammar"):
            return ConstraintState(
                matcher.deep_copy(), self.vocabulary, pool=self._executor, failed=lambda: self._forget(grammar.text)
            )

    def _matcher(self, grammar: Grammar) -> Any:
        engine, llguidance = self.vocabulary.engine, import_llguidance()
        try:
            with rust_call("compiling a grammar"):
                limits = llguidance.LLParserLimits(max_lexer_states=LIMITS.lexer_states, verbose_errors=False)
                matcher = llguidance.LLMatcher(engine, grammar.text, log_level=0, limits=limits)
                error, warnings = matcher.get_error(), matcher.get_grammar_warnings()
        except GenerationError as failure:
            raise RequestError(f"The grammar cannot be compiled: {failure.what}") from failure
        if error:
            raise blamed(refusal(error), grammar, lambda part: self._refuses(part, engine, limits))
        if warnings:
            # Embedded schemas may ask to be taken loosely; what llguidance leaves out it warns of.
            raise RequestError(f"The grammar is refused: {'; '.join(warnings)[:500]}")
        self._try(matcher)
        return matcher

    def _try(self, matcher: Any) -> None:
        """The first step, in which many a grammar without a text, or above the limits, shows itself."""
        what = "No text satisfies the grammar, the tokens of this model cannot spell any, or it is too complex"
        state = ConstraintState(matcher, self.vocabulary)
        try:
            [places] = state.allowed().nonzero()
        except GenerationError as failure:
            raise RequestError(f"{what}: {failure.what}") from failure
        failures: list[GenerationError] = []
        for place in places[:: max(1, len(places) // _TRIALS)][:_TRIALS]:
            trial = state.copy()
            try:
                trial.advance(int(place))
                if not trial.is_finished:
                    trial.mask()
                return
            except GenerationError as failure:
                failures.append(failure)
        if failures:
            raise RequestError(f"{what}: {failures[0].what}") from failures[0]

    @staticmethod
    def _refuses(text: str, engine: Any, limits: Any) -> bool:
        return bool(import_llguidance().LLMatcher.validate_grammar(text, engine, limits=limits))

    def _forget(self, text: str) -> None:
        with self._lock:
            self._compiled.pop(text, None)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "constraint-mask")
            return self._pool


_STACK_SIZE = threading.Lock()


def _with_room(function: Callable[[], Made]) -> Made:
    """The result of a function on a thread with a large stack: llguidance compiles recursively, without a bound."""
    outcome: Future[Made] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="constraint-compiler", daemon=True)
    with _STACK_SIZE:
        usual = threading.stack_size(LIMITS.stack)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    return outcome.result()
