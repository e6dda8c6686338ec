"""One question and its answer: the unit from which the training dialogues are put together."""

import zlib
from dataclasses import dataclass, field
from random import Random
from typing import Any

Message = dict[str, Any]

SYLLABLES = [
    "ba", "be", "bi", "bo", "da", "de", "do", "fa", "fe", "ga", "go", "ka", "ke", "ki", "la", "le", "li", "lo",
    "ma", "me", "mi", "mo", "na", "ne", "no", "pa", "pe", "ra", "re", "ri", "ro", "sa", "se", "si", "so", "ta",
    "te", "ti", "to", "tu", "va", "ve", "vi", "wa", "we", "za", "zo",
]  # fmt: skip


@dataclass
class Exchange:
    """A user's question up to the assistant's last word on it.

    `key` names what is asked and how; it alone decides whether the exchange may be trained on or is held out.
    `structured` is the same answer as a JSON value, for dialogues whose system prompt asks for JSON.
    """

    kind: str
    key: tuple[Any, ...]
    messages: list[Message]
    check: dict[str, Any]
    thought: str
    structured: Any = None
    tools: list[dict[str, Any]] = field(default_factory=list)

    @property
    def held_out(self) -> bool:
        """About one key in ten, the same ones in every run."""
        return zlib.crc32(repr(self.key).encode()) % 10 == 0


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def plain(
    kind: str,
    key: tuple[Any, ...],
    question: str,
    answer: str,
    check: dict[str, Any],
    thought: str,
    structured: Any = None,
) -> Exchange:
    """The common exchange: one question, one answer."""
    messages = [user(question), assistant(answer)]
    return Exchange(kind, (kind, *key), messages, check, thought, structured or {"answer": answer})


def roughen(text: str, dice: Random) -> str:
    """The text as a hurried person types it: lower case, no final mark, now and then two letters swapped."""
    if dice.random() < 0.15:
        text = text.lower()
    elif dice.random() < 0.04:
        text = text.upper()
    if dice.random() < 0.12:
        text = text.rstrip("?.!")
    if dice.random() < 0.06:
        places = [i for i in range(1, len(text) - 1) if text[i : i + 2].isalpha() and text[i : i + 2].islower()]
        if places:
            place = dice.choice(places)
            text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    if dice.random() < 0.06:
        text = dice.choice(["Please: ", "Hey, ", "Tell me: ", "One question: ", "Quick: "]) + text
    return text


def invented_name(dice: Random) -> str:
    """A name that exists nowhere, so that it can only be copied from the question."""
    syllables = dice.choices(SYLLABLES[:25], k=9) + dice.choices(SYLLABLES[25:], k=9)
    dice.shuffle(syllables)
    ending = dice.choice(["", "", "n", "r", "s", "l", "th", "ck", "m", "burg", "ville", "ton"])
    return ("".join(syllables[: dice.randint(2, 3)]) + ending).capitalize()
