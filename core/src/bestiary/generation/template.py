"""Which chat template a model has, and messages rendered with it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from bestiary import records
from bestiary.errors import OptionError, TemplateError
from bestiary.generation.template_messages import OpenMessage, plain_messages, plain_objects
from bestiary.generation.template_sources import find_templates
from bestiary.generation.template_worker import Rendered, TemplateWorkers, shared_workers
from bestiary.protocols import Repository

RESERVED = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize", "chat_template")
)
"""Names that no variable of a request may take."""


class ChatTemplate:
    """The chat templates of one model: usually one, sometimes another for tools besides.

    Rendering gives the text of transformers' `apply_chat_template(tokenize=False)`, in a process with limits (see
    `template_worker`).  Safe to use from several threads.
    """

    def __init__(
        self,
        templates: str | Mapping[str, str],
        *,
        source: str,
        special_tokens: Mapping[str, str] | None = None,
        now: datetime | Callable[[], datetime] | None = None,
        workers: TemplateWorkers | None = None,
    ) -> None:
        """`templates` is one jinja source, or several by name of which "default" and "tool_use" have a meaning.

        `special_tokens` ("bos_token" and its like) are variables of the templates; `now` fixes the clock of
        `strftime_now`.
        """
        self.templates: Mapping[str, str] = {"default": templates} if isinstance(templates, str) else dict(templates)
        self.source = source
        """Where the templates were read, for messages."""
        self._special_tokens = dict(special_tokens or {})
        self._now = now
        self._workers = workers

    @classmethod
    def from_repository(
        cls,
        repository: Repository,
        *,
        template: str | None = None,
        carried: Mapping[str, str] | None = None,
        fallback: records.ChatTemplate | None = None,
        special_tokens: Mapping[str, str] | None = None,
        now: datetime | Callable[[], datetime] | None = None,
        workers: TemplateWorkers | None = None,
    ) -> Self:
        """The first of: `template` (a jinja source, or the name of one of the model's), those that the weight file
        carries, chat_template.jinja and additional_chat_templates/*.jinja, tokenizer_config.json, chat_template.json,
        and `fallback` of the plugin.

        TemplateError where none of them has a template.
        """
        found, source = dict(carried or {}), f"{repository.origin}: the weight file"
        if not found:
            found, source = find_templates(repository)
        if not found and fallback is not None:
            found, source = {"default": fallback.jinja}, "the plugin's own template"
        if template in found:
            found, source = {"default": found[template]}, f"{source} ({template})"
        elif template is not None:
            found, source = {"default": template}, "the chat_template argument"
        if not found:
            raise TemplateError(
                "The model has no chat template. Looked at: chat_template.jinja, additional_chat_templates/, "
                "tokenizer_config.json (chat_template), chat_template.json, and the plugin",
                where=repository.origin,
                fix="pass one as chat_template, or complete text without a chat",
            )
        return cls(found, source=source, special_tokens=special_tokens, now=now, workers=workers)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        variables: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """The text of a conversation.

        `tools` are JSON schemas.  `continue_final_message` leaves the last message open, or the field of it that is
        named.  `variables` and further keywords are for the template ("enable_thinking"); what a stranger sends belongs
        into `variables`, where the names of the arguments above are refused.

        TemplateError for whatever the template does wrong, TemplateRefusal (its subclass) where it calls
        raise_exception, RequestError for malformed messages, OptionError for options that do not go together.
        """
        return self.render_spans(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
            **more,
        ).text

    def render_spans(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        variables: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Rendered:
        """As `render`, with where in the text the template's `{% generation %}` blocks lie."""
        further = {**(variables or {}), **more}
        if taken := sorted(RESERVED & further.keys()):
            raise OptionError(f"Not variables of a chat template: {', '.join(taken)}")
        if continue_final_message and add_generation_prompt:
            raise OptionError(
                "continue_final_message and add_generation_prompt exclude each other",
                fix="continue the last message, or ask for a new one",
            )
        chat = plain_messages(messages)
        chosen = self._choose(tools is not None)
        jinja = self.templates[chosen]
        last = OpenMessage(chat, continue_final_message, jinja) if continue_final_message else None
        now = self._now() if callable(self._now) else self._now
        rendered = (self._workers or shared_workers()).render(
            jinja,
            {
                **self._special_tokens,
                **plain_objects("variables", [further])[0],
                "messages": chat,
                "tools": None if tools is None else plain_objects("tools", tools),
                "documents": None if documents is None else plain_objects("documents", documents),
                "add_generation_prompt": add_generation_prompt,
            },
            where=self.source if len(self.templates) == 1 else f"{self.source} ({chosen})",
            now=now,
        )
        return rendered if last is None else last.cut(rendered)

    def _choose(self, tools: bool) -> str:
        if tools and "tool_use" in self.templates:
            return "tool_use"
        if "default" in self.templates:
            return "default"
        raise TemplateError(
            f"The model has several chat templates and none is the default: {', '.join(sorted(self.templates))}",
            where=self.source,
            fix="pass the name of one as chat_template",
        )
