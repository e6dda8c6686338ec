"""Whisper for Bestiary: speech to text, in a hundred languages, with timestamps."""

from collections.abc import Sequence

import bestiary

_PARTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def _block(side: str) -> list[object]:
    """A layer as OpenAI names it: "encoder.blocks.0.attn.query.weight"."""
    old, new = f"{side}.blocks.*", f"model.{side}.layers.*"
    renamed = [("attn_ln", "self_attn_layer_norm"), ("mlp.0", "fc1"), ("mlp.2", "fc2"), ("mlp_ln", "final_layer_norm")]
    renamed += [(f"attn.{name}", f"self_attn.{ours}") for name, ours in _PARTS.items()]
    if side == "decoder":
        renamed += [(f"cross_attn.{name}", f"encoder_attn.{ours}") for name, ours in _PARTS.items()]
        renamed.append(("cross_attn_ln", "encoder_attn_layer_norm"))
    return [bestiary.rename(f"{old}.{name}.*", f"{new}.{ours}.*") for name, ours in renamed]


WEIGHTS = (
    # As OpenAI publishes it.
    *_block("encoder"),
    *_block("decoder"),
    bestiary.rename("encoder.conv1.*", "model.encoder.conv1.*"),
    bestiary.rename("encoder.conv2.*", "model.encoder.conv2.*"),
    bestiary.rename("encoder.positional_embedding", "model.encoder.embed_positions.weight"),
    bestiary.rename("encoder.ln_post.*", "model.encoder.layer_norm.*"),
    bestiary.rename("decoder.token_embedding.weight", "model.decoder.embed_tokens.weight"),
    bestiary.rename("decoder.positional_embedding", "model.decoder.embed_positions.weight"),
    bestiary.rename("decoder.ln.*", "model.decoder.layer_norm.*"),
    # As transformers does.
    bestiary.tie("proj_out.weight", "model.decoder.embed_tokens.weight"),
)


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "WhisperForConditionalGeneration",
            "transcription",
            "bestiary_whisper.model:build",
            WEIGHTS,
            model_types=("whisper",),
            defaults={
                "tie_word_embeddings": True,
                "max_source_positions": 1500,
                "max_target_positions": 448,
                "activation_function": "gelu",
            },
            tiny="bestiary_whisper.tiny:WHISPER",
        )
    ]
