"""Llama 3: `<|python_tag|>{...}`, a bare {"name": ..., "parameters": {...}}, `<function=name>{...}</function>`.

Source: the prompt formats of Llama 3.1, 3.2 and 3.3 on llama.com, and the chat templates of the model cards.
"""

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.json_calls import arguments_object, call_object
from bestiary.generation.tools.offered import NAME, NAME_LENGTH
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Markers, Step

OBJECTS = ToolForm('{"name": "', '", "parameters": ', "}", between="; ", others=("<|python_tag|>", "<function="))
TAGS = ToolForm("<function=", ">", "</function>", between="", marker="<function=", others=("<|python_tag|>",))


class LlamaTagParser(GrammarParser):
    """After `<|python_tag|>` the model may also write code for its own interpreter: that is Text."""

    markers = Markers("<|python_tag|>", "<function=")

    def call(self, marker: str) -> Step[None]:
        if marker == "<function=":
            name = yield from self.reader.word(NAME, NAME_LENGTH)
            yield from self.reader.expect(">")
            self.start(name)
            yield from self.reader.spaces()
            yield from arguments_object(self.reader, self.arguments)
            yield from self.reader.spaces()
            yield from self.reader.expect("</function>")
        else:
            yield from self.reader.spaces()
            yield from call_object(self)


class LlamaParser(LlamaTagParser):
    """A bare object counts at the beginning of the answer and after another call, where ";" may separate them."""

    def main(self) -> Step[None]:
        yield from self._objects(first=True)
        yield from super().main()

    def after_call(self) -> Step[None]:
        yield from self._objects(first=False)

    def _objects(self, first: bool) -> Step[None]:
        while (yield from self._object_follows(first)):
            if not (yield from self.attempt(call_object(self, strict=True))):
                return
            first = False

    def _object_follows(self, first: bool) -> Step[bool]:
        """Whether an object comes next; what else it took is Text, or layout after a call."""
        self.reader.begin()
        yield from self.reader.spaces()
        separated = not first and (yield from self.reader.accept(";"))
        if separated:
            yield from self.reader.spaces()
        if (yield from self.reader.peek()) == "{":
            return True
        layout = not first and not separated and (yield from self.at_border())
        taken = self.reader.taken()
        if not layout:
            self.text(taken)
        return False
