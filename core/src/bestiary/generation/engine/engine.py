"""The engine: one loop in one thread that serves every caller of a model."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bestiary.errors import BestiaryError, GenerationError, OutOfMemory, Overloaded, RequestError, RequestTimeout
from bestiary.generation.engine.admission import check_constraint, check_prompt, most_tokens
from bestiary.generation.engine.choice import Choice
from bestiary.generation.engine.deciding import decide
from bestiary.generation.engine.events import Begun, Event, Queued, Stepped
from bestiary.generation.engine.gate import Gate
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.request import Request, Stream
from bestiary.generation.engine.runner import ModelRunner
from bestiary.generation.engine.scheduler import Limits, Scheduler
from bestiary.generation.engine.sequence import Plan
from bestiary.generation.engine.statistics import Record, Statistics
from bestiary.generation.engine.terms import Terms
from bestiary.generation.sampling import Sampling
from bestiary.generation.scoring import score
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import LanguageModel
from bestiary.nn.operations import PLAIN, Operations

if TYPE_CHECKING:
    from bestiary.adapters.residency import Adapters, Lease
    from bestiary.generation.constraints.state import ConstraintState
    from bestiary.generation.speculation.drafter import Drafter
    from bestiary.media.prompt import MediaPrompt

log = logging.getLogger("bestiary.engine")


class Engine:
    """Requests in, chunks out.  Safe to call from any thread.

    The loop's thread starts with the first request and ends with `close`, or when nobody holds the engine any more.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
        end_tokens: frozenset[int],
        context_length: int,
        cache_tokens: int,
        block_size: int = 16,
        cache_type: str = "auto",
        limits: Limits | None = None,
        max_waiting: int = 1024,
        adapters: Adapters | None = None,
        operations: Operations = PLAIN,
        replay: bool = True,
    ) -> None:
        """More than `max_waiting` requests that wait are refused; `replay` lets decoding steps be recorded."""
        limits = limits or Limits()
        self.model, self.tokenizer = model, tokenizer
        self.end_tokens, self.context_length, self.max_waiting = end_tokens, context_length, max_waiting
        self.cache = PagedCache(
            model.specs,
            cache_tokens,
            block_size,
            sequences=limits.sequences,
            step_tokens=limits.tokens,
            dtype=dtype,
            device=device,
            cache_type=cache_type,
            operations=operations,
        )
        self._scheduler = Scheduler(self.cache.groups, block_size, limits)
        self._runner = ModelRunner(model, self.cache, adapters, replay=replay)
        self.adapters = adapters
        self.drafter: Drafter | None = None
        """What guesses ahead; set it before the first request."""
        self._changed = threading.Condition()
        self._gate = Gate()
        self._arrived: list[Request] = []
        self._requests: dict[int, Request] = {}
        self._active: dict[int, Choice] = {}
        """The answers that wait or run, by the id of their sequence."""
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._at_exit = partial(_close, weakref.ref(self))
        self._record = Record()

    # Callers

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        terms: Terms | None = None,
        *,
        constraint: ConstraintState | None = None,
        adapter: Lease | None = None,
        echo: str = "",
        media: MediaPrompt | None = None,
    ) -> Request:
        """Queue a request; `echo` is a text with which its answers begin, `media` what some of its tokens stand for.

        Raises RequestError for a prompt that cannot be served, and Overloaded where too many requests wait already.
        The lease of an adapter is released when the request ends.
        """
        if self._closed:
            raise RequestError("The model is closed.", fix="load it again")
        check_constraint(constraint is not None, sampling)
        check_prompt(prompt, self.model.vocab_size, self.context_length)
        request = Request(
            list(prompt),
            sampling,
            terms or Terms(),
            most=most_tokens(prompt, sampling, self.context_length, self._scheduler.capacity),
            ends=frozenset(sampling.stop_tokens) | (frozenset() if sampling.ignore_eos else self.end_tokens),
            tokenizer=self.tokenizer,
            constraint=constraint,
            adapter=adapter,
            echo=echo,
            media=media,
        )
        with self._changed:
            if self._closed:
                raise RequestError("The model is closed.", fix="load it again")
            waiting = len(self._arrived) + len(self._scheduler.waiting)
            if waiting >= self.max_waiting:
                raise Overloaded(f"{waiting} requests wait already.", fix="try again later, or raise max_waiting")
            self._start()
            self._arrived.append(request)
            self._changed.notify()
        return request

    def stream(self, prompt: Sequence[int], sampling: Sampling, terms: Terms | None = None, **more: Any) -> Stream:
        """Chunks as they come; closing the iterator cancels the request.  Arguments and errors: see `submit`."""
        return Stream(self.submit(prompt, sampling, terms, **more), self)

    def score(self, tokens: Sequence[int], media: MediaPrompt | None = None) -> torch.Tensor:
        """The logits [T, V] in float32 that follow each token of a sequence; beside the loop, in memory of its own."""
        if self._closed:
            raise RequestError("The model is closed.", fix="load it again")
        check_prompt(tokens, self.model.vocab_size, self.context_length)
        with self._gate.passing():
            return score(self.model, tokens, self.cache.device, media)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody computes while the model is changed; requests wait, and go on with what it is then.

        Keys and values of the model that was are forgotten.  Not for listeners, which the engine's own thread calls.
        """
        with self._gate.closed():
            try:
                yield
            finally:
                with self._changed:
                    self._scheduler.forget()
                    self._runner.forget()

    def statistics(self) -> Statistics:
        """What the engine is doing now, and how it has fared."""
        with self._changed:
            pools = self._scheduler.pools
            return self._record.at(
                waiting=len(self._scheduler.waiting) + len(self._arrived),
                running=len(self._scheduler.running),
                blocks=sum(pool.count for pool in pools),
                blocks_used=sum(pool.used for pool in pools),
            )

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on, in the engine's thread; returns what ends that."""
        with self._changed:
            self._listeners = (*self._listeners, listener)

        def leave() -> None:
            with self._changed:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return leave

    def close(self) -> None:
        """End the loop; requests that are not complete fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        atexit.unregister(self._at_exit)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        # A stream that somebody still holds keeps the engine, and must not keep the weights.
        for name in ("_runner", "model", "cache", "adapters", "drafter"):
            self.__dict__.pop(name, None)

    # The loop

    def _start(self) -> None:
        if self._thread is None or self._process != os.getpid():  # a fork takes no threads along
            self._process = os.getpid()
            # The thread must not keep the engine alive, or an engine that nobody holds would never end.
            self._thread = threading.Thread(
                target=_loop, args=(weakref.ref(self),), name="bestiary-engine", daemon=True
            )
            self._thread.start()
            # A thread that is inside torch while the interpreter ends would abort the process.
            atexit.register(self._at_exit)

    def _turn(self) -> bool:
        """Take in what arrived, run one step; False where the loop should end."""
        with self._changed:
            if not self._arrived and not self._requests and not self._closed:
                self._changed.wait(timeout=1.0)
            if self._closed:
                self._fail_all(RequestError("The model was closed.", fix="load it again"))
                return False
        with self._gate.passing():
            with self._changed:
                self._take_in()
                self._let_go()
                if self.drafter is not None:
                    self.drafter.reserve([self._active[id(sequence)] for sequence in self._scheduler.running])
                plan = self._scheduler.plan()
            if plan.work:
                self._step(plan)
        return True

    def _take_in(self) -> None:
        arrived, self._arrived = self._arrived, []
        for request in arrived:
            first = request.choices[0]
            try:
                self._scheduler.add(first.sequence, first.sequence.prompt_length + request.most)
            except RequestError as error:
                request.fail(error)
                continue
            self._requests[request.id] = request
            self._active[id(first.sequence)] = first
            self._tell(Queued(request.id, first.sequence.prompt_length, len(request.choices)))

    def _let_go(self) -> None:
        """End the requests that were cancelled, and those whose time is over."""
        now = time.perf_counter()
        for request in list(self._requests.values()):
            if request.cancelled:
                self._drop(request, "cancelled")
            elif request.deadline is not None and now > request.deadline:
                made = sum(choice.count for choice in request.choices)
                self._fail(
                    request,
                    RequestTimeout(
                        f"The request's {request.terms.timeout} s are over, after {made} tokens.",
                        fix="give it more time, or ask for fewer tokens",
                    ),
                )

    def _step(self, plan: Plan) -> None:
        started = time.perf_counter()
        for work in plan.work:
            choice = self._active[id(work.sequence)]
            if choice.begun is None:
                choice.begun = started
                self._tell(
                    Begun(choice.request.id, choice.index, started - choice.request.started, choice.sequence.reused)
                )
        try:
            if self.drafter is not None:
                plan = self.drafter.draft(plan, self._active)
            result = self._runner.run(plan)
            with self.cache.operations.between():
                outcomes = list(decide(result, self._active, self._born))
        except Exception as error:
            if is_out_of_memory(error):
                # Whoever brought the most tokens is why the step was so large.
                largest = max(plan.work, key=lambda work: work.count)
                request = self._active[id(largest.sequence)].request
                self._fail(request, OutOfMemory(f"A step did not fit the memory: {error}"))
                return
            log.exception("a step failed")
            fault = (
                error if isinstance(error, BestiaryError) else GenerationError(f"A step of the model failed: {error!r}")
            )
            for request in {self._active[id(work.sequence)].request for work in plan.work}:
                self._fail(request, fault)
            return
        with self._changed:
            for choice, outcome in outcomes:
                if isinstance(outcome, BestiaryError) and choice.request.id in self._requests:
                    self._fail(choice.request, outcome)
            self._scheduler.commit(plan)
            self._record.step()
            for choice, outcome in outcomes:
                if outcome is True and id(choice.sequence) in self._active:
                    self._end(choice, choice.reason)
        if self.drafter is not None:
            self.drafter.observe(result, self._active)
        tokens = sum(work.count for work in plan.work)
        self._tell(Stepped(time.perf_counter() - started, len(plan.work), tokens))

    def _born(self, choice: Choice, computed: int) -> list[Choice]:
        """The other answers to a prompt that has just been computed: twins of the first as far as there is room."""
        twins: list[Choice] = []
        with self._changed:
            unborn, choice.request.unborn = choice.request.unborn, []
            for other in unborn:
                sequence = self._scheduler.fork(choice.sequence, computed)
                if sequence is None:  # it finds the prompt's blocks in the cache when its turn comes
                    self._scheduler.add(other.sequence)
                else:
                    other.sequence, other.begun = sequence, choice.begun
                    twins.append(other)
                self._active[id(other.sequence)] = other
        return twins

    # Ends

    def _end(self, choice: Choice, outcome: str) -> None:
        self._scheduler.remove(choice.sequence)
        del self._active[id(choice.sequence)]
        ended, request = choice.ended(outcome), choice.request
        self._record.end(ended)
        self._tell(ended)
        if not request.unborn and not any(id(other.sequence) in self._active for other in request.choices):
            self._requests.pop(request.id, None)
            request.release()

    def _drop(self, request: Request, outcome: str) -> None:
        """End what is left of a request."""
        request.unborn = []
        for choice in request.choices:
            if id(choice.sequence) in self._active:
                self._end(choice, outcome)

    def _fail(self, request: Request, error: BestiaryError) -> None:
        with self._changed:
            self._drop(request, type(error).__name__)
            request.fail(error)

    def _stop(self, error: BestiaryError) -> None:
        with self._changed:
            self._closed = True
            self._fail_all(error)

    def _fail_all(self, error: BestiaryError) -> None:
        for request in (*self._requests.values(), *self._arrived):
            request.fail(error)
            request.release()
            for choice in request.choices:
                self._scheduler.remove(choice.sequence)
        self._requests, self._active, self._arrived = {}, {}, []

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed")


def is_out_of_memory(error: Exception) -> bool:
    """Torch's allocator for CPUs has no exception of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _loop(held: weakref.ref[Engine]) -> None:
    while (engine := held()) is not None:
        try:
            if not engine._turn():
                return
        except BaseException as error:  # a fault of the engine's own: whoever waits must hear of it
            log.exception("the engine failed")
            engine._stop(GenerationError(f"The engine failed: {error!r}", fix="load the model again"))
            return
        del engine


def _close(held: weakref.ref[Engine]) -> None:
    if (engine := held()) is not None:
        engine.close()
