"""Compilers for the demo model's vocabulary, in which any text can be a special token."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.tokenizer import Tokenizer

DEMO = Path(__file__).parents[4] / "plugins/text/demo/src/bestiary_demo/model"


@pytest.fixture(scope="session")
def vocabulary() -> Callable[..., ConstraintCompiler]:
    """A compiler for the vocabulary in which these texts are special tokens.

    Of the markers of tool calls, `<tool_call>` and `</tool_call>` are tokens of the demo model as they are, but not
    special; any other is spelled.
    """
    made: dict[tuple[str, ...], ConstraintCompiler] = {}

    def compiler(*special: str) -> ConstraintCompiler:
        if special not in made:
            tokenizer = _tokenizer(special)
            made[special] = ConstraintCompiler(tokenizer, tokenizer.vocab_size, [tokenizer.eos_id or 0])
        return made[special]

    return compiler


def _tokenizer(special: tuple[str, ...]) -> Tokenizer:
    state = json.loads((DEMO / "tokenizer.json").read_text())
    added = {token["content"]: token for token in state["added_tokens"]}
    size = 1 + max(*state["model"]["vocab"].values(), *(token["id"] for token in added.values()))
    for text in special:
        if text in added:
            added[text]["special"] = True
        else:
            state["added_tokens"].append({**state["added_tokens"][0], "content": text, "id": size, "special": True})
            size += 1
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    return Tokenizer(backend, special_tokens={"eos_token": "<|im_end|>"}, origin="test")
