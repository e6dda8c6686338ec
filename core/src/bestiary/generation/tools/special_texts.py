"""The texts of special tokens, which parsers see and readers of an answer do not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from bestiary.generation.tools.events import Event, Reasoning, Text


class SpecialTexts:
    """Takes the texts of special tokens out of Text and Reasoning.

    Parsers need them, for markers may be special tokens; those that turn out to announce nothing must not be shown.
    Only tokens that the answer had count: one that a model spells with others, to speak about it, stays.
    """

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, text: str) -> None:
        """A token with this text came."""
        if text not in self._texts:
            self._texts.add(text)
            self._pattern = re.compile("|".join(map(re.escape, sorted(self._texts, key=len, reverse=True))))

    def taken_out(self, events: Iterable[Event]) -> list[Event]:
        """The events without these texts, which a parser that was given them whole hands on whole."""
        if self._pattern is None:
            return list(events)
        passed: list[Event] = []
        for event in events:
            if isinstance(event, Text | Reasoning):
                event = replace(event, text=self._pattern.sub("", event.text))
                if not event.text:
                    continue
            passed.append(event)
        return passed
