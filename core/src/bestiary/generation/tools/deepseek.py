"""DeepSeek: calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`.

Between them V3 and R1 write `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, a line break, the arguments in a fenced
json block and `<｜tool▁call▁end｜>`; V3.1 writes `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`.
Source: the chat templates of the model cards.
"""

from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.tools.json_calls import arguments_object
from bestiary.generation.tools.offered import NAME, NAME_LENGTH
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Markers, Step

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

FENCED = ToolForm(
    f"{CALL}function{SEPARATOR}",
    "\n```json\n",
    f"\n```{CALL_END}",
    opens=BEGIN,
    closes=END,
    marker=BEGIN,
    others=(CALL,),
)
BARE = ToolForm(CALL, SEPARATOR, CALL_END, between="", opens=BEGIN, closes=END, marker=BEGIN, others=(CALL,))


class DeepSeekParser(GrammarParser):
    """Which of the two forms it is shows after the separator; distilled models at times leave out the outer markers."""

    markers = Markers(BEGIN, CALL)
    closing = (END,)

    def call(self, marker: str) -> Step[None]:
        reader = self.reader
        if marker == BEGIN:
            yield from reader.spaces()
            yield from reader.expect(CALL)
        name = yield from reader.word(NAME, NAME_LENGTH)
        yield from reader.expect(SEPARATOR)
        yield from reader.spaces()
        fenced = (yield from reader.peek()) != "{"
        if fenced:
            if name != "function":
                raise Malformed
            name = yield from reader.word(NAME, NAME_LENGTH)
            yield from reader.spaces()
            yield from reader.expect("```json")
            yield from reader.spaces()
        self.start(name)
        yield from arguments_object(reader, self.arguments)
        yield from reader.spaces()
        if fenced:
            yield from reader.expect_or_end("```")
            yield from reader.spaces()
        yield from reader.expect_or_end(CALL_END)
