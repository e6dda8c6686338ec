"""A prompt through both text encoders: CLIP's for the whole of it in one vector, T5's for every token."""

from __future__ import annotations

import logging

import torch

from bestiary.diffusion.model import Condition
from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary.networks import Networks
from bestiary.parts import missing_part

log = logging.getLogger("bestiary.flux")


class Prompts:
    """The text encoders of FLUX.1, and their tokenizers, which are read with the first prompt."""

    def __init__(self, parts: Networks) -> None:
        self._parts = parts
        self._tokenizers: dict[str, Tokenizer] = {}

    def condition(self, prompt: str, prompt_2: str | None, length: int) -> Condition:
        """`prompt` for CLIP, and for T5 unless `prompt_2` is given; padded to `length` tokens of T5.

        Both encoders also look at the padding, as they did when the transformer was trained.
        """
        short = self._ids("tokenizer", prompt, self._clip_length)
        long = self._ids("tokenizer_2", prompt if prompt_2 is None else prompt_2, length)
        with self._parts.use("text_encoder") as clip:
            _, pooled = clip(self._parts.placed("text_encoder", short))
        with self._parts.use("text_encoder_2") as t5:
            states = t5(self._parts.placed("text_encoder_2", long))
        return Condition({"states": states.clone(), "pooled": pooled.clone()})

    @property
    def _clip_length(self) -> int:
        network = self._parts.require("text_encoder").network
        assert network is not None
        return int(network.config.text.max_position_embeddings)

    def _ids(self, part: str, text: str, length: int) -> torch.Tensor:
        """[1, length]: what is too long is cut before the token that ends it, what is too short is padded."""
        tokenizer = self._tokenizer(part)
        tokens = tokenizer.encode(text)
        if len(tokens) > length:
            level = logging.WARNING if part == "tokenizer_2" else logging.INFO  # CLIP is to have the gist only
            log.log(
                level, "the prompt has %d tokens for %s, which reads %d: the rest is cut", len(tokens), part, length
            )
            tokens = [*tokens[: length - 1], tokens[-1]]
        padding = tokenizer.backend.token_to_id(tokenizer.special_tokens.get("pad_token", ""))
        if padding is None:
            raise TokenizerError("The tokenizer names no padding token.", where=tokenizer.origin)
        return torch.tensor([tokens + [padding] * (length - len(tokens))])

    def _tokenizer(self, part: str) -> Tokenizer:
        if part not in self._tokenizers:
            found = self._parts.require(part)
            try:
                self._tokenizers[part] = Tokenizer.from_repository(found.repository)
            except TokenizerError as error:
                if any(name.startswith(("tokenizer", "vocab", "spiece")) for name in found.repository.files()):
                    raise
                raise missing_part(self._parts.whole, found.part) from error
        return self._tokenizers[part]
