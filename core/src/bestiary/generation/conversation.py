"""Chats with tools and reasoning: from messages and options to a prompt, a grammar, and a reader of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bestiary.errors import OptionError, RequestError, TemplateError, shown
from bestiary.generation.answer import AnswerReader, AnswerStream
from bestiary.generation.chat import ChatEncoder
from bestiary.generation.constraints.grammar import Grammar, as_grammar
from bestiary.generation.conversation_messages import (
    as_parts,
    has_calls,
    printed_as_python,
    texts_of,
    variants,
    with_calls,
)
from bestiary.generation.conversation_reasoning import reasoning_variables
from bestiary.generation.conversation_stream import ChatStream, Chunks
from bestiary.generation.conversation_variables import inputs_of
from bestiary.generation.tools.answer_grammar import Wanted, answer_grammar, framed
from bestiary.generation.tools.choose import detect, tool_format
from bestiary.generation.tools.tool_choice import ToolChoice, validate_tools
from bestiary.media.messages import Source, without_media
from bestiary.nearest import did_you_mean
from bestiary.registry import Registry

if TYPE_CHECKING:
    from bestiary.media.prepared import Prepared
    from bestiary.media.prompt import MediaPrompt
    from bestiary.media.reader import MediaReader

_AS_THEY_ARE = ("documents", "add_generation_prompt", "continue_final_message")
OPTIONS = (
    *("tools", "tool_choice", "parallel_tool_calls", "tool_format", "enable_thinking", "reasoning_effort"),
    *("template_variables", "grammar", *_AS_THEY_ARE),
)
"""The options of a chat, besides those of any generation."""


@dataclass(frozen=True)
class ChatRequest:
    """What an engine needs for a chat, and how its answers are read."""

    tokens: list[int]
    grammar: Grammar | None
    options: dict[str, Any]
    """Those that are not a chat's own."""
    tools: tuple[Mapping[str, Any], ...]
    """Those that may be called."""
    reader: AnswerReader
    ends: frozenset[int]
    begun: bool | None
    """Whether the answers begin inside of reasoning; None: the end of the prompt tells."""
    media: MediaPrompt | None = None
    """What some of the tokens stand for."""

    def open(self) -> AnswerStream:
        """Begin to read an answer."""
        return self.reader.open(self.tokens, self.tools, self.ends, self.begun)

    def follow(self, chunks: Chunks) -> ChatStream:
        """The chunks of the engine as those of a chat."""
        return ChatStream(chunks, self.open)


@dataclass(frozen=True)
class _Offer:
    """What a request says about tools, and what is known of the form of their calls."""

    choice: ToolChoice
    tools: tuple[Mapping[str, Any], ...]
    parallel: bool
    template: str
    reader: AnswerReader


