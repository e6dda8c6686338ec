"""Messages to the tokens of a prompt, with what users write kept as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bestiary.errors import RequestError
from bestiary.generation.template import ChatTemplate
from bestiary.generation.tokenizer import Tokenizer

Message = Mapping[str, Any]
UNTRUSTED = frozenset(("user", "tool", "function", "ipython"))
"""Roles whose content comes from outside: "<|im_end|>" in it must not end the turn."""

# Private-use characters mark where a special token's text stood, while the template renders.
_OPEN, _CLOSE = "\uf8f0", "\uf8f1"
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class ChatEncoder:
    """A chat template and a tokenizer: messages in, text or token ids out."""

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, most: int | None = None, *, begins: bool = False
    ) -> None:
        """`begins`: a text without the BOS gets what the tokenizer adds to any, as processors of media have it."""
        self.template, self.tokenizer, self.most, self._begins = template, tokenizer, most, begins
        texts = sorted(tokenizer.special_texts(), key=len, reverse=True)
        self._special = re.compile("|".join((_MARK.pattern, *map(re.escape, texts))))

    def render(self, messages: str | Sequence[Message], **variables: Any) -> str:
        """The text of a conversation; a plain text is one user message.  Arguments: see `ChatTemplate.render`."""
        variables.setdefault("add_generation_prompt", not variables.get("continue_final_message"))
        return self.template.render(_as_messages(messages), **variables)

    def encode(
        self, messages: str | Sequence[Message], expand: Callable[[str], str] | None = None, **variables: Any
    ) -> list[int]:
        """The token ids of a conversation.

        The template's own special tokens are special; their texts inside user and tool messages are plain text.
        `expand` changes the text before it is cut into tokens: placeholders of media, which are the template's own,
        become what stands for them.
        """
        hidden: list[str] = []
        shielded = [self._shield(message, hidden) for message in _as_messages(messages)]
        text = self.render(shielded, **variables)
        if expand is not None:
            text = expand(text)
        begun = not self._begins or text.startswith(self.tokenizer.bos_token or "")
        first, *rest = _MARK.split(text)
        tokens = self.tokenizer.encode(first, add_special_tokens=not begun, most=self.most)
        for mark, part in zip(rest[0::2], rest[1::2], strict=True):
            tokens += self.tokenizer.encode_after(hidden[int(mark)], allow_special=False)
            tokens += self.tokenizer.encode_after(part)
        return tokens

    def _shield(self, message: Message, hidden: list[str]) -> Message:
        if message.get("role") not in UNTRUSTED:
            return message

        def hide(found: re.Match[str]) -> str:
            hidden.append(found.group())
            return f"{_OPEN}{len(hidden) - 1}{_CLOSE}"

        return {**message, "content": _each_text(message.get("content"), lambda text: self._special.sub(hide, text))}


def _each_text(content: Any, change: Callable[[str], str]) -> Any:
    """`content` with each text in it changed: a text itself, or the text parts of a list."""
    if isinstance(content, str):
        return change(content)
    if isinstance(content, list | tuple):
        return [{**part, "text": change(part["text"])} if _has_text(part) else part for part in content]
    return content


def _has_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _as_messages(messages: str | Sequence[Message]) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    made = [dict(message) for message in messages if isinstance(message, Mapping)] if _is_list(messages) else None
    if made is None or len(made) != len(messages):
        raise RequestError('Messages are a text, or a list of {"role": ..., "content": ...}.')
    return made


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
