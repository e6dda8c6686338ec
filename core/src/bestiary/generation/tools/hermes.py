"""Hermes: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

Spoken by the Hermes models (the Hermes-Function-Calling repository of Nous Research), Qwen 2.5, Qwen 3 and QwQ (the
chat templates of their model cards), Granite 4, SmolLM3, Bielik, Reka Edge and MiMo.
"""

from bestiary.generation.constraints.tools import HERMES
from bestiary.generation.tools.json_calls import calls
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Markers, Step

FORM = HERMES


class HermesParser(GrammarParser):
    """One object, or a list of them, between the tags."""

    markers = Markers("\n<tool_call>", "<tool_call>")  # The templates put a line break between text and call.

    def call(self, marker: str) -> Step[None]:
        yield from self.reader.spaces()
        yield from calls(self)
        yield from self.reader.spaces()
        yield from self.reader.expect_or_end("</tool_call>")
