"""The texts of special tokens, which parsers see and readers of an answer do not."""

from __future__ import annotations

from collections.abc import Iterable

from bestiary.generation.tools.events import Event, Reasoning, Text
from bestiary.generation.tools.reader import Markers


class SpecialTexts:
    """Takes the texts of special tokens out of Text and Reasoning.

    Parsers need them, for markers may be special tokens; those that turn out to announce nothing must not be shown.
    Only tokens that the answer had count: one that a model spells with others, to speak about it, stays.
    """

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._markers: Markers | None = None
        self._kind: type[Text] | type[Reasoning] = Text
        self._held = ""

    def add(self, text: str) -> None:
        """A token with this text came; events of what came before have been passed on."""
        if text not in self._texts:
            self._texts.add(text)
            self._markers = Markers(*sorted(self._texts, key=len, reverse=True))

    def pass_on(self, events: Iterable[Event], last: bool = False) -> list[Event]:
        """The events without these texts; what may be the beginning of one is held back, unless it is the `last`."""
        passed: list[Event] = []
        for event in events:
            if not isinstance(event, Text | Reasoning):
                passed += [*self._rest(), event]
                continue
            if type(event) is not self._kind:
                passed += self._rest()
                self._kind = type(event)
            passed += self._shown(event.text)
        return passed + self._rest() if last else passed

    def _shown(self, text: str) -> list[Event]:
        if self._markers is None:
            return [self._kind(text)]
        whole, parts, at = self._held + text, list[str](), 0
        while found := self._markers.find(whole, at):
            parts.append(whole[at : found.start()])
            at = found.end()
        free = self._markers.free(whole, at)
        self._held = whole[free:]
        shown = "".join([*parts, whole[at:free]])
        return [self._kind(shown)] if shown else []

    def _rest(self) -> list[Event]:
        held, self._held = self._held, ""
        return [self._kind(held)] if held else []
