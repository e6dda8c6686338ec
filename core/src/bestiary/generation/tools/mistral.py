"""Mistral: `[TOOL_CALLS] [{"name": ..., "arguments": {...}, "id": ...}]`, and `[TOOL_CALLS]name[ARGS]{...}`.

The list is of tokenizer versions 2 to 7, the shorter form of 11 and later, with `[CALL_ID]id` before `[ARGS]` in the
templates of Mistral Small 3.2.  Source: the mistral-common package and the chat templates of the model cards.
"""

import re
from dataclasses import replace

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.json_calls import arguments_object, calls
from bestiary.generation.tools.offered import NAME, NAME_LENGTH
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Markers, Step

_ID = re.compile(r"[A-Za-z0-9_-]+")

LIST = ToolForm(
    '{"name": "',
    '", "arguments": ',
    "}",
    between=", ",
    opens="[TOOL_CALLS][",
    closes="]",
    marker="[TOOL_CALLS]",
    spaced=True,
    late_id=(', "id": "', '"'),
)
ARGS = ToolForm("[TOOL_CALLS]", "[ARGS]", "", between="", marker="[TOOL_CALLS]")
IDS = replace(ARGS, before_id="[CALL_ID]")


class MistralParser(GrammarParser):
    """In the shorter form every call has a marker of its own."""

    markers = Markers("[TOOL_CALLS]")

    def call(self, marker: str) -> Step[None]:
        reader = self.reader
        yield from reader.spaces()
        if (yield from reader.peek()) in ("[", "{"):
            yield from calls(self)
            return
        name = yield from reader.word(NAME, NAME_LENGTH)
        id = None
        if (yield from reader.expect("[ARGS]", "[CALL_ID]")) == "[CALL_ID]":
            id = yield from reader.word(_ID, NAME_LENGTH)
            yield from reader.expect("[ARGS]")
        self.start(name, id)
        yield from reader.spaces()
        yield from arguments_object(reader, self.arguments)