class Conversations:
    """The chats of one model.  Safe to use from several threads.

    Options, besides `documents`, `add_generation_prompt` and `continue_final_message` of `ChatTemplate.render`:

        tools, tool_choice       as in the OpenAI API; tools that must not be called are not in the prompt
        parallel_tool_calls      False: at most one call
        tool_format              the name of the format of calls, where the template shows none or the wrong one
        enable_thinking          True or False: whether the model reasons first
        reasoning_effort         "none", "minimal", "low", "medium", "high" or "xhigh"
        template_variables       further variables of the chat template
        grammar                  what the content may be: see `constraints.grammar.as_grammar`

    A grammar holds the model to a call that is required, to the schemas of tools with "strict": true, and to one call.
    """

    def __init__(
        self,
        encoder: ChatEncoder,
        end_tokens: frozenset[int],
        *,
        tool_format: str | None = None,
        registry: Registry | None = None,
        media: MediaReader | None = None,
    ) -> None:
        """`tool_format` is what the architecture names, for templates that show none; `media` reads pictures."""
        self._encoder, self._ends, self._media = encoder, end_tokens, media
        self._named, self._registry = tool_format, registry
        self._readers: dict[tuple[str, str | None], AnswerReader] = {}
        self._shows_texts: set[bool] = set()
        """Whether with tools or without, or both, the template was seen to show a text that is no list of parts."""

    def request(self, messages: Any, options: Mapping[str, Any]) -> ChatRequest:
        """All that an answer to messages needs.

        OptionError for options that are malformed or do not go together, RequestError for messages and tools,
        TemplateError for what the template does.
        """
        offer = self._offer(options)
        messages, sources = without_media(messages)
        media = self._read(sources)
        tokens = self._encode(messages, options, offer, media)
        begun = _begun(messages, options.get("continue_final_message"), offer.reader)
        return ChatRequest(
            tokens,
            self._grammar(options, offer, tokens, begun),
            {name: value for name, value in options.items() if name not in OPTIONS},
            offer.tools,
            offer.reader,
            self._ends.union(_ids(options.get("stop_tokens"))),
            begun,
            self._media.place(tokens, media) if self._media is not None else None,
        )

    def render(self, messages: Any, options: Mapping[str, Any]) -> str:
        """The text of the prompt.  OptionError for options that are not a chat's own, too."""
        _check_names(options)
        arguments = self._arguments(options, self._offer(options))
        return self._encoder.render(self._prepared(without_media(messages)[0], arguments), **arguments)

    def encode(self, messages: Any, options: Mapping[str, Any]) -> list[int]:
        """The tokens of the prompt.  OptionError for options that are not a chat's own, too."""
        _check_names(options)
        messages, sources = without_media(messages)
        return self._encode(messages, options, self._offer(options), self._read(sources))

    def _encode(self, messages: Any, options: Mapping[str, Any], offer: _Offer, media: Sequence[Prepared]) -> list[int]:
        arguments = self._arguments(options, offer)
        expand = self._media.expand(media) if self._media is not None and media else None
        return self._encoder.encode(self._prepared(messages, arguments), expand, **arguments)

    def _in_parts(self, chat: Any, arguments: Mapping[str, Any]) -> Any:
        """The messages with texts as lists of one part, where the template shows a text there alone."""
        if isinstance(chat, str):
            chat = [{"role": "user", "content": chat}]
        texts, with_tools = texts_of(chat), "tools" in arguments
        if not texts or with_tools in self._shows_texts:
            return chat
        try:
            made = self._encoder.render(chat, **arguments)
        except TemplateError:  # it takes the letters of a text for parts
            made = ""
        if not any(text in made for text in texts):
            return as_parts(chat)
        self._shows_texts.add(with_tools)
        return chat

    def _read(self, sources: Sequence[Source]) -> list[Prepared]:
        if not sources:
            return []
        from bestiary.media.reader import MediaReader

        return (self._media or MediaReader(None)).read(sources)

    # Tools

    def _offer(self, options: Mapping[str, Any]) -> _Offer:
        stated = options.get("tools")
        tools = [] if stated is None else validate_tools(stated)
        choice = ToolChoice.of(options.get("tool_choice"), tools)
        parallel, name = options.get("parallel_tool_calls"), options.get("tool_format")
        if parallel is not None and not isinstance(parallel, bool):
            raise OptionError(f"parallel_tool_calls is {shown(parallel)}; True or False is due.")
        if name is not None and not isinstance(name, str):
            tool_format(name, self._registry)  # Which says what there is.
        offered = tuple(choice.offer(tools))
        templates = self._encoder.template.templates
        template = templates.get("tool_use" if offered and "tool_use" in templates else "default", "")
        reader = self._reader(template, name)
        if offered and reader.format is None and "tools" not in template:
            raise RequestError(
                "The model's chat template does not show it any tools.",
                where=self._encoder.template.source,
                fix="tell the model about them in a message, and how it calls them with tool_format",
            )
        return _Offer(choice, offered, parallel is not False, template, reader)

    def _reader(self, template: str, name: str | None) -> AnswerReader:
        if (template, name) not in self._readers:
            format = detect(template, self._registry) if name is None else tool_format(name, self._registry)
            if format is None and self._named is not None:
                format = tool_format(self._named, self._registry)
            self._readers[template, name] = AnswerReader(template, self._encoder.tokenizer, format, self._registry)
        return self._readers[template, name]

    def _grammar(
        self, options: Mapping[str, Any], offer: _Offer, tokens: Sequence[int], begun: bool | None
    ) -> Grammar | None:
        given = as_grammar(options.get("grammar"))
        reader, required = offer.reader, offer.choice.mode == "required"
        strict = any(tool["function"].get("strict") for tool in offer.tools)
        if not offer.tools:
            thinking = reader.thinking(tokens, begun)
            return None if given is None else framed(given, reader.form, thinking, self._special)
        if given is not None:
            raise OptionError(
                "A grammar for the answer does not go together with tools that the model may call.",
                fix='leave one of the two out, or say tool_choice="none"',
            )
        if not required and not strict and offer.parallel:
            return None
        if reader.form is None:
            name = reader.format.name if reader.format else None
            raise OptionError(
                f"Calls in the format {name!r} can be read, but not enforced.",
                fix='leave out "strict", parallel_tool_calls and any tool_choice but "auto"',
            )
        thinking = reader.thinking(tokens, begun)
        unwanted = options.get("enable_thinking") is False or options.get("reasoning_effort") == "none"
        if thinking is not None and not thinking.begun and unwanted:
            thinking = None
        wanted = Wanted(offer.tools, required, offer.parallel, thinking)
        return answer_grammar(reader.form, wanted, self._special)

    @cached_property
    def _special(self) -> Mapping[str, int]:
        tokenizer = self._encoder.tokenizer
        found = ((text, tokenizer.id(text)) for text in tokenizer.special_texts())
        return {text: token for text, token in found if token is not None}

    # The prompt

    def _arguments(self, options: Mapping[str, Any], offer: _Offer) -> dict[str, Any]:
        """Arguments of `ChatEncoder`: what a request sends for the template stays apart."""
        arguments = {name: options[name] for name in _AS_THEY_ARE if name in options}
        variables = options.get("template_variables") or {}
        if not isinstance(variables, Mapping):
            raise OptionError(f"template_variables are names with values, not {shown(variables)}.")
        thinking, effort = options.get("enable_thinking"), options.get("reasoning_effort")
        if thinking is not None or effort is not None:
            found = reasoning_variables(inputs_of(offer.template), thinking, effort)
            for name in found.keys() & variables.keys():
                if found[name] != variables[name]:
                    raise OptionError(f"template_variables contradict another option: {name} is {found[name]!r} by it.")
            variables = {**variables, **found}
        if offer.tools:
            arguments["tools"] = [_shown_to_model(tool) for tool in offer.tools]
        return {**arguments, "variables": variables}

    def _prepared(self, messages: Any, arguments: Mapping[str, Any]) -> Any:
        """The messages as the template needs them: templates differ in how they take calls."""
        chat = with_calls(messages)
        if self._media is not None:
            chat = self._in_parts(chat, arguments)
        if not has_calls(chat):
            return chat
        best, refusal = None, None
        for variant in variants(chat):
            try:
                text = self._encoder.render(variant, **arguments)
            except TemplateError as error:
                refusal = refusal or error
                continue
            if not printed_as_python(text, variant):
                return variant
            best = best or variant
        if best is None and refusal is not None:
            raise refusal
        return best


def _check_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            fix = did_you_mean(name, OPTIONS) or f"the options are {', '.join(OPTIONS)}"
            raise OptionError(f'A prompt has no option "{name}".', fix=fix)


def _shown_to_model(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Without "strict", which is no business of the model's."""
    return {**tool, "function": {key: value for key, value in tool["function"].items() if key != "strict"}}


def _begun(messages: Any, continued: Any, reader: AnswerReader) -> bool | None:
    """Whether a message that is continued ends inside of its reasoning; None where none is continued."""
    if not continued:
        return None
    if continued is not True and continued != "content":
        return True
    last = messages[-1] if isinstance(messages, Sequence) and messages else None
    content = last.get("content") if isinstance(last, Mapping) else None
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return reader.inside("".join(text for text in texts if isinstance(text, str)))


def _ids(tokens: Any) -> list[int]:
    """The token ids of an option that nobody has checked yet."""
    return [token for token in tokens if isinstance(token, int)] if isinstance(tokens, list | tuple) else []
