"""Generic: an answer that is one JSON object with name and arguments, or a list of them, and nothing else.

For models that were told so in words, and for answers that a grammar constrained.
"""

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.json_calls import calls
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Step

FORM = ToolForm('{"name": "', '", "arguments": ', "}", between=", ", opens="[", closes="]", single=True)


class GenericParser(GrammarParser):
    """Any text before or after, any other key, and all of it is Text: an answer in JSON must not become a call."""

    def main(self) -> Step[None]:
        self.reader.begin()
        if not (yield from self.attempt(self._whole())):
            yield from self.reader.rest(self.text)

    def _whole(self) -> Step[None]:
        yield from self.reader.spaces()
        yield from calls(self, strict=True)
        yield from self.reader.spaces()
        if (yield from self.reader.peek()):
            raise Malformed
