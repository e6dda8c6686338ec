"""The methods of pipelines, routed to a model by name."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

from bestiary.errors import RequestError
from bestiary.nearest import did_you_mean
from bestiary.zoo.lease import Lease, LeasedStream, Token


class Calls(ABC):
    """Each method leases the pipeline of `model` (None: the default) while the call runs; a stream, while it lasts.

    `wait` is how many seconds a call waits for room.  Everything else is as the pipeline's own method has it.
    """

    @abstractmethod
    def lease(self, model: str | None = None, *, wait: float | None = None) -> Lease:
        """What every call goes through."""

    # Any method of any pipeline

    def call(
        self, method: str, /, *arguments: Any, model: str | None = None, wait: float | None = None, **options: Any
    ) -> Any:
        """Call a method by name.  An iterator that it returns is a stream."""
        token = self.lease(model, wait=wait).take()
        try:
            result = _method(token.pipe, method)(*arguments, **options)
        except BaseException:
            token.release()
            raise
        if isinstance(result, Iterator):
            return LeasedStream(result, token)
        token.release()
        return result

    async def acall(
        self, method: str, /, *arguments: Any, model: str | None = None, wait: float | None = None, **options: Any
    ) -> Any:
        """`call` without blocking the event loop: by the method's async twin ("achat" of "chat"), or in a thread."""
        token = await self.lease(model, wait=wait).take_async()
        job = None
        try:
            twin = getattr(token.pipe, f"a{method}", None)
            if inspect.iscoroutinefunction(twin):
                return await twin(*arguments, **options)
            job = _Job(token, partial(_method(token.pipe, method), *arguments, **options))
            return await asyncio.to_thread(job)
        finally:
            if job is None:
                token.release()
            else:
                job.leave()

    async def astream_call(
        self, method: str, /, *arguments: Any, model: str | None = None, wait: float | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """The stream of a method, by its async twin ("astream" of "stream"), or step by step in threads."""
        token = await self.lease(model, wait=wait).take_async()
        try:
            twin: Callable[..., AsyncGenerator[Any, None]] | None = getattr(token.pipe, f"a{method}", None)
            if not inspect.isasyncgenfunction(twin):
                twin = partial(_stepped, _method(token.pipe, method))
            async with aclosing(twin(*arguments, **options)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            token.release()

    # By name, what most pipelines have

    def generate(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("generate", *arguments, model=model, **options)

    def chat(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("chat", *arguments, model=model, **options)

    def stream(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("stream", *arguments, model=model, **options)

    def stream_chat(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("stream_chat", *arguments, model=model, **options)

    def generate_structured(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("generate_structured", *arguments, model=model, **options)

    def tokenize(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("tokenize", *arguments, model=model, **options)

    def detokenize(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return self.call("detokenize", *arguments, model=model, **options)

    async def agenerate(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return await self.acall("generate", *arguments, model=model, **options)

    async def achat(self, *arguments: Any, model: str | None = None, **options: Any) -> Any:
        return await self.acall("chat", *arguments, model=model, **options)

    def astream(self, *arguments: Any, model: str | None = None, **options: Any) -> AsyncIterator[Any]:
        return self.astream_call("stream", *arguments, model=model, **options)

    def astream_chat(self, *arguments: Any, model: str | None = None, **options: Any) -> AsyncIterator[Any]:
        return self.astream_call("stream_chat", *arguments, model=model, **options)


def _method(pipe: Any, name: str) -> Callable[..., Any]:
    found = None if name.startswith("_") else getattr(pipe, name, None)
    if not callable(found):
        public = [other for other in dir(pipe) if not other.startswith("_")]
        raise RequestError(f'A {type(pipe).__name__} has no method "{name}".', fix=did_you_mean(name, public) or None)
    return found  # type: ignore[no-any-return]


class _Job:
    """A call in a thread that keeps its lease until it is through, also where nobody waits for it any more."""

    def __init__(self, token: Token, function: Callable[[], Any]) -> None:
        self.token, self.function = token, function
        self.begun = self.left = False

    def __call__(self) -> Any:
        self.begun = True
        try:
            return None if self.left else self.function()
        finally:
            self.token.release()

    def leave(self) -> None:
        """Its caller is gone: a call that did not begin never will."""
        self.left = True
        if not self.begun:
            self.token.release()


async def _stepped(method: Callable[..., Any], *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
    """A plain iterator, each of its steps in a thread."""
    chunks, over = iter(await asyncio.to_thread(method, *arguments, **options)), object()
    try:
        while (chunk := await asyncio.to_thread(next, chunks, over)) is not over:
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
