"""One request after another, token by token."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from bestiary.errors import GenerationError, RequestError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.generation.completion import Chunk, Completion, TokenLogprob, Usage
from bestiary.generation.detokenizer import Detokenizer
from bestiary.generation.sampling import Sampling, choose
from bestiary.generation.stop import StopStrings
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nn import CausalLM


@dataclass(frozen=True)
class Generator:
    """A model with its tokenizer, where it runs, what ends its answers and how long its context is."""

    model: CausalLM
    tokenizer: Tokenizer
    device: torch.device
    end_tokens: frozenset[int]
    context_length: int

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Chunk]:
        """Chunks as they come; the last has the finish_reason.  Raises RequestError before the first step."""
        room = self._room(prompt)
        return self._steps(list(prompt), sampling, min(room, sampling.max_tokens or room))

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """Float32 logits [T, V] of a whole sequence."""
        self._room(tokens, 0)
        cache = SequenceCache(len(self.model.specs))
        batch = make_batch([cache], [len(tokens)], self.device, all_outputs=True)
        return self.model(torch.tensor(tokens, device=self.device), batch).float()  # type: ignore[no-any-return]

    def _room(self, prompt: Sequence[int], least: int = 1) -> int:
        """How many tokens still fit."""
        vocabulary = self.model.model.embed_tokens.weight.shape[0]
        if not prompt:
            raise RequestError("The prompt has no tokens.", fix="give a text, or at least one token id")
        if not all(isinstance(token, int) and 0 <= token < vocabulary for token in prompt):
            raise RequestError(f"The prompt has token ids outside of the vocabulary of {vocabulary}.")
        room = self.context_length - len(prompt)
        if room < least:
            raise RequestError(
                f"The prompt has {len(prompt)} tokens; the model's context holds {self.context_length}.",
                fix="shorten the prompt, or choose a model with a longer context",
            )
        return room

    def _steps(self, prompt: list[int], sampling: Sampling, most: int) -> Iterator[Chunk]:
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        randomness = torch.Generator().manual_seed(seed)
        cache = SequenceCache(len(self.model.specs))
        ends = frozenset(sampling.stop_tokens) | (frozenset() if sampling.ignore_eos else self.end_tokens)
        detokenizer, stops = Detokenizer(self.tokenizer), StopStrings(sampling.stop)
        started = time.perf_counter()
        first = 0.0
        new, count = prompt, 0
        while True:
            logits = self._step(new, cache)
            token = choose(logits, sampling, randomness)
            count += 1
            first = first or time.perf_counter() - started
            ended = token in ends
            logprobs = None if sampling.logprobs is None else (self._logprob(logits, token, sampling.logprobs),)
            text, stopped = stops.push("" if ended else detokenizer.push(token))
            if ended or stopped or count == most:
                if not stopped:
                    tail, stopped = stops.push(detokenizer.flush())
                    text += tail + ("" if stopped else stops.flush())
                reason = "stop" if ended or stopped else "length"
                usage = Usage(len(prompt), count, first, time.perf_counter() - started)
                yield Chunk(text, (token,), logprobs, reason, usage)
                return
            yield Chunk(text, (token,), logprobs)
            new = [token]

    @torch.inference_mode()
    def _step(self, tokens: list[int], cache: SequenceCache) -> torch.Tensor:
        batch = make_batch([cache], [len(tokens)], self.device)
        logits = self.model(torch.tensor(tokens, device=self.device), batch)[0].float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise GenerationError(
                "The model's logits are not finite.",
                where=f"position {cache.length - 1}",
                fix="`bestiary check` looks for damaged weights; float16 overflows where bfloat16 and float32 do not",
            )
        return logits  # type: ignore[no-any-return]

    def _logprob(self, logits: torch.Tensor, token: int, top: int) -> TokenLogprob:
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(min(top, len(logprobs))) if top else None
        others = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
        return TokenLogprob(
            token,
            self._text(token),
            float(logprobs[token]),
            tuple(TokenLogprob(other, self._text(other), value) for other, value in others),
        )

    def _text(self, token: int) -> str:
        # A model may have more rows than the tokenizer has tokens; those have no text.
        return self.tokenizer.pieces.piece(token).decode("utf-8", errors="replace")


def collect(chunks: Iterator[Chunk]) -> Completion:
    """The whole answer of a stream."""
    text: list[str] = []
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    chunk = None
    for chunk in chunks:
        text.append(chunk.text)
        tokens.extend(chunk.tokens)
        logprobs.extend(chunk.logprobs or ())
    if chunk is None or chunk.finish_reason is None or chunk.usage is None:
        raise GenerationError("The stream ended before its last chunk.")
    with_logprobs = chunk.logprobs is not None
    return Completion(
        "".join(text), tuple(tokens), tuple(logprobs) if with_logprobs else None, chunk.finish_reason, chunk.usage
    )
