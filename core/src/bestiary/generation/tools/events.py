"""What a parser tells while text streams, and the message that it all adds up to."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from bestiary.errors import GenerationError, shown


@dataclass(frozen=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thought before it answered."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call of an offered tool begins."""

    index: int
    """Which call of the message it is, from 0."""
    name: str
    id: str | None = None
    """The model's own id of the call, where the format has one and it came before the arguments."""


@dataclass(frozen=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """The call is whole: only now may it be run."""

    index: int
    id: str | None = None
    """The model's own id of the call, where it came after the arguments."""


@dataclass(frozen=True)
class CallCancel:
    """The call turned out malformed: it never was one, and all that was written of it follows as Text.

    The next call takes the index again.  Who cannot take back what was sent uses `parser.Settlement`.
    """

    index: int


Event = Text | Reasoning | CallStart | CallArguments | CallEnd | CallCancel


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for."""

    id: str | None
    """The id that the model wrote; who answers a request makes one where there is none."""
    name: str
    arguments: str
    """The text of a JSON object, as the model wrote it."""

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as an object.  GenerationError where they are not one, as in a call that was cut off."""
        try:
            value = json.loads(self.arguments, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            raise self._bad("are not valid JSON") from error
        if not isinstance(value, dict):
            raise self._bad("are not a JSON object")
        return value

    def _bad(self, why: str) -> GenerationError:
        return GenerationError(f"The arguments of a call of {self.name!r} {why}.", where=shown(self.arguments))


@dataclass(frozen=True)
class Message:
    """An answer, taken apart."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


def assemble(events: Iterable[Event]) -> Message:
    """The message that events add up to; of a stream that still runs, an open call with its arguments so far."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, tuple[CallStart, list[str]]] = {}
    ids: dict[int, str | None] = {}
    for event in events:
        match event:
            case Text(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallStart(index, _, id):
                calls[index] = (event, [])
                ids[index] = id
            case CallArguments(index, text):
                calls[index][1].append(text)
            case CallEnd(index, id):
                ids[index] = ids[index] or id
            case CallCancel(index):
                del calls[index], ids[index]
    made = (ToolCall(ids[index], start.name, "".join(parts)) for index, (start, parts) in calls.items())
    return Message("".join(content), "".join(reasoning), tuple(made))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
