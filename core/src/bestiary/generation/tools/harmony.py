"""Harmony, the format of GPT-OSS: messages with a channel and, where they are calls, a recipient.

`<|channel|>analysis<|message|>` opens reasoning, `<|channel|>final<|message|>` text, and
`<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>` the arguments of a call; `<|end|>`, `<|call|>` or
`<|return|>` ends a message and `<|start|>assistant` opens the header of the next.  Source: the openai-harmony
documentation (OpenAI cookbook, "OpenAI harmony response format").
"""

from itertools import pairwise

from bestiary.generation.tools.json_calls import arguments_object
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Markers, Step

_HEADERS = ("<|start|>", "<|channel|>")
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_FIRST = (" to=", "<|message|>")
"""What the first header may begin with besides."""
_HEADER_LENGTH = 512


class HarmonyParser(GrammarParser):
    """The prompt ends in `<|start|>assistant`, so the answer begins inside a header; one that does not is plain text.

    A message to a recipient that is not an offered function is Text with its header.
    """

    markers = Markers(*_HEADERS)
    reasons = True
    _message = Markers("<|message|>", *_ENDS)
    _body_end = Markers(*_HEADERS, *_ENDS)

    def main(self) -> Step[None]:
        if (yield from self.reader.starts(*_FIRST)):
            yield from self._try_message()
        while (yield from self.reader.until(self.markers, self.text)) is not None:
            yield from self._try_message()

    def _try_message(self) -> Step[None]:
        self.reader.begin()
        yield from self.attempt(self._read_message())

    def _read_message(self) -> Step[None]:
        channel, recipient = yield from self._header()
        if recipient is None:
            self.reader.taken()
            sink = self.reasoning if channel == "analysis" else self.text
            yield from self.reader.until(self._body_end, sink)
            yield from self.reader.accept(*_ENDS)
            return
        if not recipient.startswith("functions."):
            raise Malformed
        self.start(recipient.removeprefix("functions."))
        yield from self.reader.spaces()
        if (yield from self.reader.accept(*_ENDS)):  # Not so at the end of the text: that call may have been cut off.
            self.arguments("{}")
            return
        yield from arguments_object(self.reader, self.arguments)
        yield from self.reader.spaces()
        if not (yield from self.reader.starts(*_HEADERS)):
            yield from self.reader.expect_or_end(*_ENDS)

    def _header(self) -> Step[tuple[str | None, str | None]]:
        """The channel and the recipient, the last of each that the header names."""
        parts: list[str] = []
        length = 0

        def keep(text: str) -> None:
            nonlocal length
            parts.append(text)
            length += len(text)
            if length > _HEADER_LENGTH:
                raise Malformed

        if (yield from self.reader.until(self._message, keep)) != "<|message|>":
            raise Malformed
        yield from self.reader.expect("<|message|>")
        header = "".join(parts)
        for mark in ("<|start|>", "<|channel|>", "<|constrain|>"):
            header = header.replace(mark, f" {mark} ")
        words = header.split()
        channels = [after for word, after in pairwise(words) if word == "<|channel|>"]
        recipients = [word.removeprefix("to=") for word in words if word.startswith("to=") and word != "to=assistant"]
        return channels[-1] if channels else None, recipients[-1] if recipients else None
