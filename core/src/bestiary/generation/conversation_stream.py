"""The answers of a chat, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, Self

from bestiary.generation.answer import AnswerStream
from bestiary.generation.completion import Chunk, Completion, collect
from bestiary.generation.tools.events import CallEnd, Event, Message, Text, assemble


class Chunks(Protocol):
    """What an engine streams."""

    def __next__(self) -> Chunk:
        """The next chunk; StopIteration after the last."""

    def close(self) -> None:
        """Stop what makes them."""


class ChatStream:
    """The chunks of a chat, each with its events, and with nothing but content as its text.

    Closing it, or forgetting it, stops the request as with the stream of the engine.  An answer that ended by itself
    after a call has the finish_reason "tool_calls".
    """

    def __init__(self, chunks: Chunks, opened: Callable[[], AnswerStream]) -> None:
        """`opened` begins to read another of the answers that the chunks belong to."""
        self._chunks, self._opened = chunks, opened
        self._answers: dict[int, AnswerStream] = {}
        self._events: dict[int, list[Event]] = {}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        chunk = next(self._chunks)
        if chunk.index not in self._answers:
            self._answers[chunk.index], self._events[chunk.index] = self._opened(), []
        answer, before = self._answers[chunk.index], self._events[chunk.index]
        events = answer.push(chunk)
        reason = chunk.finish_reason
        if reason is not None:
            events += answer.finish()
        before += events
        text = "".join(event.text for event in events if isinstance(event, Text))
        if reason == "stop" and any(isinstance(event, CallEnd) for event in before):
            reason = "tool_calls"
        return replace(chunk, text=text, events=events, finish_reason=reason)

    def close(self) -> None:
        """Stop the request, if it is not complete."""
        self._chunks.close()

    def message(self, index: int = 0) -> Message:
        """All that was read so far of an answer, taken apart."""
        return assemble(self._events.get(index, ()))

    def completion(self) -> Completion:
        """The whole answers, the text of each being its content.  For a stream of which nothing was read yet."""
        made = collect(self)
        whole, *others = (
            replace(completion, message=self.message(index))
            for index, completion in zip(sorted(self._events), made.choices, strict=True)
        )
        return replace(whole, others=tuple(replace(other, others=()) for other in others))
