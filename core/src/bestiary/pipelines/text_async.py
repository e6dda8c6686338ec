"""Answers made in worker threads, for callers with an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from bestiary.generation.completion import Chunk, Completion
from bestiary.generation.engine.request import Stream

if TYPE_CHECKING:
    from bestiary.generation.conversation_stream import ChatStream


async def whole(stream: Stream | ChatStream, finish: Callable[[], Completion]) -> Completion:
    """A whole answer, made in a worker thread; the request ends where nobody waits for it any more."""
    with contextlib.closing(stream):
        return await asyncio.to_thread(finish)


async def in_thread(chunks: Stream | ChatStream) -> AsyncIterator[Chunk]:
    """Each step in a worker thread; leaving the loop early closes the stream."""
    with contextlib.closing(chunks):
        while True:
            chunk = await asyncio.to_thread(next, chunks, None)
            if chunk is None:
                return
            yield chunk
