"""Calls of tools as texts: the form in which a family of models writes them, and the rules of the calls allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.lark_text import quoted
from bestiary.generation.constraints.limits import LIMITS
from bestiary.generation.constraints.schema import prepare

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ID = "/[A-Za-z0-9]{9}/"


class Rules:
    """A Lark grammar while it is written, for one vocabulary.

    A special token in a text stands for itself: it must come as that token, and not spelled with others.
    """

    def __init__(self, special: Mapping[str, str]) -> None:
        """`special` has the texts of special tokens, and how a grammar names each: "<[5]>" by its id."""
        self._special = special
        texts = sorted(filter(None, special), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, texts)) + ")") if texts else None
        self._bodies: dict[str, str] = {"ANY": "/(?s:.*)/", "SPACE": r"/[ \t\r\n]{1,8}/"}

    def __str__(self) -> str:
        return "\n".join(f"{name}: {body}" for name, body in self._bodies.items())

    def add(self, name: str, body: str) -> str:
        """Writes a rule, or a terminal where the name is in capitals, and returns the name."""
        self._bodies[name] = body
        if len(self._bodies) > LIMITS.definitions:
            raise RequestError(f"The grammar of the tools has more than {LIMITS.definitions} rules.", where="tools")
        return name.partition("[")[0]

    def literal(self, text: str) -> str:
        """Exactly this text."""
        return " ".join(self._special.get(part, quoted(part)) for part in self._parts(text)) or '""'

    def one_of(self, texts: Sequence[str]) -> str:
        return "(" + " | ".join(map(self.literal, texts)) + ")"

    def without(self, name: str, texts: Sequence[str], of: str = "ANY") -> str:
        """A terminal: what matches the terminal `of` and has none of the texts in it; an empty one asks nothing."""
        due = [quoted(text) for text in dict.fromkeys(texts) if text]
        return self.add(name, f"{of} & ~(ANY ({' | '.join(due)}) ANY)") if due else of

    def until(self, name: str, end: str, of: str = "ANY") -> str:
        """A rule: any text that matches the terminal `of`, up to the first `end`, which it takes."""
        first, *rest = self._parts(end)
        if first in self._special:
            body = self.without(f"BEFORE_{name.upper()}", [end], of)
            return self.add(name, f"{body} {self.literal(end)}")
        head = self.add(f"{name}_head[lazy]" if rest else f"{name}[lazy]", f"{of} {quoted(first)}")
        return self.add(name, f"{head} {self.literal(''.join(rest))}") if rest else head

    def closed(self, name: str, body: str, end: str, never: Sequence[str]) -> str:
        """An expression: what matches the terminal `body` without any text of `never`, which is in `end`, and `end`."""
        bare = self.without(f"{name.upper()}_TEXT", never, body)
        first, *rest = self._parts(end)
        if first in self._special:
            return f"{bare} {self.literal(end)}"
        whole = self.add(name.upper(), f"{bare} {quoted(first)}")
        return f"{whole} {self.literal(''.join(rest))}" if rest else whole

    def _parts(self, text: str) -> list[str]:
        return [part for part in self._split.split(text) if part] if self._split else [text] if text else []


class Arguments(Protocol):
    """How a form writes arguments that are not one JSON value."""

    def write(self, rules: Rules, name: str, schema: Mapping[str, Any], prepared: Mapping[str, Any]) -> str:
        """Adds rules, whose names begin with `name`, and returns the expression of all the arguments.

        `prepared` is the schema as `constraints.schema.prepare` has it.  RequestError for a keyword that this form
        cannot hold a model to.
        """


@dataclass(frozen=True)
class ToolForm:
    """The texts around the names of tools and their arguments."""

    before_name: str
    before_arguments: str
    after: str
    between: str = "\n"
    """Between two calls."""
    opens: str = ""
    """Before the first call."""
    closes: str = ""
    """After the last call."""
    marker: str = ""
    """The beginning of `opens` and `before_name` together that announces a call anywhere in an answer.  Empty: nothing
    announces calls, and an answer that has any begins with them."""
    others: tuple[str, ...] = ()
    """Further texts that the parser takes for the beginning of a call; where calls are enforced, no text has them."""
    single: bool = False
    """Whether a call that is alone goes without `opens` and `closes`."""
    spaced: bool = False
    """Whether a space may follow the marker: some tokenizers put one there."""
    before_id: str = ""
    """Where not empty, an id of nine letters and digits may stand behind this text, after the name."""
    late_id: tuple[str, str] | None = None
    """Where not None, such an id may stand between these texts, after the arguments."""
    reasoning: tuple[str, str] | None = None
    """The markers of reasoning that the form has of its own."""
    arguments: Arguments | None = None
    """None: one JSON value."""


HERMES = ToolForm('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", marker="<tool_call>")
"""Of NousResearch's Hermes, which Qwen and others follow."""


