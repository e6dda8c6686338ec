"""Where a checkpoint keeps its chat templates."""

import json
from typing import Any

from bestiary.errors import TemplateError
from bestiary.protocols import Repository


def find_templates(repository: Repository) -> tuple[dict[str, str], str]:
    """The templates by name, and where they were read; an empty dict where there are none.

    The first place that has any counts alone, as in transformers: chat_template.jinja with
    additional_chat_templates/*.jinja, then tokenizer_config.json, then chat_template.json.  TemplateError where one is
    malformed.
    """
    for look in (_from_files, _from_tokenizer_config, _from_processor):
        found, source = look(repository)
        if found:
            return found, source
    return {}, ""


def _read(repository: Repository, name: str) -> str:
    try:
        return repository.path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{name} is not UTF-8: {error}", where=repository.origin) from error


def _read_key(repository: Repository, name: str) -> Any:
    if name not in repository.files():
        return None
    try:
        value = json.loads(_read(repository, name))
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"{name} is not JSON: {error}", where=repository.origin) from error
    return value.get("chat_template") if isinstance(value, dict) else None


def _from_files(repository: Repository) -> tuple[dict[str, str], str]:
    folder, ending = "additional_chat_templates/", ".jinja"
    names = {"default": "chat_template.jinja"} if "chat_template.jinja" in repository.files() else {}
    for name in sorted(repository.files()):
        inner = name.removeprefix(folder).removesuffix(ending)
        if name == f"{folder}{inner}{ending}" and "/" not in inner:
            names[inner] = name
    where = f"{repository.origin}: {', '.join(names.values())}"
    return {key: _read(repository, name) for key, name in names.items()}, where


def _from_tokenizer_config(repository: Repository) -> tuple[dict[str, str], str]:
    where = f"{repository.origin}: tokenizer_config.json (chat_template)"
    value = _read_key(repository, "tokenizer_config.json")
    if value is None:
        return {}, where
    if isinstance(value, str):
        return {"default": value}, where
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        value = {entry.get("name"): entry.get("template") for entry in value}
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TemplateError("chat_template is neither a text nor a list of named templates", where=where)
    return value, where


def _from_processor(repository: Repository) -> tuple[dict[str, str], str]:
    where = f"{repository.origin}: chat_template.json"
    value = _read_key(repository, "chat_template.json")
    if value is not None and not isinstance(value, str):
        raise TemplateError("chat_template is not a text", where=where)
    return ({} if value is None else {"default": value}), where
