"""A text cut into chunks, and the importance that it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bestiary.errors import OptionError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.nn import CausalLM
from bestiary.records import Progress
from bestiary_quant.calibration.collector import Collector
from bestiary_quant.calibration.importance import Importance

CHUNK = 512
CHUNKS = 128
"""65,536 tokens: what the authors of GPTQ take (128 samples), and more than imatrix files are mostly made of."""
LEAST = 64
"""Tokens of a text, and of its last chunk."""


def cut(
    tokens: Sequence[int], vocab_size: int, *, chunk: int = CHUNK, chunks: int = CHUNKS, bos: int | None = None
) -> list[torch.Tensor]:
    """The beginning of a text as chunks [chunk] int64; the last one may be shorter, and is left out below LEAST tokens.

    A text that begins with `bos` gets it in place of the first token of each chunk, as llama.cpp does: a model that is
    used with it behaves otherwise without.  Raises OptionError for a text that is too short, or is none of the model's.
    """
    if chunk < LEAST or chunks < 1:
        raise OptionError(
            f"Calibration in {chunks} chunks of {chunk} tokens is not possible.",
            fix=f"at least one chunk, of at least {LEAST} tokens",
        )
    if len(tokens) < LEAST:
        raise OptionError(
            f"The text for calibration has {len(tokens)} tokens, and at least {LEAST} are needed.",
            fix=f"use a longer text, like those that the model will see; up to {chunk * chunks:,} tokens are used",
        )
    whole = torch.tensor(tokens[: chunk * chunks], dtype=torch.int64)
    if int(whole.min()) < 0 or int(whole.max()) >= vocab_size:
        raise OptionError(
            f"The text for calibration has the token {int(whole.max())}, and the model knows {vocab_size}.",
            fix="use the tokenizer of this model",
        )
    parts = [part.clone() for part in torch.split(whole, chunk)]
    if len(parts) > 1 and len(parts[-1]) < LEAST:
        parts.pop()
    if bos is not None and tokens[0] == bos:
        for part in parts:
            part[0] = bos
    return parts


@torch.no_grad()
def collect_text(
    model: nn.Module,
    tokens: Sequence[int],
    chunk: int = CHUNK,
    *,
    chunks: int = CHUNKS,
    bos: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Importance:
    """The importance of all weights of a loaded network, from a text of which each chunk is a sequence of its own.

    Raises OptionError for a network that is no CausalLM, and for a text that does not fit (see `cut`).
    """
    language = causal(model)
    parts = cut(tokens, language.vocab_size, chunk=chunk, chunks=chunks, bos=bos)
    where = next(language.parameters()).device
    with Collector(language) as collector:
        for number, part in enumerate(parts):
            batch = make_batch([SequenceCache(len(language.specs))], [len(part)], where, all_outputs=True)
            hidden = language.hidden(part.to(where), batch)
            for rows in torch.split(hidden, LEAST):  # the logits of a whole chunk would take more memory than all else
                language.head(rows)
            if progress:
                progress(Progress("calibrate", number + 1, len(parts), f"chunk {number + 1}"))
    return collector.snapshot(len(parts), chunk)


def causal(model: nn.Module) -> CausalLM:
    """The network, if calibration can run it.  Raises OptionError."""
    if isinstance(model, CausalLM):
        return model
    raise OptionError(
        f"Calibration on a text runs causal language models, and this network is a {type(model).__name__}.",
        fix="leave calibration_file out; an imatrix file may still be used",
    )
