"""mistral.rs through its Python package.

A runner refuses calls from several threads, so that all streams are opened by one, and each is read by a thread of its
own.  Prompts must be of different lengths: GGUF models fail on several of the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from protocol import Answer, Checked, Prompt, serve


class MistralRs:
    def load(self, path: str, threads: int, context: int, together: int) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # before the module is there
        self.api: Any = import_module("mistralrs")
        file = Path(path)
        which = self.api.Which.GGUF(quantized_model_id=str(file.parent), quantized_filename=file.name)
        self.runner = self.api.Runner(which=which, max_seqs=16, prefix_cache_n=0)

    def check(self, prompt: Prompt) -> Checked:
        made = self._ask(prompt["text"], max_tokens=1, logprobs=True, top_logprobs=1).choices[0].logprobs.content[0]
        return {"text": made.token, "logprob": made.logprob}

    def answer(self, prompts: Sequence[Prompt], count: int) -> list[Answer]:
        with ThreadPoolExecutor(len(prompts)) as readers:
            start = time.perf_counter()
            streams = [self._ask(prompt["text"], max_tokens=count, stream=True) for prompt in prompts]
            return list(readers.map(lambda stream: _read(stream, start), streams))

    def _ask(self, text: str, **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return self.runner.send_chat_completion_request(
            self.api.ChatCompletionRequest(
                messages=messages, model="default", temperature=0.0, ignore_eos=True, **options
            )
        )


def _read(stream: Any, start: float) -> Answer:
    times, usage = [], None
    for chunk in stream:
        times.append(time.perf_counter() - start)
        usage = chunk.usage or usage
    if usage is None:
        raise ValueError("mistral.rs ended a stream without its usage")
    return {"times": times, "tokens": usage.completion_tokens, "prompt": usage.prompt_tokens}


if __name__ == "__main__":
    serve(MistralRs())
