"""Tiny random FLUX.1 pipelines, made and saved by diffusers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ("a", "red", "green", "fox", "square", "circle", "on", "blue", "no", "b", "c", "d", "e")
Made = tuple[Path, Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """made(guidance=..., channels=..., scheduler=...) -> (folder, diffusers' FluxPipeline); each is made once."""
    known: dict[str, Made] = {}

    def make(**changes: Any) -> Made:
        name = json.dumps(changes, sort_keys=True)
        if name not in known:
            folder = tmp_path_factory.mktemp("flux")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of libraries that diffusers imports
                known[name] = folder, save(folder, **changes)
        return known[name]

    return make


def save(
    folder: Path,
    guidance: bool = False,
    head: int = 16,
    channels: int = 16,
    out: int | None = None,
    scheduler: dict[str, Any] | None = None,
) -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(1)
    clip = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=32,
            intermediate_size=37,
            num_attention_heads=4,
            num_hidden_layers=2,
            vocab_size=40,
            max_position_embeddings=20,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            projection_dim=32,
        )
    )
    t5 = T5EncoderModel(
        T5Config(d_model=24, d_ff=400, d_kv=6, num_heads=4, num_layers=2, vocab_size=40, feed_forward_proj="gated-gelu")
    )
    transformer = FluxTransformer2DModel(
        in_channels=channels,
        out_channels=out,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=head,
        num_attention_heads=2 if head == 16 else 1,
        joint_attention_dim=24,
        pooled_projection_dim=32,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8) if head == 16 else (16, 56, 56),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=32,
        layers_per_block=1,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )
    for network in (clip, t5, transformer, vae):
        network.eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    whole = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {})),
        vae=vae,
        transformer=transformer,
        text_encoder=clip,
        tokenizer=_clip_tokenizer(folder),
        text_encoder_2=t5,
        tokenizer_2=_t5_tokenizer(),
    )
    whole.set_progress_bar_config(disable=True)
    whole.save_pretrained(folder)
    return whole


def _clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    letters = [chr(97 + place) for place in range(14)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    place = folder / "clip"
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(place, model_max_length=20)


def _t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    vocabulary += [(f"▁{word}", -2.0) for word in WORDS] + [(word, -3.0) for word in WORDS]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", extra_ids=0
    )
