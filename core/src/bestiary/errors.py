"""Every error that Bestiary raises on purpose.

Each has three parts: what is wrong, where it was read, and what mends it.  The command line prints them as one screen;
a program can catch `BestiaryError`, or any class below it.
"""

from collections.abc import Mapping, Sequence


class BestiaryError(Exception):
    """What is wrong, `where` it was read, and the command or change that mends it (`fix`)."""

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, None if where is None else str(where), fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


# Plugins


class PluginError(BestiaryError):
    """Something about an installed or absent plugin."""


class MissingPlugin(PluginError):
    """No installed plugin claims this model; `fix` names the pip command where one is known."""


class BrokenPlugin(PluginError):
    """A plugin that would serve is installed, but failed to import; `traceback` is its real error."""

    def __init__(self, what: str, *, where: object = None, fix: str | None = None, traceback: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.traceback = traceback


class ContestedModel(PluginError):
    """Two distributions claim the same model; `load(..., plugin=...)` decides."""


class InvalidPlugin(PluginError):
    """A plugin breaks the contract: a misspelt hook, a record of the wrong type, a newer API version."""


# Sources


class SourceError(BestiaryError):
    """A model id could not be turned into files."""


class ModelNotFound(SourceError):
    """No source has a model, a revision or a file of this name."""


class AccessDenied(SourceError):
    """The hub asks for a token, or for terms to be accepted (401, 403)."""


class HubUnavailable(SourceError):
    """The hub did not answer, or answered with a failure that may pass (429, 5xx, no network, offline mode)."""


class CorruptDownload(SourceError):
    """A downloaded file does not have the hash that the hub states."""


class UnsafeName(SourceError):
    """A model id or a file name would lead outside its folder."""


# Configuration and files


class ConfigError(BestiaryError):
    """A configuration file is absent, malformed, or lacks a key that the architecture needs."""


class CheckpointError(BestiaryError):
    """A weight file is truncated, malformed or of a kind that is not opened (pickle)."""


class WeightMismatch(CheckpointError):
    """The checkpoint and the architecture do not agree; every difference is listed at once."""

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        fix: str | None = None,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.missing, self.unexpected, self.misshaped = tuple(missing), tuple(unexpected), dict(misshaped or {})


class OutOfMemory(BestiaryError):
    """The model, or the request, does not fit the memory of its device."""


class TokenizerError(BestiaryError):
    """The tokenizer is absent or malformed, or refused a text."""


class TemplateError(BestiaryError):
    """A chat template is absent, malformed, raised an exception of its own, or broke a limit."""


class TemplateRefusal(TemplateError):
    """The template itself refused the conversation (raise_exception); `message` is what it said."""

    def __init__(self, message: str, *, where: str) -> None:
        super().__init__(
            f"The chat template refused the conversation: {message}",
            where=where,
            fix="change the messages so that they fit the template, or use another template",
        )
        self.message = message


# Use


class OptionError(BestiaryError):
    """An option does not exist or has a value out of its bounds."""


class RequestError(BestiaryError):
    """A prompt or a request cannot be served: too long, empty, or malformed."""


class MediaError(RequestError):
    """A picture, video or sound cannot be taken: damaged, too large, out of reach, or one that the model has no eyes
    or ears for."""


class Overloaded(BestiaryError):
    """Too many requests wait already; the same request may be served later."""


class RequestTimeout(BestiaryError):
    """A request's `timeout` passed before its answer was complete."""


class GenerationError(BestiaryError):
    """A step of the model failed: for example its logits were not finite."""


# For messages


def shown(value: object) -> str:
    """A value as a message shows it: its repr, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python does not print numbers of thousands of digits, nor deep nesting
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."


class KernelError(BestiaryError):
    """A fast implementation of an operation does not compute what plain torch does."""
