"""Bestiary as its users have it: `bestiary.load`, and streams of its engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from protocol import Answer, Checked, Prompt, serve

SPARE = 512
"""Tokens of the cache beside those of the requests, as it gives room in blocks."""


class Bestiary:
    def load(self, path: str, threads: int, context: int, together: int) -> None:
        import torch

        import bestiary

        torch.set_num_threads(threads)
        self.pipe = bestiary.load(path, device="cpu", cache_tokens=together + SPARE, offline=True, progress=False)

    def check(self, prompt: Prompt) -> Checked:
        made = self.pipe.generate(prompt["tokens"], max_tokens=1, temperature=0.0, logprobs=1, ignore_eos=True)
        return {"text": made.logprobs[0].text, "logprob": made.logprobs[0].logprob}

    def answer(self, prompts: Sequence[Prompt], count: int) -> list[Answer]:
        with ThreadPoolExecutor(len(prompts)) as readers:
            start = time.perf_counter()
            options = {"max_tokens": count, "temperature": 0.0, "ignore_eos": True}
            streams = [self.pipe.stream(prompt["tokens"], **options) for prompt in prompts]
            return list(readers.map(lambda stream: _read(stream, start), streams))


def _read(stream: object, start: float) -> Answer:
    times: list[float] = []
    seen = 0
    for chunk in stream:  # type: ignore[attr-defined]
        # A piece of text may be of several tokens, and the last one brings the counts alone.
        times += [time.perf_counter() - start] * len(chunk.tokens)
        seen = chunk.usage.prompt_tokens if chunk.usage is not None else seen
    return {"times": times, "tokens": len(times), "prompt": seen}


if __name__ == "__main__":
    serve(Bestiary())
