"""Which format of calls a model speaks: shown by its chat template, or named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import InvalidPlugin, OptionError, shown
from bestiary.generation.tools.offered import Offered
from bestiary.generation.tools.parser import ToolParser
from bestiary.nearest import nearest
from bestiary.records import ToolFormat, resolve
from bestiary.registry import Registry, default_registry

GENERIC = "bestiary.generation.tools.generic"
"""What reads and writes calls where no format is known."""


def tool_format(name: object, registry: Registry | None = None) -> ToolFormat:
    """The format of this name.  OptionError where no plugin brings it, InvalidPlugin where several do."""
    records = (registry or default_registry()).records(ToolFormat)
    found = [(record, plugin) for record, plugin in records if record.name == name]
    if not found:
        names = sorted({record.name for record, _ in records})
        near = nearest(name, names, 1) if isinstance(name, str) else ()
        fix = f"use {near[0]!r}" if near else f"installed plugins bring {', '.join(names) or 'none'}"
        raise OptionError(f"There is no tool-call format {shown(name)}.", fix=fix)
    if len(found) > 1:
        owners = sorted(plugin.distribution for _, plugin in found)
        raise InvalidPlugin(
            f'Several distributions bring a tool-call format named "{name}": {", ".join(owners)}.',
            fix=f"pip uninstall {owners[-1]}",
        )
    return found[0][0]


def detect(chat_template: str, registry: Registry | None = None) -> ToolFormat | None:
    """The format that a chat template shows, or None.

    None does not mean that the model cannot call: a template may leave tools to the system prompt, as that of Gemma 3
    does, or speak a format that no installed plugin brings.
    """
    records = [record for record, _ in (registry or default_registry()).records(ToolFormat)]
    shows = [record for record in records if _shows(chat_template, record)]
    best = min(shows, key=lambda record: (-record.priority, record.name), default=None)
    return None if best is None else tool_format(best.name, registry)


def parser_class(format: ToolFormat | None) -> Any:
    """What makes the parsers of a format; of none, the generic one."""
    return resolve(format.parser if format else f"{GENERIC}:GenericParser")


def parser_of(format: ToolFormat | None, tools: Sequence[Mapping[str, Any]] | None) -> ToolParser:
    """A parser for one answer.  Only calls of these tools are calls, with their argument types; of None, any is."""
    parser: ToolParser = parser_class(format)(Offered(tools))
    return parser


def make_parser(name: str, tools: Sequence[Mapping[str, Any]] | None) -> ToolParser:
    """A parser for one answer by the name of its format.  OptionError for a format that does not exist."""
    return parser_of(tool_format(name), tools)


def form_of(format: ToolFormat | None) -> Any:
    """The ToolForm or AnswerForm in which a grammar writes the calls of a format; None where it has none."""
    reference = format.form if format else f"{GENERIC}:FORM"
    return resolve(reference) if reference else None


def _shows(chat_template: str, record: ToolFormat) -> bool:
    texts = bool(record.present) and all(text in chat_template for text in record.present)
    return texts and not any(text in chat_template for text in record.absent)
