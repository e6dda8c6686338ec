"""transformers in bfloat16, eager: what a model's own library gives.  It reads the folder, not the GGUF file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from protocol import Answer, Checked, Prompt, serve


class Transformers:
    def load(self, path: str, threads: int, context: int, together: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, local_files_only=True)
        self.model.generation_config.eos_token_id = None
        self.path = path

    def check(self, prompt: Prompt) -> Checked:
        import torch
        from transformers import AutoTokenizer

        with torch.inference_mode():
            logits = self.model(torch.tensor([prompt["tokens"]]), logits_to_keep=1).logits[0, -1].float()
        best = int(logits.argmax())
        text: Any = AutoTokenizer.from_pretrained(self.path, local_files_only=True).decode([best])
        return {"text": text, "logprob": float(logits.log_softmax(-1)[best])}

    def answer(self, prompts: Sequence[Prompt], count: int) -> list[Answer]:
        import torch

        longest = max(len(prompt["tokens"]) for prompt in prompts)
        before = [longest - len(prompt["tokens"]) for prompt in prompts]
        tokens = [[0] * empty + prompt["tokens"] for empty, prompt in zip(before, prompts, strict=True)]
        seen = [[0] * empty + [1] * (longest - empty) for empty in before]
        times: list[float] = []
        start = time.perf_counter()

        def clock(_: Any, logits: Any) -> Any:
            times.append(time.perf_counter() - start)
            return logits

        self.model.generate(
            torch.tensor(tokens),
            attention_mask=torch.tensor(seen),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            logits_processor=[clock],
        )
        return [{"times": times, "tokens": len(times), "prompt": len(prompt["tokens"])} for prompt in prompts]


if __name__ == "__main__":
    serve(Transformers())
