"""The embedding pipeline: texts in, vectors out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bestiary.building import resident_bytes
from bestiary.closing import Closing
from bestiary.errors import OptionError, RequestError, shown
from bestiary.generation.tokenizer import Tokenizer
from bestiary.identified import Identified
from bestiary.loading import Pull

MOST_TEXTS = 100_000


class EmbeddingPipeline(Closing):
    """A text encoder that is ready; a context manager that frees memory.  Calls wait for each other.

    Its module has `embed(tokens [B, T], mask [B, T]) -> [B, D]`.
    """

    def __init__(self, identified: Identified, pull: Pull) -> None:
        self.identified, self.tokenizer = identified, Tokenizer.from_repository(identified.repository)
        loaded = pull(encode=self.tokenizer.encode)
        self.device, self.dtype = loaded.device, loaded.dtype
        self._model: Any = loaded.model
        self.context_length: int | None = identified.config.text.get("max_position_embeddings")
        """The longest text in tokens; None: the encoder has no bound."""
        self._lock = threading.Lock()

    def embed(
        self, texts: str | Sequence[str], *, normalize: bool = True, truncate: bool = False, batch_size: int = 16
    ) -> np.ndarray:
        """Vectors [N, D] of texts, or [D] of one, in float32; of length 1 unless `normalize` is False.

        Raises RequestError for a text that is longer than the model reads, unless `truncate` cuts it there.
        """
        given = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Sequence) else []
        if not given or len(given) > MOST_TEXTS or not all(isinstance(text, str) for text in given):
            raise RequestError(f"The texts are {shown(texts)}; a text or a list of 1 to {MOST_TEXTS} texts is due.")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size is {shown(batch_size)}; a whole number above 0 is due.")
        tokens = [self._tokens(text, truncate) for text in given]
        # Texts of one length beside each other: least is padded.
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        made: dict[int, torch.Tensor] = {}
        with self._lock, torch.inference_mode():
            if self._model is None:
                raise RequestError("The pipeline is closed.", fix="load the model again")
            for first in range(0, len(order), batch_size):
                places = order[first : first + batch_size]
                made.update(zip(places, self._embed([tokens[place] for place in places]), strict=True))
        vectors = torch.stack([made[place] for place in range(len(tokens))])
        if normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        found: np.ndarray = vectors.numpy()
        return found[0] if isinstance(texts, str) else found

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds."""
        return self.tokenizer.encode(text)

    @property
    def nbytes(self) -> int:
        """What the weights take."""
        return 0 if self._model is None else resident_bytes(self._model)

    def close(self) -> None:
        """Free the memory; calls after it raise RequestError."""
        with self._lock:
            self._model = None

    def _tokens(self, text: str, truncate: bool) -> list[int]:
        most = self.context_length
        tokens = self.tokenizer.encode(text, most=None if truncate else most)
        if not tokens:
            raise RequestError("A text has no tokens.", fix="leave empty texts out")
        if most is not None and len(tokens) > most:
            if not truncate:
                raise RequestError(
                    f"A text has {len(tokens)} tokens; the model reads {most}.",
                    fix="shorten it, or let it be cut with truncate=True",
                )
            bare = len(self.tokenizer.encode(""))  # what stands around a text stays around it
            tail = tokens[-(bare // 2) :] if bare // 2 else []
            tokens = [*tokens[: most - len(tail)], *tail]
        return tokens

    def _embed(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(map(len, tokens))
        ids = torch.zeros(len(tokens), longest, dtype=torch.int64)
        mask = torch.zeros(len(tokens), longest, dtype=torch.bool)
        for row, each in enumerate(tokens):
            ids[row, : len(each)], mask[row, : len(each)] = torch.tensor(each), True
        made: torch.Tensor = self._model.embed(ids.to(self.device), mask.to(self.device))
        return made.float().cpu()
