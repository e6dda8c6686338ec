"""What the process of an engine hears and says: lines of JSON on its standard input and output.

    {"do": "load", "path": ..., "threads": 2, "context": 641, "together": 1504}
        the model, for requests of at most so many tokens each, and so many of all requests at once
    {"do": "check", "prompt": {"text", "tokens"}}
        {"text", "logprob"} of the most probable next token
    {"do": "answer", "prompts": [{"text", "tokens"}], "count": 129}
        greedy answers of just so many tokens to all of them at once

An answer is, for each prompt, {"times": seconds from the call to each piece, "tokens": how many were made, "prompt":
how many tokens of the prompt the engine saw}.  A piece is a token where there are as many times as tokens.
Nothing here is imported beyond Python's own library: peers run in an environment of theirs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TypedDict


class Prompt(TypedDict):
    text: str
    tokens: list[int]


class Checked(TypedDict):
    text: str
    logprob: float


class Answer(TypedDict):
    times: list[float]
    tokens: int
    prompt: int


class Engine(Protocol):
    def load(self, path: str, threads: int, context: int, together: int) -> None: ...

    def check(self, prompt: Prompt) -> Checked: ...

    def answer(self, prompts: Sequence[Prompt], count: int) -> list[Answer]: ...


def serve(engine: Engine) -> None:
    """Do what is asked until the input ends.  What the engine prints itself goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        do = getattr(engine, asked.pop("do"))
        try:
            reply = {"found": do(**asked)}
        except BaseException as error:  # a panic of Rust is no Exception
            reply = {"error": f"{type(error).__name__}: {error}"[:1000]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    os._exit(0)  # threads of an engine may be at work yet