def rule(
    offered: Sequence[Any], form: ToolForm, most: int, special_tokens: Sequence[str], options: Mapping[str, Any]
) -> str:
    """The grammar of up to `most` calls.  RequestError for a tool without a name or with a schema that is refused."""
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= LIMITS.tools:
        raise RequestError(f"most is {shown(most)}; a whole number from 1 to {LIMITS.tools} is due.")
    rules = Rules({text: text for text in special_tokens})
    write_tools(rules, offered, form, options)
    rules.add("start", write_calls(rules, form, most))
    return str(rules)


def write_tools(
    rules: Rules, offered: Sequence[Any], form: ToolForm, options: Mapping[str, Any], lenient: bool = False
) -> None:
    """Adds the rule `chosen`: the name of one of the tools, and its arguments.

    Tool i has the rules `tool_i`, and in it `arguments_i`.  `options` are llguidance's for JSON.  `lenient`: where a
    schema cannot be enforced, a tool whose "strict" is not true keeps the names of its arguments alone.  RequestError
    for a tool without a name or with a schema that is refused.
    """
    if isinstance(offered, str | Mapping) or not 0 < len(offered) <= LIMITS.tools:
        raise RequestError(f"From 1 to {LIMITS.tools} tools are taken, as a list.", where="tools")
    names: list[str] = []
    for place, tool in enumerate(offered):
        name, schema, strict = _read(tool, f"tools/{place}")
        if name in names:
            raise RequestError(f'Two tools are called "{name}".', where=f"tools/{place}")
        names.append(name)
        try:
            arguments = _arguments(rules, form, f"arguments_{place}", schema, options)
        except RequestError as error:
            if strict or not lenient:
                where = f"tools/{place} ({name}): {error.where or '#'}"
                raise RequestError(error.what, where=where, fix=error.fix) from None
            arguments = _arguments(rules, form, f"arguments_{place}", schema, options, loose=True)
        rules.add(f"tool_{place}", f"{_head(rules, form, name)} {arguments}{_late_id(rules, form)}")
    rules.add("chosen", " | ".join(f"tool_{place}" for place in range(len(names))))


def write_calls(rules: Rules, form: ToolForm, most: int | None, marked: bool = False) -> str:
    """The expression of at least one call of `chosen`, and of up to `most`.  `marked`: the marker has been read."""
    after = rules.literal(form.after)
    head = form.opens + form.before_name
    if form.spaced:
        before = f'" "? {rules.literal(head.removeprefix(form.marker))}'
        before = before if marked else f"{rules.literal(form.marker)} {before}"
    else:
        before = rules.literal(head.removeprefix(form.marker) if marked else head)
    first = f"{before} chosen {after}"
    following = rules.literal(form.between + form.before_name)
    repeated = "*" if most is None else f"{{0,{most - 1}}}"
    more = "" if most == 1 else f" ({following} chosen {after}){repeated}"
    whole = f"{first}{more} {rules.literal(form.closes)}" if form.closes else first + more
    if not form.single:
        return whole
    alone = f"{rules.literal(form.before_name)} chosen {after}"
    return alone if most == 1 else f"({whole} | {alone})"


def _head(rules: Rules, form: ToolForm, name: str) -> str:
    if not form.before_id:
        return rules.literal(name + form.before_arguments)
    id = f"{rules.literal(form.before_id)} {rules.add('ID', _ID)}"
    return f"{rules.literal(name)} ({id})? {rules.literal(form.before_arguments)}"


def _late_id(rules: Rules, form: ToolForm) -> str:
    if form.late_id is None:
        return ""
    before, after = map(rules.literal, form.late_id)
    return f" ({before} {rules.add('ID', _ID)} {after})?"


def _arguments(
    rules: Rules, form: ToolForm, name: str, schema: Any, options: Mapping[str, Any], loose: bool = False
) -> str:
    prepared = {"type": "object", **prepare(_names_only(schema) if loose else schema)}
    if form.arguments is not None:
        return form.arguments.write(rules, name, schema, prepared)
    return rules.add(name, f"%json {json.dumps({**prepared, 'x-guidance': options}, ensure_ascii=False)}")


def _names_only(schema: Any) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    names = [name for name in properties if isinstance(name, str)] if isinstance(properties, Mapping) else []
    required = schema.get("required") if isinstance(schema, Mapping) else None
    due = [name for name in names if isinstance(required, list) and name in required]
    return {"type": "object", "properties": {name: {} for name in names}, "required": due}


def _read(tool: Any, at: str) -> tuple[str, Any, bool]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise RequestError(f"{shown(tool)} is no tool.", where=at)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(f"{shown(name)} is no name of a tool: 1 to 128 letters, digits and _ . : - are.", where=at)
    found = function.get("parameters", function.get("input_schema", function.get("inputSchema")))
    # OpenAI: without parameters a tool takes none.
    schema = {"type": "object", "properties": {}, "additionalProperties": False} if found is None else found
    return name, schema, function.get("strict") is True
