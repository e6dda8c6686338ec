"""llama.cpp through llama-cpp-python: its C interface, so that nothing of Python's is timed beside it.

Settings are the defaults of `llama_cpp.Llama`: calls of 512 tokens, keys and values in float16, no flash attention.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from protocol import Answer, Checked, Prompt, serve

BATCH = 512
"""Tokens of a call at most; llama-cpp-python's `n_batch`."""


class LlamaCpp:
    def load(self, path: str, threads: int, context: int, together: int) -> None:
        self.api: Any = import_module("llama_cpp")
        self.numpy: Any = import_module("numpy")
        self.quiet = self.api.llama_log_callback(lambda level, text, data: None)
        self.api.llama_log_set(self.quiet, ctypes.c_void_p(0))
        self.api.llama_backend_init()
        settings = self.api.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = self.api.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise ValueError(f"llama.cpp does not load {path}")
        self.threads, self.context, self.room = threads, None, (0, 0)
        self.vocabulary = self.api.llama_model_get_vocab(self.model)
        self.rows = self.api.llama_vocab_n_tokens(self.vocabulary)
        self.batch = self.api.llama_batch_init(BATCH, 0, 1)
        self._make_room(1, context)

    def check(self, prompt: Prompt) -> Checked:
        self._make_room(1, len(prompt["tokens"]))
        last = len(prompt["tokens"]) - 1
        self._step([(token, place, 0, place == last) for place, token in enumerate(prompt["tokens"])])
        logits = self._logits(last).astype("float64")
        best = int(logits.argmax())
        text = ctypes.create_string_buffer(256)
        count = self.api.llama_token_to_piece(self.vocabulary, best, text, 256, 0, True)
        most = float(logits[best])
        logprob = -float(self.numpy.log(self.numpy.exp(logits - most).sum()))
        return {"text": text.raw[: max(count, 0)].decode(errors="replace"), "logprob": logprob}

    def answer(self, prompts: Sequence[Prompt], count: int) -> list[Answer]:
        self._make_room(len(prompts), max(len(prompt["tokens"]) for prompt in prompts) + count)
        start = time.perf_counter()
        tokens = [
            (token, place, number, place == len(prompt["tokens"]) - 1)
            for number, prompt in enumerate(prompts)
            for place, token in enumerate(prompt["tokens"])
        ]
        times: list[list[float]] = [[] for _ in prompts]
        lengths = [len(prompt["tokens"]) for prompt in prompts]
        for _ in range(count):
            chosen = {}
            for first in range(0, len(tokens), BATCH):
                for number, token in self._step(tokens[first : first + BATCH]):
                    chosen[number] = token
                    times[number].append(time.perf_counter() - start)
            tokens = [(token, lengths[number], number, True) for number, token in chosen.items()]
            lengths = [length + 1 for length in lengths]
        return [
            {"times": found, "tokens": len(found), "prompt": len(prompt["tokens"])}
            for found, prompt in zip(times, prompts, strict=True)
        ]

    def _step(self, rows: Sequence[tuple[int, int, int, bool]]) -> list[tuple[int, int]]:
        """One call for rows of (token, position, sequence, whether its successor is wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for row, (token, place, number, last) in enumerate(rows):
            batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, place, 1
            batch.seq_id[row][0], batch.logits[row] = number, last
        if self.api.llama_decode(self.context, batch):
            raise ValueError("llama_decode failed")
        return [(number, self._best(row)) for row, (_, _, number, last) in enumerate(rows) if last]

    def _best(self, row: int) -> int:
        return int(self._logits(row).argmax())

    def _logits(self, row: int) -> Any:
        found = self.api.llama_get_logits_ith(self.context, row)
        return self.numpy.ctypeslib.as_array(found, shape=(self.rows,))

    def _make_room(self, requests: int, length: int) -> None:
        """An empty context; a new one where the last has another number of requests, or is too short."""
        if self.room[0] == requests and self.room[1] >= length:
            self.api.llama_memory_clear(self.api.llama_get_memory(self.context), False)
            return
        if self.context:
            self.api.llama_free(self.context)
        settings = self.api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.n_batch = requests * length, requests, BATCH
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.flash_attn_type = self.api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context, self.room = self.api.llama_init_from_model(self.model, settings), (requests, length)


if __name__ == "__main__":
    serve(LlamaCpp())
