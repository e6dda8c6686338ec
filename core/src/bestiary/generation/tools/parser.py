"""What every parser is, and the part that they share: plain text, calls in it, and the way back when one is none."""

from collections.abc import Generator, Iterable
from typing import ClassVar, Protocol

from bestiary.generation.tools.events import CallArguments, CallCancel, CallEnd, CallStart, Event, Reasoning, Text
from bestiary.generation.tools.offered import Offered
from bestiary.generation.tools.reader import Malformed, Markers, Reader, Step


class ToolParser(Protocol):
    """Turns the text of an answer, as it comes, into events.

    Wherever the text is cut, the events add up to the same message.  Time is linear in the text, whatever the text is.
    What looks like a call but is malformed, or names a tool that was not offered, is Text exactly as it was written.
    Text is held back only while it may still be the beginning of a marker.
    """

    def push(self, text: str) -> list[Event]:
        """The events that became certain with this piece of text."""

    def finish(self) -> list[Event]:
        """The rest, at the end of the answer; after it the parser takes no more text."""


class GrammarParser:
    """A parser whose grammar is a generator: `main` reads from top to bottom as the format is written.

    A format states its `markers`, and in `call` what follows one of them.  A call is all or nothing: its start and its
    arguments are told as they come, its end only when all of it has been read; a list of calls counts as one.
    """

    markers: ClassVar[Markers]
    closing: ClassVar[tuple[str, ...]] = ()
    """Markers that say nothing more where they follow a call."""
    breaks: ClassVar[tuple[str, ...]] = ()
    """Markers at which reasoning between markers of its own ends, even where its closing one did not come."""
    reasons: ClassVar[bool] = False
    """Whether the format tells reasoning from text itself."""

    def __init__(self, offered: Offered) -> None:
        self.offered = offered
        self.reader = Reader()
        self._events: list[Event] = []
        self._pieces: list[str] = []  # Of one kind; they become one event.
        self._kind: type[Event] = Text
        self._count = 0
        self._open: list[tuple[int, str | None]] = []
        self._steps: Generator[None, None, None] = self.main()
        next(self._steps)  # Up to where it asks for text.

    def push(self, text: str) -> list[Event]:
        if self.reader.closed:
            raise RuntimeError("The parser was finished.")
        if not text:
            return []
        self.reader.feed(text)
        return self._advance()

    def finish(self) -> list[Event]:
        self.reader.closed = True
        return self._advance()

    def _advance(self) -> list[Event]:
        next(self._steps, None)
        self._flush()
        events, self._events = self._events, []
        return events

    # The grammar

    def main(self) -> Step[None]:
        """Plain text with calls in it."""
        while (marker := (yield from self.reader.until(self.markers, self.text))) is not None:
            self.reader.begin()
            self.reader.take(self.reader.at + len(marker))
            if (yield from self.attempt(self.call(marker))):
                yield from self.after_call()

    def call(self, marker: str) -> Step[None]:
        """What follows `marker`, which is taken; Malformed where it is not a call."""
        raise NotImplementedError

    def after_call(self) -> Step[None]:
        """White space between calls, and after the last, is layout; before other text it is part of it."""
        self.reader.begin()
        yield from self.reader.spaces()
        if self.closing and (yield from self.reader.accept(*self.closing)):
            self.reader.begin()
            yield from self.reader.spaces()
        layout = yield from self.at_border()
        spaces = self.reader.taken()
        if not layout:
            self.text(spaces)

    def at_border(self) -> Step[bool]:
        """Whether a marker comes next, or the end."""
        if (yield from self.reader.starts(*self.markers.texts)):
            return True
        return not (yield from self.reader.peek())

    def attempt(self, steps: Step[None]) -> Step[bool]:
        """Whether `steps` read a call; if not, what they and `reader.begin` before them took is Text."""
        try:
            yield from steps
        except Malformed:
            for index, _ in reversed(self._open):
                self._emit(CallCancel(index))
            self._count -= len(self._open)
            self._open.clear()
            self.text(self.reader.taken())
            return False
        for index, id in self._open:
            self._emit(CallEnd(index, id))
        self._open.clear()
        self.reader.taken()
        return True

    # What it tells

    def text(self, text: str) -> None:
        self._piece(Text, text)

    def reasoning(self, text: str) -> None:
        self._piece(Reasoning, text)

    def arguments(self, text: str) -> None:
        """A piece of the arguments of the call that was started last."""
        self._piece(CallArguments, text)

    def start(self, name: str, id: str | None = None) -> None:
        """A call begins.  Malformed where no such tool was offered."""
        if not self.offered.accepts(name):
            raise Malformed
        self._open.append((self._count, None))
        self._emit(CallStart(self._count, name, id))
        self._count += 1

    def late_id(self, id: str) -> None:
        """The id of the call that was started last, read after its arguments."""
        self._open[-1] = (self._count - 1, id)

    def _piece(self, kind: type[Event], text: str) -> None:
        if kind is not self._kind:
            self._flush()
            self._kind = kind
        if text:
            self._pieces.append(text)

    def _emit(self, event: Event) -> None:
        self._flush()
        self._events.append(event)

    def _flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            if self._kind is CallArguments:
                self._events.append(CallArguments(self._count - 1, text))
            else:
                self._events.append(Reasoning(text) if self._kind is Reasoning else Text(text))


class Settlement:
    """For protocols that cannot take back: calls are passed on only when they are whole, and none is cancelled."""

    def __init__(self) -> None:
        self._held: dict[int, list[Event]] = {}

    def settle(self, events: Iterable[Event]) -> list[Event]:
        """What of all the events so far has become certain with these."""
        settled: list[Event] = []
        for event in events:
            match event:
                case CallStart(index):
                    self._held[index] = [event]
                case CallArguments(index):
                    self._held[index].append(event)
                case CallCancel(index):
                    del self._held[index]
                case CallEnd(index):
                    start, *pieces = self._held.pop(index)
                    arguments = "".join(piece.text for piece in pieces if isinstance(piece, CallArguments))
                    settled += [start, CallArguments(index, arguments), event]
                case _:
                    settled.append(event)
        return settled


class Settled:
    """A parser whose calls are settled (see `Settlement`)."""

    def __init__(self, parser: ToolParser) -> None:
        self._parser, self._settlement = parser, Settlement()

    def push(self, text: str) -> list[Event]:
        return self._settlement.settle(self._parser.push(text))

    def finish(self) -> list[Event]:
        return self._settlement.settle(self._parser.finish())
