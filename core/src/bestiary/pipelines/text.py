"""The text pipeline: prompts and chats in, text out.

What only chats and grammars need is imported with the first of them: loading a model does not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from bestiary.adapters.residency import Adapters
from bestiary.building import resident_bytes
from bestiary.closing import Closing
from bestiary.config import Config
from bestiary.errors import InvalidPlugin, OptionError, RequestError, TemplateError, shown
from bestiary.generation.chat import ChatEncoder, Message
from bestiary.generation.completion import Chunk, Completion, collect
from bestiary.generation.engine.engine import Engine
from bestiary.generation.engine.events import Event
from bestiary.generation.engine.request import Stream
from bestiary.generation.engine.statistics import Statistics
from bestiary.generation.engine.terms import Terms
from bestiary.generation.sampling import defaults_from, merged
from bestiary.generation.template import ChatTemplate
from bestiary.identified import Identified
from bestiary.loading import LoadedModel, generation_config, repack
from bestiary.nn import CausalLM, LanguageModel
from bestiary.pipelines.text_async import in_thread, whole
from bestiary.pipelines.text_engine import compile_blocks, make_engine
from bestiary.pipelines.text_options import OWN, TextOptions
from bestiary.pipelines.text_tokens import Spoken, spoken
from bestiary.records import Packing, PackingRequest, Progress, Site, resolve

if TYPE_CHECKING:
    from bestiary.generation.constraints.compiler import ConstraintCompiler
    from bestiary.generation.constraints.grammar import Grammar
    from bestiary.generation.conversation import Conversations
    from bestiary.generation.conversation_stream import ChatStream
    from bestiary.media.prepared import Prepared
    from bestiary.media.prompt import MediaPrompt
    from bestiary.media.reader import MediaReader

Prompt = str | Sequence[int]


class TextPipeline(Closing):
    """A text model that is ready to answer.  Safe to call from several threads; a context manager that frees memory.

    `bestiary.load` takes the options of `TextOptions` for it.  Every method that generates takes those of
    `bestiary.Sampling`, of which those that are not given have the values of the model's generation_config.json, those
    of `Terms` (priority, timeout ...), and

        adapter    the alias of one of `adapters`
        grammar    what the text may be: a type, a JSON schema, {"type": "json_object"}, a compiled pattern, a list of
                   texts to choose from, or what `bestiary.generation.constraints.grammar` makes
        images     for a text to continue that has the model's placeholder of a picture once for each; in chats media
        videos     are parts of messages: {"type": "image", "image": ...}.  What may be given: `bestiary.media.opening`
    """

    def __init__(self, identified: Identified, pull: Callable[..., LoadedModel]) -> None:
        recommended = generation_config(identified.repository)
        self.identified, self._processor = identified, None
        found = spoken(identified)
        self.tokenizer = found.tokenizer
        processor = identified.architecture.processor
        if processor is not None:
            self._processor = resolve(processor)(identified.config, found.repository, self.tokenizer)
        self.chats = self._chat_encoder(found)
        self.sampling = defaults_from(recommended)
        loaded = pull(encode=self.tokenizer.encode)
        options = TextOptions(**loaded.options)
        self._media_limits = options.media_limits
        self.dtype, self.device, self._wished = loaded.dtype, loaded.device, loaded.wished
        if not isinstance(loaded.model, CausalLM):
            raise InvalidPlugin(
                f"{identified.architecture.model} must return a bestiary.nn.CausalLM for the task text."
            )
        if options.compile:
            compile_blocks(loaded.model)
        self._weight_bytes = resident_bytes(loaded.model)
        self.packing: Mapping[str, Packing] = {} if loaded.packing is None else loaded.packing.assigned
        """What became of each weight that was packed while it was loaded."""
        ends = self._end_tokens(recommended) | found.end_tokens
        self.engine: Engine | None = make_engine(options, loaded, self.tokenizer, ends)

    # Completion

    def generate(self, prompt: Prompt, **options: Any) -> Completion:
        """Continue a text, or a sequence of token ids."""
        return collect(self.stream(prompt, **options))

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Continue a text, or a sequence of token ids, chunk by chunk.

        The answer is being made from now on, whether it is read or not; close or forget the iterator to stop it.
        """
        most = self._running().context_length
        others = dict(options)
        media = self._media_of(others)
        tokens = self._encode(prompt, media, most)
        grammar = others.pop("grammar", None)
        if grammar is not None:
            from bestiary.generation.constraints.grammar import as_grammar

            grammar = as_grammar(grammar)
        return self._start(tokens, others, grammar, prompt, self.media.place(tokens, media) if media else None)

    def score(self, prompt: Prompt, **media: Any) -> torch.Tensor:
        """The logits [T, V] in float32 that follow each token of a text or a sequence, which may have `images`."""
        found = self._media_of(media)
        if media:
            raise OptionError(f"score has no option {shown(next(iter(media)))}.", fix="it takes images and videos")
        tokens = self._encode(prompt, found)
        return self._running().score(tokens, self.media.place(tokens, found) if found else None)

    # Chat

    def chat(self, messages: str | Sequence[Message], **options: Any) -> Completion:
        """Answer a text, or a list of messages {"role", "content"}.

        Besides the other options it takes those of `Conversations`: tools, tool_choice, enable_thinking,
        reasoning_effort, documents, continue_final_message, template_variables ...  The text is content alone; the
        completion's `message` has reasoning and tool calls beside it.  Raises TemplateError where the model has no chat
        template.
        """
        return self.stream_chat(messages, **options).completion()

    def stream_chat(self, messages: str | Sequence[Message], **options: Any) -> ChatStream:
        """Answer chunk by chunk; the arguments are those of `chat`.  The chunks have `events` beside their text."""
        request = self._conversations.request(messages, options)
        stream = self._start(request.tokens, dict(request.options), request.grammar, media=request.media)
        return request.follow(stream)

    def generate_structured(self, kind: Any, prompt: str | Sequence[Message], **options: Any) -> Any:
        """Answer with an object of a type: a pydantic model, a dataclass, or what a JSON schema (a dict) describes.

        The prompt is a chat where the model can chat, else a text to continue.  What the type allows is enforced while
        the tokens are chosen; GenerationError where max_tokens cut the object off.
        """
        from bestiary.generation.constraints.grammar import json_schema
        from bestiary.generation.constraints.structured import parse

        ask: Callable[..., Completion] = self.chat if self.can_chat else self.generate
        return parse(ask(prompt, **{**options, "grammar": json_schema(kind)}).text, kind)

    @property
    def can_chat(self) -> bool:
        """Whether the model, or its family's plugin, has a chat template."""
        return isinstance(self.chats, ChatEncoder)

    def render(self, messages: str | Sequence[Message], **options: Any) -> str:
        """The prompt that the chat template makes of messages, ready for the model's answer."""
        return self._conversations.render(messages, options)

    def tokenize_chat(self, messages: str | Sequence[Message], **options: Any) -> list[int]:
        """The tokens of `render`; the texts of special tokens inside user messages stay text."""
        return self._conversations.encode(messages, options)

    # Async twins

    async def agenerate(self, prompt: Prompt, **options: Any) -> Completion:
        """`generate` without blocking the event loop."""
        stream = await asyncio.to_thread(self.stream, prompt, **options)
        return await whole(stream, lambda: collect(stream))

    async def achat(self, messages: str | Sequence[Message], **options: Any) -> Completion:
        """`chat` without blocking the event loop."""
        stream = await asyncio.to_thread(self.stream_chat, messages, **options)
        return await whole(stream, stream.completion)

    async def astream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Chunk]:
        """`stream` without blocking the event loop."""
        async for chunk in in_thread(await asyncio.to_thread(self.stream, prompt, **options)):
            yield chunk

    async def astream_chat(self, messages: str | Sequence[Message], **options: Any) -> AsyncIterator[Chunk]:
        """`stream_chat` without blocking the event loop."""
        async for chunk in in_thread(await asyncio.to_thread(self.stream_chat, messages, **options)):
            yield chunk

    # Tokens

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds, such as a leading BOS."""
        return self.tokenizer.encode(text)

    def detokenize(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)

    # Life

    def requantize(
        self,
        quant: str | int | Callable[[Site], str | None] | None = None,
        *,
        topology: str | Mapping[str, Any] | None = None,
        organization: str | None = None,
        imatrix: Any = None,
        calibration_file: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Mapping[str, Packing]:
        """Pack the weights of the running model anew, from its files; without arguments they stay as these have them.

        The arguments are those of `bestiary.load`.  Requests that run wait meanwhile and go on with the new weights.
        Returns what became of each weight.  Raises what `load` raises, before anything is changed, and OptionError for
        a model that mixes experts or adapters by itself.
        """
        engine = self._running()
        if engine.adapters is None:
            raise OptionError("The weights of a model that mixes adapters or experts by itself cannot be packed anew.")
        request = PackingRequest(quant, topology, organization, imatrix, calibration_file, self.tokenizer.encode)
        model = engine.model
        assert isinstance(model, CausalLM)
        self.packing = repack(
            self.identified, model, request, self.dtype, self.device, engine.changing, progress, self._wished
        )
        self._weight_bytes = resident_bytes(model)
        return self.packing

    @property
    def config(self) -> Config:
        return self.identified.config

    @property
    def model(self) -> LanguageModel:
        """The network; raises RequestError after `close`."""
        return self._running().model

    @property
    def adapters(self) -> Adapters:
        """Adapters by alias: load, replace and unload them while requests run."""
        adapters = self._running().adapters
        if adapters is None:
            raise RequestError("This model mixes adapters or experts by itself, and takes no others.")
        return adapters

    def statistics(self) -> Statistics:
        """What the engine is doing: requests that wait and run, blocks of its cache, times and shares."""
        return self._running().statistics()

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event of the engine, in its thread (so briefly); returns what ends that."""
        return self._running().subscribe(listener)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, of adapters, of what drafts, and of what the caches can come to hold."""
        engine = self._running()
        adapters = 0 if engine.adapters is None else engine.adapters.status().bytes
        drafter = 0 if engine.drafter is None else engine.drafter.nbytes
        return self._weight_bytes + engine.cache.nbytes + adapters + drafter

    def close(self) -> None:
        """Stop what is running and free the model; later calls raise RequestError."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        name, origin = self.identified.architecture.name, self.identified.repository.origin
        return f"<TextPipeline {name} from {origin}, {kind} on {self.device}>"

    def _running(self) -> Engine:
        if self.engine is None:
            raise RequestError("This pipeline is closed.", fix="load the model again")
        return self.engine

    def _media_of(self, options: dict[str, Any]) -> list[Prepared]:
        """Those that the options of a prompt name, taken out of these."""
        named = [(kind, options.pop(f"{kind}s", None) or ()) for kind in ("image", "video")]
        sources = [(kind, source) for kind, those in named for source in those]
        return self.media.read(sources) if sources else []

    def _encode(self, prompt: Prompt, media: Sequence[Prepared], most: int | None = None) -> list[int]:
        """The tokens of a prompt, with those that stand for its media."""
        if not isinstance(prompt, str):
            return list(prompt)
        # Where there are eyes, a placeholder without its picture is a mistake.
        expand = self.media.expand(media) if self._processor is not None else None
        return self.tokenizer.encode(prompt if expand is None else expand(prompt), most=most)

    @cached_property
    def media(self) -> MediaReader:
        """What reads the pictures of prompts, and which kinds of media the model takes."""
        from bestiary.media.reader import MediaReader

        return MediaReader(self._processor, self._media_limits)

    def _start(
        self,
        tokens: list[int],
        options: dict[str, Any],
        grammar: Grammar | None,
        echo: Prompt = (),
        media: MediaPrompt | None = None,
    ) -> Stream:
        """Queue a request.  A bad grammar is a RequestError, an unknown option an OptionError."""
        engine = self._running()
        alias = options.pop(
            "adapter", OWN if engine.adapters is not None and self.identified.adapter is not None else None
        )
        terms, others = Terms.split(options)
        sampling = merged(self.sampling, others)
        if sampling.echo and not echo:
            raise OptionError("echo is for completions: the prompt of a chat is the template's.")
        constraint = None if grammar is None else self._compiler.compile(grammar)
        text = "" if not sampling.echo else echo if isinstance(echo, str) else self.detokenize(echo)
        lease = None if alias is None else self.adapters.lease(alias)
        try:
            return engine.stream(tokens, sampling, terms, constraint=constraint, adapter=lease, echo=text, media=media)
        except BaseException:
            if lease is not None:
                lease.release()
            raise

    @cached_property
    def _compiler(self) -> ConstraintCompiler:
        from bestiary.generation.constraints.compiler import ConstraintCompiler

        engine = self._running()
        rows = engine.model.vocab_size
        return ConstraintCompiler(self.tokenizer, rows, engine.end_tokens)

    @cached_property
    def _conversations(self) -> Conversations:
        from bestiary.generation.conversation import Conversations

        engine, architecture = self._running(), self.identified.architecture
        return Conversations(
            self._chatting(),
            engine.end_tokens,
            tool_format=architecture.tool_format,
            registry=self.identified.registry,
            media=self.media if self._processor is not None else None,
        )

    def _chatting(self) -> ChatEncoder:
        if isinstance(self.chats, TemplateError):
            raise TemplateError(self.chats.what, where=self.chats.where, fix=self.chats.fix)
        return self.chats

    def _chat_encoder(self, found: Spoken) -> ChatEncoder | TemplateError:
        """The error is kept for the first chat: a model without a template can still continue text."""
        fallback = self.identified.architecture.chat_template
        if fallback and any(self.tokenizer.id(text) is None for text in fallback.stop):
            # The family's template speaks in tokens that this older or base model does not have.
            fallback = None
        try:
            template = ChatTemplate.from_repository(
                found.repository,
                carried=found.chat_templates,
                fallback=fallback,
                special_tokens=self.tokenizer.special_tokens,
            )
        except TemplateError as error:
            return error.with_traceback(None)  # it would keep the frames of whoever loads
        most = self.identified.config.text.get("max_position_embeddings")
        return ChatEncoder(template, self.tokenizer, most, begins=self._processor is not None)

    def _end_tokens(self, recommended: Mapping[str, Any]) -> frozenset[int]:
        """Ids that end an answer, by generation_config.json or config.json, the tokenizer and the family's template."""
        config = self.identified.config
        stated = recommended.get("eos_token_id", config.text.get("eos_token_id", config.get("eos_token_id")))
        ends = {stated} if isinstance(stated, int) else set(stated or ())
        if self.tokenizer.eos_id is not None:
            ends.add(self.tokenizer.eos_id)
        fallback = self.identified.architecture.chat_template
        for text in fallback.stop if fallback else ():
            token = self.tokenizer.id(text)
            if token is not None:
                ends.add(token)
        return frozenset(ends)
