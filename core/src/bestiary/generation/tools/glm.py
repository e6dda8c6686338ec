"""GLM 4.5 to 4.7: `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>`.

White space may stand between the elements.  Also spoken by Ling 3, Spark 2.5 and Laguna.  Source: the chat templates of
their model cards.
"""

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.element_arguments import ElementArguments, element_text
from bestiary.generation.tools.element_form import ElementForm
from bestiary.generation.tools.offered import NAME, NAME_LENGTH
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Markers, Step

LINES = ToolForm(
    "<tool_call>",
    "\n",
    "</tool_call>",
    marker="<tool_call>",
    arguments=ElementForm("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", never=("</arg_value>",)),
)

FLAT = ToolForm(
    "<tool_call>",
    "",
    "</tool_call>",
    between="",
    marker="<tool_call>",
    arguments=ElementForm("<arg_key>", "</arg_key><arg_value>", "</arg_value>", never=("</arg_value>",)),
)


class GlmParser(GrammarParser):
    """Values are written as they are, strings without quotes and anything else as JSON."""

    markers = Markers("<tool_call>")
    breaks = ("<tool_call>",)
    _key_end = Markers("</arg_key>")
    _value_end = Markers("</arg_value>")

    def call(self, marker: str) -> Step[None]:
        reader = self.reader
        yield from reader.spaces()
        name = yield from reader.word(NAME, NAME_LENGTH)
        yield from reader.spaces()
        if (yield from reader.starts("<arg_key>", "</tool_call>")) is None:
            raise Malformed
        arguments = ElementArguments(self, name)
        while (yield from reader.expect("<arg_key>", "</tool_call>")) == "<arg_key>":
            key = yield from element_text(reader, self._key_end, "<arg_value>")
            yield from reader.expect("<arg_value>")
            arguments.add(key, (yield from element_text(reader, self._value_end, "<arg_key>", "</tool_call>")))
        arguments.end()
