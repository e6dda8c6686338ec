"""Dialogues as token numbers, through the very chat template that is packaged with the model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialogues import Dialogue
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

MODEL = Path(__file__).parent.parent / "src" / "bestiary_demo" / "model"


@dataclass
class Sample:
    """Token numbers, and for each whether the model is to learn to write it."""

    tokens: list[int]
    learned: list[bool]


class Renderer:
    """Writes dialogues the way `apply_chat_template` of transformers does, many times faster."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.template = environment.from_string((MODEL / "chat_template.jinja").read_text())
        self.tokenizer = tokenizer

    def prompt(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], thinking: bool) -> str:
        return self.template.render(
            messages=messages, tools=tools, add_generation_prompt=True, enable_thinking=thinking
        )

    def text(self, dialogue: Dialogue) -> tuple[str, str]:
        """The prompt before the last answer, and that answer with its end mark."""
        earlier, thinking = dialogue.messages[:-1], bool(dialogue.thought)
        whole = self.template.render(messages=dialogue.messages, tools=dialogue.tools)
        answer = whole.removeprefix(self.prompt(earlier, dialogue.tools, False)).rstrip("\n")
        if thinking:
            answer = f"{dialogue.thought}\n</think>\n\n{answer}"
        return self.prompt(earlier, dialogue.tools, thinking), answer

    def sample(self, dialogue: Dialogue) -> Sample:
        """Learned are the last answer and, where the prompt ends without `<think>`, the earlier answers too."""
        assert self.tokenizer is not None
        prompt, answer = self.text(dialogue)
        before, after = self.tokenizer.encode(prompt).ids, self.tokenizer.encode(answer).ids
        start, end = self.tokenizer.token_to_id("<|im_start|>"), self.tokenizer.token_to_id("<|im_end|>")
        opening = [start, *self.tokenizer.encode("assistant\n").ids]
        learned, writing = [], False
        for index, token in enumerate(before):
            learned.append(writing)
            if token == end:
                writing = False
            elif before[max(0, index + 1 - len(opening)) : index + 1] == opening:
                writing = not dialogue.thought
        return Sample(before + after, learned + [True] * len(after))
