"""The grammar of a whole answer in which calls of tools must come, or must be right where they come."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bestiary.generation.constraints.grammar import Grammar
from bestiary.generation.constraints.lark_text import quoted
from bestiary.generation.constraints.tools import Rules, ToolForm, write_calls, write_tools

# As json.dumps writes it, or without any: a model whose next token is masked out easily goes on with line breaks.
_OPTIONS: Mapping[str, Any] = {"whitespace_pattern": r"[\x20]"}


@dataclass(frozen=True)
class Thinking:
    """Reasoning at the beginning of an answer."""

    start: str
    end: str
    begun: bool
    """The prompt has opened it; else the model may."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of an answer."""

    tools: Sequence[Mapping[str, Any]]
    """The tools that may be called, as `validate_tools` has them."""
    required: bool
    """The answer is calls; else it is any text, in which whatever announces a call is followed by one."""
    parallel: bool = True
    """Whether there may be more than one call."""
    thinking: Thinking | None = None


class AnswerForm(Protocol):
    """A form whose answers are more than text and calls, and which therefore writes the grammar itself."""

    tool_form: ToolForm

    def write(self, rules: Rules, wanted: Wanted) -> None:
        """Adds the rule `start`; the rules of `write_tools` are there."""

    def write_answer(self, rules: Rules, answer: str) -> None:
        """Adds the rule `start`, for answers whose text is the expression `answer`."""


def answer_grammar(form: ToolForm | AnswerForm, wanted: Wanted, special: Mapping[str, int]) -> Grammar:
    """The grammar of the answers wanted.

    `special` are the texts and ids of the vocabulary's special tokens.  Schemas are enforced; that of a tool whose
    "strict" is not true, where it can be.  RequestError for a strict tool whose schema cannot.
    """
    rules = _rules(special)
    calls = form if isinstance(form, ToolForm) else form.tool_form
    write_tools(rules, wanted.tools, calls, _OPTIONS, lenient=True)
    if not isinstance(form, ToolForm):
        form.write(rules, wanted)
    elif wanted.required:
        made = write_calls(rules, form, None if wanted.parallel else 1)
        rules.add("start", f"{_thinking(rules, form, wanted, among_text=False)} {made}")
    elif form.marker:
        _announced(rules, form, wanted)
    else:
        _unannounced(rules, form, wanted)
    return Grammar(str(rules), "tool_call")


def framed(
    answer: Grammar, form: ToolForm | AnswerForm | None, thinking: Thinking | None, special: Mapping[str, int]
) -> Grammar:
    """The grammar of an answer behind what must come before it: reasoning that the prompt has begun, or headers.

    A model that may begin to reason by itself may not here: the answer is the whole text.
    """
    rules = _rules(special)
    parts = _parts(answer)
    name = parts[0].setdefault("name", "answer")
    if form is not None and not isinstance(form, ToolForm):
        form.write_answer(rules, f"@{name}")
    elif thinking is not None and thinking.begun:
        rules.add("start", f"{rules.until('inside', thinking.end)} SPACE? @{name}")
    else:
        return answer
    whole = {"grammars": [{"lark_grammar": str(rules)}, *parts]}
    return replace(answer, text=json.dumps(whole, ensure_ascii=False))


def _rules(special: Mapping[str, int]) -> Rules:
    return Rules({text: f"<[{token}]>" for text, token in special.items()})


def _parts(grammar: Grammar) -> list[dict[str, Any]]:
    if not grammar.text.startswith('{"grammars"'):
        return [{"lark_grammar": grammar.text}]
    parts: list[dict[str, Any]] = json.loads(grammar.text)["grammars"]
    return parts


def _announced(rules: Rules, form: ToolForm, wanted: Wanted) -> None:
    """Text and calls in any order, where a marker announces each call."""
    allowed = rules.without("ALLOWED", form.others)
    plain = rules.without("PLAIN", (form.marker, *form.others))
    call = rules.add("call", write_calls(rules, form, None if form.closes and wanted.parallel else 1, marked=True))
    until = rules.until("until", form.marker, allowed)
    rules.add("body", f"({until} {call})* {plain}" if wanted.parallel else f"({until} {call})? {plain}")
    if wanted.thinking is None or wanted.thinking.begun:
        rules.add("start", f"{_thinking(rules, form, wanted)} body")
        return
    first = rules.until("first_until", form.marker, _unthinking(rules, "FIRST_ALLOWED", wanted, allowed))
    more = "body" if wanted.parallel else plain
    rules.add("unthinking", f"{_unthinking(rules, 'FIRST_PLAIN', wanted, plain)} | {first} {call} {more}")
    rules.add("start", f"{_thinking(rules, form, wanted)} body | unthinking")


def _unannounced(rules: Rules, form: ToolForm, wanted: Wanted) -> None:
    """Calls, or text that does not begin with the bracket with which calls do."""
    brackets = {text[0] for text in (form.opens + form.before_name, form.before_name)}
    rules.add("UNLIKE", rf"/\s*([^\s{''.join(map(re.escape, sorted(brackets)))}](?s:.*))?/")
    plain = rules.without("PLAIN", form.others, "UNLIKE")
    rules.add("calls", f"SPACE? {write_calls(rules, form, None if wanted.parallel else 1)} SPACE?")
    if wanted.thinking is None or wanted.thinking.begun:
        rules.add("start", f"{_thinking(rules, form, wanted)} (calls | {plain})")
        return
    first = _unthinking(rules, "FIRST_PLAIN", wanted, plain)
    rules.add("start", f"{_thinking(rules, form, wanted)} (calls | {plain}) | calls | {first}")


def _thinking(rules: Rules, form: ToolForm, wanted: Wanted, among_text: bool = True) -> str:
    """The expression of the reasoning in front of the rest; empty where there can be none.

    Where the rest is not `among_text` but calls alone, space behind the reasoning is part of it, and the model may
    leave out what the prompt has not begun.
    """
    thinking = wanted.thinking
    if thinking is None:
        return ""
    # Some models go on to a call without closing their reasoning, so a parser may take a marker in it for a call.
    inside = rules.until("inside", thinking.end, rules.without("UNMARKED", (form.marker, *form.others)))
    if thinking.begun:
        return inside if among_text else f"{inside} SPACE?"
    opened = rules.literal(thinking.start)
    if not among_text:
        return f"({opened} {inside} SPACE?)?"
    # A text could begin with the same spaces: one terminal for both, so that the longer one wins.
    opened = rules.add("OPENED", rf"/\s*/ {opened}") if opened.startswith('"') else f"SPACE? {opened}"
    return f"{opened} {inside}"


def _unthinking(rules: Rules, name: str, wanted: Wanted, of: str) -> str:
    """A terminal: as `of`, but it does not begin with reasoning."""
    assert wanted.thinking is not None
    start = quoted(wanted.thinking.start)
    return rules.add(name, rf"{of} & ~(/\s*/ {start} ANY)")
