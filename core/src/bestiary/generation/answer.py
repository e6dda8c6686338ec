"""What a chat model wrote, taken apart: content, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.generation.completion import Completion
from bestiary.generation.tokenizer import Tokenizer
from bestiary.generation.tools.choose import detect, make_parser
from bestiary.generation.tools.events import Message, assemble
from bestiary.generation.tools.parser import ToolParser
from bestiary.generation.tools.reasoning import Reasoned, ReasoningSplit, reasoning_markers

_TAIL = 16
"""Tokens at the end of a prompt among which its opened reasoning would show."""


class AnswerReader:
    """Reads answers in the forms that a chat template speaks: its tool-call format and its reasoning markers."""

    def __init__(self, chat_template: str, tokenizer: Tokenizer) -> None:
        self.format = detect(chat_template)
        self.markers = reasoning_markers(chat_template)
        self._tokenizer = tokenizer

    def read(
        self, answer: Completion, prompt: Sequence[int], ends: frozenset[int], tools: Sequence[Mapping[str, Any]] | None
    ) -> Message:
        """The message of an answer.  Without `tools` nothing in it is a call."""
        parser: ToolParser = make_parser(self.format or "generic", tools or [])
        if self.markers is not None and self.format != "harmony":
            parser = Reasoned(ReasoningSplit(*self.markers, started=self._begun(prompt)), parser)
        return assemble([*parser.push(self._text(answer, ends)), *parser.finish()])

    def _begun(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt itself opened the reasoning, so that the answer begins inside it."""
        assert self.markers is not None
        tail = self._tokenizer.decode(prompt[-_TAIL:], skip_special_tokens=False)
        return tail.rstrip().endswith(self.markers[0])

    def _text(self, answer: Completion, ends: frozenset[int]) -> str:
        """With the special tokens, for markers may be among them; as it was cut, where a stop string ended it."""
        tokens = list(answer.tokens)
        if tokens and tokens[-1] in ends:
            tokens.pop()
        elif answer.finish_reason == "stop":
            return answer.text
        return self._tokenizer.decode(tokens, skip_special_tokens=False)
