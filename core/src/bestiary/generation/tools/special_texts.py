"""The texts of special tokens, which parsers see and readers of an answer do not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from bestiary.generation.tools.events import Event, Reasoning, Text


class SpecialTexts:
    """Takes the texts of special tokens out of Text and Reasoning.

    Parsers need them, for markers may be special tokens; those that turn out to announce nothing must not be shown.
    Only tokens that the answer had count, from when they came: one that a model spells with others, to speak about it,
    stays.
    """

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._held: Text | Reasoning | None = None
        """A beginning of one of the texts, at the end of what was handed on."""

    def add(self, text: str) -> None:
        """A token with this text came."""
        if text not in self._texts:
            self._texts.add(text)
            self._pattern = re.compile("|".join(map(re.escape, sorted(self._texts, key=len, reverse=True))))

    def taken_out(self, events: Iterable[Event], *, last: bool = False) -> list[Event]:
        """The events without these texts, however they are cut; `last` where none follow."""
        passed: list[Event] = []
        for event in events:
            if self._held is not None and type(event) is not type(self._held):
                self._let_go(passed)
            if isinstance(event, Text | Reasoning):
                self._take(event, passed)
            else:
                passed.append(event)
        if last:
            self._let_go(passed)
        return passed

    def _take(self, event: Text | Reasoning, passed: list[Event]) -> None:
        text = event.text if self._held is None else self._held.text + event.text
        self._held = None
        if self._pattern is not None:
            text = self._pattern.sub("", text)
        longest = max(map(len, self._texts), default=1) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            if any(known.startswith(text[start:]) for known in self._texts):
                self._held, text = replace(event, text=text[start:]), text[:start]
                break
        if text:
            passed.append(replace(event, text=text))

    def _let_go(self, passed: list[Event]) -> None:
        if self._held is not None:
            passed.append(self._held)
            self._held = None
