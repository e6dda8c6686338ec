"""Reasoning that a model writes between two markers, told apart from its answer."""

from collections.abc import Sequence

from bestiary.generation.tools.events import Event, Text
from bestiary.generation.tools.offered import Offered
from bestiary.generation.tools.parser import GrammarParser, ToolParser
from bestiary.generation.tools.reader import Markers, Step

MARKERS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""The pairs in use; Harmony and Gemma 4 have channels instead, which their own parsers read."""


def reasoning_markers(chat_template: str) -> tuple[str, str] | None:
    """The pair of markers that a chat template speaks of, the first of `MARKERS` of which both are in it."""
    return next((pair for pair in MARKERS if pair[0] in chat_template and pair[1] in chat_template), None)


class ReasoningSplit(GrammarParser):
    """Reasoning at the beginning of an answer, then text; white space where they meet belongs to neither.

    The opening marker counts only before any other text, and only once: later the answer may speak about it.  Where
    the closing marker never comes all of it is reasoning, up to the first of `breaks`, if any: some models go on to
    `<tool_call>` without closing.
    """

    def __init__(
        self,
        start: str = "<think>",
        end: str = "</think>",
        started: bool = False,
        breaks: Sequence[str] = (),
        continued: bool = False,
    ) -> None:
        """`started`: the prompt already ended in the opening marker; the model may still repeat it.

        `continued`: the prompt has the beginning of the reasoning too, so that white space counts from the first.
        """
        self._start, self._end, self._started, self._continued = start, end, started, continued
        self._stops = Markers(end, *breaks)
        self._spaces: list[str] = []
        super().__init__(Offered(None))

    def main(self) -> Step[None]:
        self.reader.begin()
        yield from self.reader.spaces()
        opened = yield from self.reader.accept(self._start)
        before = self.reader.taken()
        if opened or self._started:
            if opened:
                yield from self.reader.spaces()
            elif self._continued:
                self._inside(before)
            found = yield from self.reader.until(self._stops, self._inside)
            if found == self._end:
                self.reader.take(self.reader.at + len(found))
                yield from self.reader.spaces()
        else:
            self.text(before)
        yield from self.reader.rest(self.text)

    def _inside(self, text: str) -> None:
        """Holds back white space until something follows it."""
        kept = text.rstrip()
        if kept:
            self.reasoning("".join(self._spaces) + kept)
            self._spaces.clear()
        self._spaces.append(text[len(kept) :])


class Reasoned:
    """A parser behind a split: it reads only what is not reasoning."""

    def __init__(self, split: ReasoningSplit, parser: ToolParser) -> None:
        self._split, self._parser = split, parser

    def push(self, text: str) -> list[Event]:
        return self._pass_on(self._split.push(text))

    def finish(self) -> list[Event]:
        return self._pass_on(self._split.finish()) + self._parser.finish()

    def _pass_on(self, events: list[Event]) -> list[Event]:
        passed: list[Event] = []
        for event in events:
            passed += self._parser.push(event.text) if isinstance(event, Text) else [event]
        return passed
