"""Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`.

Also spoken by Qwen 3.5, Nemotron 3 Nano and Step 3.5.  Source: the chat templates of their model cards.
"""

import re

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.element_arguments import ElementArguments, element_text
from bestiary.generation.tools.element_form import ElementForm
from bestiary.generation.tools.offered import NAME, NAME_LENGTH
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Markers, Step

_KEY = re.compile(r"[^<>\n]+")
_KEY_LENGTH = 128

FORM = ToolForm(
    "<tool_call>\n<function=",
    ">\n",
    "</function>\n</tool_call>",
    marker="<tool_call>",
    others=("<function=",),
    arguments=ElementForm("<parameter=", ">\n", "\n</parameter>\n", never=("</parameter>",)),
)


class QwenCoderParser(GrammarParser):
    """The models at times leave out `<tool_call>`, so `<function=` begins a call too.

    One line break after the opening tag and one before the closing tag belong to the layout, not to the value.
    """

    markers = Markers("<tool_call>", "<function=")
    closing = ("</tool_call>",)
    breaks = ("<tool_call>",)
    _parameter_end = Markers("</parameter>")

    def call(self, marker: str) -> Step[None]:
        reader = self.reader
        if marker == "<tool_call>":
            yield from reader.spaces()
            yield from reader.expect("<function=")
        name = yield from reader.word(NAME, NAME_LENGTH)
        yield from reader.expect(">")
        arguments = ElementArguments(self, name)
        yield from reader.spaces()
        while (yield from reader.expect("<parameter=", "</function>")) == "<parameter=":
            key = yield from reader.word(_KEY, _KEY_LENGTH)
            yield from reader.expect(">")
            value = yield from element_text(reader, self._parameter_end, "<parameter=", "</function>")
            arguments.add(key, value.removeprefix("\n").removesuffix("\n"))
        arguments.end()
