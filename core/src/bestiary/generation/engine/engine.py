"""The engine: one loop in one thread that serves every caller of a model."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from functools import partial

import torch

from bestiary.errors import BestiaryError, GenerationError, OptionError, OutOfMemory, RequestError
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.engine.paged import PagedCache
from bestiary.generation.engine.request import Request, Stream
from bestiary.generation.engine.runner import ModelRunner
from bestiary.generation.engine.scheduler import Limits, Scheduler
from bestiary.generation.engine.statistics import Statistics, Totals
from bestiary.generation.sampling import Sampling
from bestiary.generation.scoring import score
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import CausalLM

log = logging.getLogger("bestiary.engine")


class Engine:
    """Requests in, chunks out.  Safe to call from any thread.

    The loop's thread starts with the first request and ends with `close`, or when nobody holds the engine any more.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
        end_tokens: frozenset[int],
        context_length: int,
        cache_tokens: int,
        block_size: int = 16,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        self.model, self.tokenizer = model, tokenizer
        self.end_tokens, self.context_length = end_tokens, context_length
        self._cache = PagedCache(
            model.specs,
            cache_tokens,
            block_size,
            sequences=limits.sequences,
            step_tokens=limits.tokens,
            dtype=dtype,
            device=device,
        )
        self._scheduler = Scheduler(self._cache.groups, block_size, limits)
        self._runner = ModelRunner(model, self._cache)
        self._changed = threading.Condition()
        self._arrived: list[Request] = []
        self._active: dict[int, Request] = {}
        self._closed = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._at_exit = partial(_close, weakref.ref(self))
        self._totals = Totals()

    # Callers

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        priority: int = 0,
        constraint: ConstraintState | None = None,
    ) -> Request:
        """Queue a request.  Raises RequestError for a prompt that cannot be served."""
        request = self._request(list(prompt), sampling, priority, constraint)
        with self._changed:
            if self._closed:
                raise RequestError("The model is closed.", fix="load it again")
            self._start()
            self._arrived.append(request)
            self._changed.notify()
        return request

    def stream(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        priority: int = 0,
        constraint: ConstraintState | None = None,
    ) -> Stream:
        """Chunks as they come; closing the iterator cancels the request.  Raises RequestError before the first step."""
        return Stream(self.submit(prompt, sampling, priority, constraint), self)

    def score(self, tokens: Sequence[int]) -> torch.Tensor:
        """The logits [T, V] in float32 that follow each token of a sequence; beside the loop, in memory of its own."""
        self._check_prompt(tokens)
        return score(self.model, tokens, self._cache.device)

    def statistics(self) -> Statistics:
        """What the engine is doing now."""
        with self._changed:
            pools = self._scheduler.pools
            return Statistics(
                waiting=len(self._scheduler.waiting) + len(self._arrived),
                running=len(self._scheduler.running),
                blocks=sum(pool.count for pool in pools),
                blocks_used=sum(pool.used for pool in pools),
                totals=self._totals,
            )

    def close(self) -> None:
        """End the loop; requests that are not complete fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        atexit.unregister(self._at_exit)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _check_prompt(self, prompt: Sequence[int]) -> None:
        """Raises RequestError for a prompt without tokens, with ids that are none, or longer than the context."""
        vocabulary = self.model.vocab_size
        if not prompt:
            raise RequestError("The prompt has no tokens.", fix="give a text, or at least one token id")
        if not all(type(token) is int and 0 <= token < vocabulary for token in prompt):
            raise RequestError(f"The prompt has token ids outside of the vocabulary of {vocabulary}.")
        if len(prompt) > self.context_length:
            raise self._too_long(len(prompt), "context", self.context_length)

    def _request(
        self, prompt: list[int], sampling: Sampling, priority: int, constraint: ConstraintState | None
    ) -> Request:
        if constraint is not None and sampling.ignore_eos:
            raise OptionError("ignore_eos does not go with a grammar, which says itself where a text may end.")
        self._check_prompt(prompt)
        holds, what = min((self.context_length, "context"), (self._scheduler.capacity, "cache"))
        room = holds - len(prompt)
        if room < 1:
            raise self._too_long(len(prompt), what, holds)
        ends = frozenset(sampling.stop_tokens) | (frozenset() if sampling.ignore_eos else self.end_tokens)
        return Request(
            prompt, sampling, min(room, sampling.max_tokens or room), ends, self.tokenizer, priority, constraint
        )

    def _too_long(self, length: int, what: str, holds: int) -> RequestError:
        remedy = "choose a model with a longer one" if what == "context" else "give it more memory with cache_tokens"
        return RequestError(
            f"The prompt has {length} tokens; the model's {what} holds {holds}.",
            fix=f"shorten the prompt, or {remedy}",
        )

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
            if not self._arrived and not self._active and not self._closed:
                self._changed.wait(timeout=1.0)
            if self._closed:
                self._fail_all(RequestError("The model was closed.", fix="load it again"))
                return False
            arrived, self._arrived = self._arrived, []
            for request in arrived:
                try:
                    self._scheduler.add(request.sequence, request.sequence.prompt_length + request.most)
                    self._active[id(request.sequence)] = request
                except RequestError as error:
                    request.fail(error)
            for request in [request for request in self._active.values() if request.cancelled]:
                self._end(request)
            plan = self._scheduler.plan()
        if not plan.work:
            return True
        try:
            sequences, logits = self._runner.run(plan)
        except (MemoryError, torch.OutOfMemoryError) as error:
            self._fail(plan.work[0].sequence, OutOfMemory(f"A step did not fit the memory: {error}"))
            return True
        except Exception as error:
            log.exception("a step failed")
            fault = (
                error if isinstance(error, BestiaryError) else GenerationError(f"A step of the model failed: {error!r}")
            )
            for work in plan.work:
                self._fail(work.sequence, fault)
            return True
        with self._changed:
            self._scheduler.commit(plan)
            self._totals = self._totals.plus(steps=1)
        finite = torch.isfinite(logits).all(-1)
        for sequence, row, sound in zip(sequences, logits, finite.tolist(), strict=True):
            active = self._active.get(id(sequence))
            if active is None:
                continue
            if not sound:
                self._fail(sequence, _not_finite(sequence.computed - 1))
            else:
                self._choose(active, row)
        return True

    def _choose(self, request: Request, logits: torch.Tensor) -> None:
        try:
            complete = request.push(logits)
        except Exception as error:  # a processor of the request's own, for one; the others go on
            if isinstance(error, BestiaryError):
                fault = error
            else:
                log.exception("choosing a token failed")
                fault = GenerationError(f"Choosing the next token failed: {error!r}")
            self._fail(request.sequence, fault)
            return
        if complete:
            with self._changed:
                self._end(request)

    def _end(self, request: Request) -> None:
        self._scheduler.remove(request.sequence)
        self._active.pop(id(request.sequence), None)
        sequence = request.sequence
        self._totals = self._totals.plus(
            requests=1,
            prompt_tokens=sequence.prompt_length,
            reused_tokens=sequence.reused,
            generated_tokens=len(sequence.tokens) - sequence.prompt_length,
            preemptions=sequence.preemptions,
        )

    def _fail(self, sequence: object, error: BestiaryError) -> None:
        with self._changed:
            request = self._active.get(id(sequence))
            if request is not None:
                self._end(request)
                request.fail(error)

    def _stop(self, error: BestiaryError) -> None:
        with self._changed:
            self._closed = True
            self._fail_all(error)

    def _fail_all(self, error: BestiaryError) -> None:
        requests = [*self._active.values(), *self._arrived]
        for request in requests:
            request.fail(error)
        for request in requests:
            self._scheduler.remove(request.sequence)
        self._active, self._arrived = {}, []


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


def _not_finite(position: int) -> GenerationError:
    return GenerationError(
        "The model's logits are not finite.",
        where=f"position {position}",
        fix="`bestiary check --finite` looks for damaged weights; float16 overflows where bfloat16 and float32 do not",
    )
