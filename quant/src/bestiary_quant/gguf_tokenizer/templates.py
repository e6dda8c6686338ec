"""The chat templates that a GGUF file carries."""

from __future__ import annotations

from bestiary.errors import CheckpointError, TemplateError
from bestiary_quant.gguf.metadata import Metadata

KEY = "tokenizer.chat_template"
MAX_TEMPLATE = 1 << 20
"""Bytes; long ones in use have 20,000."""
MAX_TEMPLATES = 64


def chat_templates(metadata: Metadata) -> dict[str, str]:
    """Jinja sources by name; "default" is the one without a name.  Empty where the file has none.

    Raises TemplateError for one that is no text, or a long one.
    """
    keys = [key for key in metadata if key == KEY or key.startswith(f"{KEY}.")]
    if len(keys) > MAX_TEMPLATES:
        raise TemplateError(f"The file has {len(keys)} chat templates.", where=metadata.origin)
    found = {key.removeprefix(KEY).removeprefix(".") or "default": _read(metadata, key) for key in keys}
    return {name: template for name, template in found.items() if template}


def _read(metadata: Metadata, key: str) -> str:
    try:
        return metadata.text(key, most=MAX_TEMPLATE) or ""
    except CheckpointError as error:
        raise TemplateError(error.what, where=error.where) from error
