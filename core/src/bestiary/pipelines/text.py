"""The text pipeline: prompts and chats in, text out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any

import torch

from bestiary.config import Config
from bestiary.errors import InvalidPlugin, RequestError, TemplateError
from bestiary.generation.answer import AnswerReader
from bestiary.generation.chat import ChatEncoder, Message
from bestiary.generation.completion import Chunk, Completion, collect
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import as_grammar, json_schema
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.constraints.structured import parse
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.memory import default_tokens
from bestiary.generation.engine.request import Stream
from bestiary.generation.engine.statistics import Statistics
from bestiary.generation.sampling import Sampling, defaults_from, merged
from bestiary.generation.template import ChatTemplate
from bestiary.generation.tokenizer import Tokenizer
from bestiary.loading import Identified, LoadedModel, generation_config
from bestiary.nn import CausalLM

Prompt = str | Sequence[int]
_TEMPLATE_OPTIONS = ("tools", "documents", "add_generation_prompt", "continue_final_message", "template_variables")


class TextPipeline:
    """A text model that is ready to answer.  Safe to call from several threads; a context manager that frees memory.

    Every method that generates takes the options of `bestiary.Sampling`; those that are not given have the values of
    the model's generation_config.json.  `grammar` constrains the text: a type, a JSON schema, {"type": "json_object"},
    a compiled pattern, a list of texts to choose from, or what `bestiary.generation.constraints.grammar` makes.
    """

    def __init__(self, identified: Identified, pull: Callable[[], LoadedModel]) -> None:
        recommended = generation_config(identified.repository)
        self.identified = identified
        self.tokenizer = Tokenizer.from_repository(identified.repository)
        self.chats = self._chat_encoder()
        self.sampling = defaults_from(recommended)
        loaded = pull()
        self.dtype, self.device = loaded.dtype, loaded.device
        if not isinstance(loaded.model, CausalLM):
            raise InvalidPlugin(
                f"{identified.architecture.model} must return a bestiary.nn.CausalLM for the task text."
            )
        context = identified.config.text.get("max_position_embeddings") or 1 << 20
        self.engine: Engine | None = Engine(
            loaded.model,
            self.tokenizer,
            device=loaded.device,
            dtype=loaded.dtype,
            end_tokens=self._end_tokens(recommended),
            context_length=context,
            cache_tokens=loaded.cache_tokens
            or default_tokens(loaded.model.specs, context, loaded.dtype, loaded.device),
        )

    # Completion

    def generate(self, prompt: Prompt, **options: Any) -> Completion:
        """Continue a text, or a sequence of token ids."""
        return collect(self.stream(prompt, **options))

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Continue a text, or a sequence of token ids, chunk by chunk.

        The answer is being made from now on, whether it is read or not; close or forget the iterator to stop it.
        """
        options, constraint = self._constrained(options)
        sampling = merged(self.sampling, options)
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        return self._running().stream(tokens, sampling, constraint=constraint)

    def score(self, tokens: Sequence[int]) -> torch.Tensor:
        """The logits [T, V] in float32 that follow each token of a sequence."""
        return self._running().score(tokens)

    # Chat

    def chat(self, messages: str | Sequence[Message], **options: Any) -> Completion:
        """Answer a text, or a list of messages {"role", "content"}.

        Besides the sampling options: tools, documents, continue_final_message, and `template_variables` (a dict of
        further variables for the chat template, such as enable_thinking).  The completion's `message` has reasoning
        and tool calls apart from the content.  Raises TemplateError where the model has no chat template.
        """
        tokens, sampling, constraint = self._chat_request(messages, options)
        engine = self._running()
        answer = collect(engine.stream(tokens, sampling, constraint=constraint))
        message = self._reader.read(answer, tokens, engine.end_tokens, options.get("tools"))
        return replace(answer, message=message)

    def stream_chat(self, messages: str | Sequence[Message], **options: Any) -> Stream:
        """Answer chunk by chunk; the arguments are those of `chat`."""
        tokens, sampling, constraint = self._chat_request(messages, options)
        return self._running().stream(tokens, sampling, constraint=constraint)

    def generate_structured(self, kind: Any, prompt: str | Sequence[Message], **options: Any) -> Any:
        """Answer with an object of a type: a pydantic model, a dataclass, or what a JSON schema (a dict) describes.

        The prompt is a chat where the model can chat, else a text to continue.  What the type allows is enforced while
        the tokens are chosen; GenerationError where max_tokens cut the object off.
        """
        ask: Callable[..., Completion] = self.chat if self.can_chat else self.generate
        return parse(ask(prompt, **{**options, "grammar": json_schema(kind)}).text, kind)

    @property
    def can_chat(self) -> bool:
        """Whether the model, or its family's plugin, has a chat template."""
        return isinstance(self.chats, ChatEncoder)

    def render(self, messages: str | Sequence[Message], **options: Any) -> str:
        """The prompt that the chat template makes of messages, ready for the model's answer."""
        return self._chatting().render(messages, **_template_arguments(options))

    def tokenize_chat(self, messages: str | Sequence[Message], **options: Any) -> list[int]:
        """The tokens of `render`; the texts of special tokens inside user messages stay text."""
        return self._chatting().encode(messages, **_template_arguments(options))

    # Async twins

    async def agenerate(self, prompt: Prompt, **options: Any) -> Completion:
        """`generate` without blocking the event loop."""
        return await asyncio.to_thread(self.generate, prompt, **options)

    async def achat(self, messages: str | Sequence[Message], **options: Any) -> Completion:
        """`chat` without blocking the event loop."""
        return await asyncio.to_thread(self.chat, messages, **options)

    async def astream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Chunk]:
        """`stream` without blocking the event loop."""
        async for chunk in _in_thread(await asyncio.to_thread(self.stream, prompt, **options)):
            yield chunk

    async def astream_chat(self, messages: str | Sequence[Message], **options: Any) -> AsyncIterator[Chunk]:
        """`stream_chat` without blocking the event loop."""
        async for chunk in _in_thread(await asyncio.to_thread(self.stream_chat, messages, **options)):
            yield chunk

    # Tokens

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds, such as a leading BOS."""
        return self.tokenizer.encode(text)

    def detokenize(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)

    # Life

    @property
    def config(self) -> Config:
        return self.identified.config

    @property
    def model(self) -> CausalLM:
        """The network; raises RequestError after `close`."""
        return self._running().model

    def statistics(self) -> Statistics:
        """What the engine is doing: requests that wait and run, blocks of its cache."""
        return self._running().statistics()

    def close(self) -> None:
        """Stop what is running and free the model; later calls raise RequestError."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> TextPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        name, origin = self.identified.architecture.name, self.identified.repository.origin
        return f"<TextPipeline {name} from {origin}, {kind} on {self.device}>"

    def _running(self) -> Engine:
        if self.engine is None:
            raise RequestError("This pipeline is closed.", fix="load the model again")
        return self.engine

    def _chat_request(
        self, messages: str | Sequence[Message], options: Mapping[str, Any]
    ) -> tuple[list[int], Sampling, ConstraintState | None]:
        options, constraint = self._constrained(options)
        rendering = {name: value for name, value in options.items() if name in _TEMPLATE_OPTIONS}
        others = {name: value for name, value in options.items() if name not in _TEMPLATE_OPTIONS}
        sampling = merged(self.sampling, others)
        return self.tokenize_chat(messages, **rendering), sampling, constraint

    def _constrained(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], ConstraintState | None]:
        """The options without the grammar, and the state that enforces it.  A bad grammar is a RequestError."""
        others = dict(options)
        grammar = as_grammar(others.pop("grammar", None))
        return others, None if grammar is None else self._compiler.compile(grammar)

    @cached_property
    def _compiler(self) -> ConstraintCompiler:
        engine = self._running()
        rows = engine.model.vocab_size
        return ConstraintCompiler(self.tokenizer, rows, engine.end_tokens)

    @cached_property
    def _reader(self) -> AnswerReader:
        templates = self._chatting().template.templates
        return AnswerReader(templates.get("tool_use") or templates.get("default", ""), self.tokenizer)

    def _chatting(self) -> ChatEncoder:
        if isinstance(self.chats, TemplateError):
            raise self.chats
        return self.chats

    def _chat_encoder(self) -> ChatEncoder | TemplateError:
        """The error is kept for the first chat: a model without a template can still continue text."""
        fallback = self.identified.architecture.chat_template
        if fallback and any(self.tokenizer.id(text) is None for text in fallback.stop):
            # The family's template speaks in tokens that this older or base model does not have.
            fallback = None
        try:
            template = ChatTemplate.from_repository(
                self.identified.repository, fallback=fallback, special_tokens=self.tokenizer.special_tokens
            )
        except TemplateError as error:
            return error
        return ChatEncoder(template, self.tokenizer)

    def _end_tokens(self, recommended: Mapping[str, Any]) -> frozenset[int]:
        """Ids that end an answer, by generation_config.json or config.json, the tokenizer and the family's template."""
        stated = recommended.get("eos_token_id", self.identified.config.text.get("eos_token_id"))
        ends = {stated} if isinstance(stated, int) else set(stated or ())
        if self.tokenizer.eos_id is not None:
            ends.add(self.tokenizer.eos_id)
        fallback = self.identified.architecture.chat_template
        for text in fallback.stop if fallback else ():
            token = self.tokenizer.id(text)
            if token is not None:
                ends.add(token)
        return frozenset(ends)


def _template_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `ChatEncoder` from those of `chat`: what a request sends for the template stays apart."""
    variables = options.pop("template_variables", None)
    return {**options, "variables": variables}


async def _in_thread(chunks: Stream) -> AsyncIterator[Chunk]:
    """Each step in a worker thread; leaving the loop early closes the stream."""
    with contextlib.closing(chunks):
        while True:
            chunk = await asyncio.to_thread(next, chunks, None)
            if chunk is None:
                return
            yield chunk
