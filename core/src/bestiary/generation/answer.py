"""What a chat model writes, taken apart while it comes: content, reasoning and tool calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from bestiary.generation.completion import Chunk, Completion
from bestiary.generation.detokenizer import Detokenizer
from bestiary.generation.tokenizer import Tokenizer
from bestiary.generation.tools.answer_grammar import Thinking
from bestiary.generation.tools.choose import detect, form_of, parser_class, parser_of
from bestiary.generation.tools.events import Event, Message, assemble
from bestiary.generation.tools.parser import ToolParser
from bestiary.generation.tools.reasoning import Reasoned, ReasoningSplit, reasoning_markers
from bestiary.generation.tools.special_texts import SpecialTexts
from bestiary.records import ToolFormat
from bestiary.registry import Registry

_TAIL = 32
"""Tokens at the end of a prompt among which its opened or closed reasoning would show."""


class AnswerStream:
    """One answer as it comes.  The events of all pushes and of `finish` add up to the same message, however it is cut.

    The tokens of a chunk tell where special tokens stand in the text, which leaves them out; of the text only what the
    chunks hand out counts, so that nothing behind a stop string is read.
    """

    def __init__(self, parser: ToolParser, tokenizer: Tokenizer, ends: frozenset[int]) -> None:
        self._parser, self._tokenizer, self._ends = parser, tokenizer, ends
        self._detokenizer = Detokenizer(tokenizer)
        self._placed = tokenizer.pieces.local and not tokenizer.clean_up  # Else text comes at the end, in one piece.
        self._made = self._given = 0  # Characters that the tokens so far make, and that chunks handed out.
        self._special: deque[tuple[int, str]] = deque()  # With the character that each stands before.
        self._texts = SpecialTexts()

    def push(self, chunk: Chunk) -> tuple[Event, ...]:
        """What became certain with this chunk."""
        tokens = chunk.tokens
        if chunk.finish_reason == "stop" and tokens and tokens[-1] in self._ends:
            tokens = tokens[:-1]
        for token in tokens if self._placed else ():
            if self._tokenizer.is_special(token):
                self._special.append((self._made, self._tokenizer.token(token)))
            else:
                self._made += len(self._detokenizer.push(token))
        events: list[Event] = []
        text, end = chunk.text, self._given + len(chunk.text)
        while self._special and self._special[0][0] <= end:
            place, special = self._special.popleft()
            before, text = text[: place - self._given], text[place - self._given :]
            events += self._read(before)
            self._given = place
            self._texts.add(special)
            events += self._read(special)
        events += self._read(text)
        self._given = end
        return tuple(events)

    def finish(self) -> tuple[Event, ...]:
        """The rest, after the last chunk."""
        return tuple(self._texts.taken_out(self._parser.finish(), last=True))

    def _read(self, text: str) -> list[Event]:
        return self._texts.taken_out(self._parser.push(text)) if text else []


class AnswerReader:
    """Reads answers in the forms that a chat template speaks: its tool-call format and its reasoning markers."""

    def __init__(
        self,
        chat_template: str,
        tokenizer: Tokenizer,
        format: ToolFormat | None = None,
        registry: Registry | None = None,
    ) -> None:
        """`format` is what the template shows, where it is not given; where that is none, calls are generic."""
        self.format = format or detect(chat_template, registry)
        self._markers = reasoning_markers(chat_template)
        self._tokenizer = tokenizer

    def open(
        self,
        prompt: Sequence[int],
        tools: Sequence[Mapping[str, Any]] | None,
        ends: frozenset[int],
        begun: bool | None = None,
    ) -> AnswerStream:
        """A new answer to `prompt`, whose end tells whether it begins inside of reasoning.

        `begun` says so instead: True where the prompt stops in the middle of it, False where there is none to come.
        Only calls of `tools` are calls; without any, nothing is.  `ends` are the tokens that end an answer.
        """
        parser: ToolParser = parser_of(self.format, tools or [])
        if self._markers is not None and not self._reasons:
            thinking = self._thinking(self._markers, prompt, begun)
            started = thinking is not None and thinking.begun
            breaks = getattr(parser, "breaks", ())
            split = ReasoningSplit(*self._markers, started=started, breaks=breaks, continued=begun is True)
            parser = Reasoned(split, parser)
        return AnswerStream(parser, self._tokenizer, ends)

    def read(
        self, answer: Completion, prompt: Sequence[int], ends: frozenset[int], tools: Sequence[Mapping[str, Any]] | None
    ) -> Message:
        """The message of a whole answer; the arguments are those of `open`."""
        stream = self.open(prompt, tools, ends)
        whole = Chunk(answer.text, answer.tokens, finish_reason=answer.finish_reason)
        return assemble([*stream.push(whole), *stream.finish()])

    def inside(self, text: str) -> bool:
        """Whether an answer of which this is the beginning is still reasoning."""
        return self._markers is not None and text.rfind(self._markers[0]) > text.rfind(self._markers[1])

    def thinking(self, prompt: Sequence[int], begun: bool | None = None) -> Thinking | None:
        """The reasoning with which an answer begins or may begin; None where there is none, or the prompt closed it."""
        markers = getattr(self.form, "reasoning", None) or (None if self._reasons else self._markers)
        return None if markers is None else self._thinking(markers, prompt, begun)

    @cached_property
    def form(self) -> Any:
        """The form in which a grammar writes calls; None where the format has none."""
        return form_of(self.format)

    def _thinking(self, markers: tuple[str, str], prompt: Sequence[int], begun: bool | None) -> Thinking | None:
        start, end = markers
        tail = self._tokenizer.decode(prompt[-_TAIL:], skip_special_tokens=False).rstrip()
        if begun is False or (begun is None and tail.endswith(end.strip())):
            return None
        return Thinking(start, end, begun or tail.endswith(start.rstrip()))

    @cached_property
    def _reasons(self) -> bool:
        return bool(getattr(parser_class(self.format), "reasons", False))
