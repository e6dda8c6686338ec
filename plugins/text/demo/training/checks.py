"""Judges an answer by a declarative check; needs nothing but the standard library.

A check is a mapping with one or more of these entries, all of which must hold:

- `contains`: a list of texts, each of which stands in the answer as it is written
- `number`: the last number in the answer
- `numbers`: all numbers in the answer, in order
- `json`: the value that the whole answer is as JSON
- `tool_call`: `{"name": ..., "arguments": {...}}`, the answer's only tool call

An answer that is not checked for a tool call must not contain one. If the answer thinks first, only what follows
`</think>` counts.
"""

import json
import re
from typing import Any

CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


def parse(text: str) -> Any:
    """The text's JSON value, or None where it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def passes(check: dict[str, Any], answer: str) -> bool:
    unknown = set(check) - {"contains", "number", "numbers", "json", "tool_call"}
    if unknown or not check:
        raise ValueError(f"no such check: {sorted(unknown)}")
    answer = answer.split("</think>")[-1].removesuffix("<|im_end|>").strip()
    if "tool_call" in check:
        calls = CALL.findall(answer)
        return len(calls) == 1 and CALL.fullmatch(answer) is not None and parse(calls[0]) == check["tool_call"]
    numbers = [int(number) for number in re.findall(r"-?\d+", answer)]
    return (
        "<tool_call>" not in answer
        and all(text in answer for text in check.get("contains", []))
        and ("number" not in check or numbers[-1:] == [check["number"]])
        and ("numbers" not in check or numbers == check["numbers"])
        and ("json" not in check or parse(answer) == check["json"])
    )
