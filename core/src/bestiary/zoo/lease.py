"""Leases: who has one, finds the pipeline there until it gives it back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from bestiary.zoo.keeper import Keeper
    from bestiary.zoo.slot import Slot


class Token:
    """A lease that was granted.  It ends when it is released, or forgotten."""

    def __init__(self, pipe: Any, give_back: Callable[[], None]) -> None:
        self.pipe, self._give_back = pipe, give_back

    def release(self) -> None:
        """Give the pipeline back; harmless when repeated."""
        self.pipe = None
        self._give_back()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._give_back()


class Lease:
    """A context manager, plain or async, whose target is the pipeline of a model; it is loaded where it is not."""

    def __init__(self, keeper: Keeper, slot: Slot, wait: float) -> None:
        self._keeper, self._slot, self._wait = keeper, slot, wait
        self._tokens: list[Token] = []

    def take(self) -> Token:
        """The lease itself, to be released by the caller."""
        return self._keeper.acquire(self._slot, self._wait)

    async def take_async(self) -> Token:
        """`take` without blocking the event loop."""
        return await self._keeper.acquire_async(self._slot, self._wait)

    def __enter__(self) -> Any:
        self._tokens.append(self.take())
        return self._tokens[-1].pipe

    async def __aenter__(self) -> Any:
        self._tokens.append(await self.take_async())
        return self._tokens[-1].pipe

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.pop().release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.pop().release()


class LeasedStream:
    """An iterator of a pipeline that holds the lease until it ends, is closed or is forgotten."""

    def __init__(self, inner: Iterator[Any], token: Token) -> None:
        self._inner: Iterator[Any] | None = inner
        self._token = token

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._inner is None:
            raise StopIteration
        try:
            return next(self._inner)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop, and give the lease back; harmless when repeated."""
        inner, self._inner = self._inner, None
        try:
            if inner is not None and hasattr(inner, "close"):
                inner.close()
        finally:
            self._token.release()
