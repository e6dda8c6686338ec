"""Texts at which an answer ends."""

from collections import deque
from collections.abc import Sequence

from bestiary.errors import OptionError


class StopStrings:
    """Finds stop strings in a text that comes in parts.

    The answer ends where the first stop string is complete, and it ends before that string; of several that are
    complete at the same character the longest counts.  Text is held back only while it could be the beginning of a stop
    string, so the result does not depend on where the parts are cut.  Time is linear in the text (Aho and Corasick,
    1975), whatever the stop strings are.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """OptionError for an empty stop string."""
        if isinstance(stops, str):
            stops = (stops,)
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise OptionError(f"A stop string must be a text of at least one character: {list(stops)!r}")
        self.matched: str | None = None
        """The stop string that ended the answer."""
        self._held = ""
        self._state = 0
        self._next: list[dict[str, int]] = [{}]
        self._back = [0]  # The state of the longest proper suffix that also begins a stop string.
        self._depth = [0]
        self._found: list[str | None] = [None]  # The longest stop string that ends in this state.
        for stop in stops:
            self._insert(stop)
        self._link()

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may be given out, and whether a stop string was reached; after that nothing comes any more."""
        if self.matched is not None:
            return "", True
        following, back, found = self._next, self._back, self._found
        state = self._state
        for place, character in enumerate(text):
            while character not in following[state] and state:
                state = back[state]
            state = following[state].get(character, 0)
            stop = found[state]
            if stop is not None:
                self.matched = stop
                whole = self._held + text[: place + 1]
                self._held, self._state = "", 0
                return whole[: len(whole) - len(stop)], True
        self._state = state
        whole = self._held + text
        held = self._depth[state]
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held], False

    def flush(self) -> str:
        """What was held back, at the end of an answer that met no stop string."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._back.append(0)
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
            state = self._next[state][character]
        self._found[state] = stop

    def _link(self) -> None:
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            if self._found[state] is None:
                self._found[state] = self._found[self._back[state]]
            for character, child in self._next[state].items():
                queue.append(child)
                back = self._back[state]
                while character not in self._next[back] and back:
                    back = self._back[back]
                self._back[child] = self._next[back].get(character, 0)
