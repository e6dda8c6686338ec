"""Random tiny checkpoints made and answered by transformers, the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Reference:
    """A saved checkpoint, with the model that saved it."""

    folder: Path
    model: Any

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """Float32 logits [T, V]."""
        return self.model(input_ids=torch.tensor([tokens])).logits[0].float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def greedy(self, tokens: list[int], count: int) -> list[int]:
        """The `count` most probable next tokens, each given those before it, through transformers' own cache."""
        made = self.model.generate(
            torch.tensor([tokens]),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
        )
        return made[0, len(tokens) :].tolist()  # type: ignore[no-any-return]


def make_reference(config: Mapping[str, Any], folder: Path, seed: int = 0) -> Reference:
    """Build the transformers model of a config.json object with random weights in float32, and save it to `folder`."""
    import transformers

    values = {key: value for key, value in config.items() if key != "architectures"}
    name = config["architectures"][0]
    made = transformers.AutoConfig.for_model(**values)
    torch.manual_seed(seed)
    model = getattr(transformers, name)(made).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms begin at one and biases at zero: without noise a wrong one would go unseen.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    assert saved["architectures"] == [name]
    return Reference(folder, model)
