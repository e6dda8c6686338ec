"""A model of a UQFF folder in Bestiary, and the log-probabilities that it gives."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from bestiary.building import build_empty, make_plan
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.nn import CausalLM
from bestiary.pulling import Puller, pull
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder
from bestiary_quant.uqff import checkpoint, selection

Top = list[list[list[Any]]]


def built(folder: Path, wanted: str | None = None) -> CausalLM:
    identified = identify_model(str(folder), SourceOptions(), default_registry())
    model = build_empty(identified.architecture, identified.config)
    repository = Folder(folder, "test")
    opened = checkpoint.open(repository, selection.files(repository, wanted))
    plan = make_plan(identified.architecture, identified.config, model, opened)
    pull(Puller(model, plan, opened, device=torch.device("cpu"), dtype=torch.float32))
    opened.close()
    assert isinstance(model, CausalLM)
    return model


def tokens(folder: Path, text: str) -> list[int]:
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return ids


@torch.no_grad()
def logprobs(model: CausalLM, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Before each token of the answer, [count, V]."""
    ids = prompt + answer[:-1]
    batch = make_batch([SequenceCache(len(model.specs))], [len(ids)], "cpu", all_outputs=True)
    logits = model.head(model.hidden(torch.tensor(ids), batch))
    return logits[len(prompt) - 1 :].float().log_softmax(-1)


def difference(model: CausalLM, prompt: list[int], top: Top) -> tuple[float, bool]:
    """The largest distance to the log-probabilities `top`, and whether the best tokens are the same."""
    answer = [step[0][0] for step in top]
    made = logprobs(model, prompt, answer)
    far = max(abs(float(row[token]) - value) for row, step in zip(made, top, strict=True) for token, value in step)
    return far, made.argmax(-1).tolist() == answer
