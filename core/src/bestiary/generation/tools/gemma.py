"""The three ways in which Gemma models call.

Gemma 3 has no tokens for it; it follows the prompt: a fenced `tool_code` block with Python calls, a bare or fenced JSON
object, or a list of Python calls (ai.google.dev/gemma/docs/capabilities/function-calling).  Gemma 4 writes
`<|tool_call>call:NAME{key:value}<tool_call|>` with strings between `<|"|>`, FunctionGemma `<start_function_call>...
<end_function_call>` with strings between `<escape>` (the chat templates of the model cards).
"""

import re
from typing import ClassVar

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.json_calls import calls
from bestiary.generation.tools.literals import PYTHON, Notation, Quote, literal
from bestiary.generation.tools.notation_form import NotationForm
from bestiary.generation.tools.offered import NAME, NAME_LENGTH
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Markers, Step

_KEYWORD = re.compile(r"[A-Za-z0-9_]+")
_KEYWORD_LENGTH = 128

GEMMA3 = ToolForm(
    '{"name": "',
    '", "parameters": ',
    "}",
    between=", ",
    opens="[",
    closes="]",
    single=True,
    others=("```tool_code", "```json"),
)
FUNCTION_GEMMA = ToolForm(
    "<start_function_call>call:",
    "",
    "<end_function_call>",
    between="",
    marker="<start_function_call>",
    arguments=NotationForm("<escape>"),
)
GEMMA4 = ToolForm(
    "<|tool_call>call:",
    "",
    "<tool_call|>",
    between="",
    marker="<|tool_call>",
    reasoning=("<|channel>thought\n", "<channel|>"),
    arguments=NotationForm('<|"|>'),
)


class Gemma3Parser(GrammarParser):
    """JSON must be a strict call object; Python calls take keyword arguments of literals, and nothing is evaluated."""

    markers = Markers("```tool_code", "```json")

    def main(self) -> Step[None]:
        self.reader.begin()
        yield from self.reader.spaces()
        first = yield from self.reader.peek()
        if first not in ("{", "["):
            self.text(self.reader.taken())
        elif (yield from self.attempt(self._bare())):
            yield from self.after_call()
        yield from super().main()

    def call(self, marker: str) -> Step[None]:
        yield from self.reader.spaces()
        if marker == "```json":
            yield from calls(self, strict=True)
        else:
            yield from self._python_calls("```")
        yield from self.reader.spaces()
        yield from self.reader.expect_or_end("```")

    def _bare(self) -> Step[None]:
        if (yield from self.reader.starts("[{", "[ ", "[\n", "{")):
            return (yield from calls(self, strict=True))
        yield from self.reader.expect("[")
        yield from self._python_calls("]")
        yield from self.reader.expect("]")
        return None

    def _python_calls(self, end: str) -> Step[None]:
        """At least one call, up to `end` or the end of the text, which are not taken."""
        reader = self.reader
        while True:
            yield from self._python_call()
            yield from reader.spaces()
            if (yield from reader.accept(",", ";")):
                yield from reader.spaces()
            if (yield from reader.starts(end)) or not (yield from reader.peek()):
                return

    def _python_call(self) -> Step[None]:
        reader = self.reader
        name = yield from reader.word(NAME, NAME_LENGTH)
        yield from reader.expect("(")
        printed = name == "print" and not self.offered.names("print")
        if printed:
            name = yield from reader.word(NAME, NAME_LENGTH)
            yield from reader.expect("(")
        self.start(name)
        yield from self._keywords()
        if printed:
            yield from reader.spaces()
            yield from reader.expect(")")

    def _keywords(self) -> Step[None]:
        reader = self.reader
        before = "{"
        yield from reader.spaces()
        if (yield from reader.accept(")")):
            return self.arguments("{}")
        while True:
            yield from reader.spaces()
            key = yield from reader.word(_KEYWORD, _KEYWORD_LENGTH)
            yield from reader.spaces()
            yield from reader.expect("=")
            self.arguments(f'{before}"{key}": ')
            yield from literal(reader, PYTHON, self.arguments)
            yield from reader.spaces()
            if (yield from reader.expect(",", ")")) == ")":
                return self.arguments("}")
            before = ", "


def _notation(quote: str) -> Notation:
    """Strings have no escapes; the keys of objects are bare, and null is the word that the template prints."""
    return Notation(
        quotes=(Quote(quote, quote), Quote('"', '"', escapes=True)),
        words=PYTHON.words,
        brackets={"[": "]", "{": "}"},
        bare_keys=True,
    )


class FunctionGemmaParser(GrammarParser):
    """`call:NAME{...}` between two markers."""

    markers = Markers("<start_function_call>")
    end: ClassVar[str] = "<end_function_call>"
    notation: ClassVar[Notation] = _notation("<escape>")

    def call(self, marker: str) -> Step[None]:
        reader = self.reader
        yield from reader.expect("call:")
        name = yield from reader.word(NAME, NAME_LENGTH)
        if (yield from reader.peek()) != "{":
            raise Malformed
        self.start(name)
        yield from literal(reader, self.notation, self.arguments)
        yield from reader.expect_or_end(self.end)


class Gemma4Parser(FunctionGemmaParser):
    """It also writes its reasoning as a channel, `<|channel>thought` to `<channel|>`; other such marks are dropped."""

    markers = Markers("<|tool_call>", "<|channel>", "<channel|>")
    reasons = True
    end = "<tool_call|>"
    notation = _notation('<|"|>')
    _thought_end = Markers("\n<channel|>", "<channel|>")

    def call(self, marker: str) -> Step[None]:
        if marker == "<|tool_call>":
            yield from super().call(marker)
        elif marker == "<|channel>" and (yield from self.reader.accept("thought\n")):
            self.reader.taken()
            end = yield from self.reader.until(self._thought_end, self.reasoning)
            self.reader.take(self.reader.at + len(end or ""))
        elif marker == "<|channel>" and not (yield from self.at_border()):
            raise Malformed
