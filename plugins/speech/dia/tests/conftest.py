"""Tiny random checkpoints of Dia with a codec, and what transformers makes of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary
from bestiary.pipelines.speech import SpeechPipeline
from bestiary.testing.reference import make_reference
from bestiary.testing.threads import one_thread as one_thread
from bestiary_dac.tiny import codec


@dataclass(frozen=True)
class Pair:
    """Dia and its codec in folders, with the models of transformers that were saved there."""

    config: dict[str, Any]
    folder: Path
    dac_folder: Path
    model: Any
    dac: Any

    def load(self, folder: Path | None = None, **options: Any) -> SpeechPipeline:
        found = {"dac_model_id": str(self.dac_folder), "dtype": "float32", "progress": False, **options}
        pipe = bestiary.load(str(folder or self.folder), **found)
        assert isinstance(pipe, SpeechPipeline)
        return pipe

    def tokens(self, text: str) -> torch.Tensor:
        from transformers import DiaTokenizer

        return torch.tensor([DiaTokenizer()(text, add_special_tokens=False)["input_ids"]])

    def codes(self, text: str, frames: int, guidance: float, top_k: int | None, voice: torch.Tensor | None) -> Any:
        """The codes [Q, T] that transformers writes, most probable ones, after those of a voice [1, 1, N]."""
        from transformers.models.dia.processing_dia import DiaProcessor

        delays = self.config["delay_pattern"]
        known = torch.empty(0, len(delays), dtype=torch.long)
        if voice is not None:
            known = self.dac.encode(voice).audio_codes[0].T
        bos, pad = (self.config["decoder_config"][f"{name}_token_id"] for name in ("bos", "pad"))
        rows = torch.cat((torch.full((1, len(delays)), bos), known, torch.full((max(delays), len(delays)), pad)))

        def moved(x: torch.Tensor, revert: bool) -> torch.Tensor:
            places = DiaProcessor.build_indices(
                bsz=1, seq_len=x.shape[1], num_channels=len(delays), delay_pattern=delays, revert=revert
            )
            return DiaProcessor.apply_audio_delay(x, pad_token_id=pad, bos_token_id=bos, precomputed_idx=places)

        tokens = self.tokens(text)
        begin = moved(rows[None], revert=False)
        made = self.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            decoder_input_ids=begin,
            decoder_attention_mask=torch.ones(begin.shape[:2], dtype=torch.long),
            max_length=1 + len(known) + frames + 1,  # the end takes a row
            do_sample=False,
            guidance_scale=guidance,
            top_k=top_k,
        )
        count = made.shape[1] - int((made[0, :, 0] == pad).sum()) - 1  # as `DiaProcessor.batch_decode` counts
        return moved(made, revert=True)[0, 1 + len(known) : count].T


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Pair]:
    """Makes, or finds, the checkpoints of a configuration."""
    made: dict[str, Pair] = {}

    def make(config: dict[str, Any]) -> Pair:
        name = json.dumps(config)
        if name not in made:
            folder = tmp_path_factory.mktemp("dia")
            model = make_reference(config, folder / "dia").model
            sound = codec(
                2, 4, 8, n_codebooks=len(config["delay_pattern"]), codebook_size=64, codebook_dim=8, sampling_rate=8000
            )
            dac = make_reference(sound, folder / "dac").model
            made[name] = Pair(config, folder / "dia", folder / "dac", model, dac)
        return made[name]

    return make
