"""The text encoders of T5, mT5 and UMT5 for Bestiary."""

from collections.abc import Sequence

import bestiary

ALIASES = (
    *("T5Model", "T5ForConditionalGeneration", "T5WithLMHeadModel"),
    *("MT5EncoderModel", "MT5Model", "MT5ForConditionalGeneration"),
    *("UMT5EncoderModel", "UMT5Model", "UMT5ForConditionalGeneration"),
)
WEIGHTS = (
    # Checkpoints of the whole model have what writes texts, and the embedding once more under the encoder's name.
    bestiary.drop("decoder.**"),
    bestiary.drop("lm_head.weight"),
    bestiary.drop("encoder.embed_tokens.weight"),
)


def _stored(name: str, parameter: str) -> object:
    return bestiary.rename(f"enc.blk.*.{name}.weight", f"encoder.block.*.layer.{parameter}.weight")


_ENCODER = (
    bestiary.rename("model.embed_tokens.weight", "shared.weight"),
    bestiary.rename("enc.output_norm.weight", "encoder.final_layer_norm.weight"),
    _stored("attn_norm", "0.layer_norm"),
    _stored("attn_rel_b", "0.SelfAttention.relative_attention_bias"),
    _stored("attn_q", "0.SelfAttention.q"),
    _stored("attn_k", "0.SelfAttention.k"),
    _stored("attn_v", "0.SelfAttention.v"),
    _stored("attn_o", "0.SelfAttention.o"),
    _stored("ffn_norm", "1.layer_norm"),
    _stored("ffn_down", "1.DenseReluDense.wo"),
)
GATED = (
    *_ENCODER,
    _stored("ffn_gate", "1.DenseReluDense.wi_0"),
    _stored("ffn_up", "1.DenseReluDense.wi_1"),
)
"""Of GGUF files: those of the encoder alone are gated, as v1.1 and all that came after it."""


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [
        bestiary.Architecture(
            "T5EncoderModel",
            "embedding",
            "bestiary_t5.model:build",
            WEIGHTS,
            aliases=ALIASES,
            model_types=("t5", "mt5", "umt5", "t5encoder"),
            gguf=(bestiary.Gguf("t5encoder", GATED),),
            describe="bestiary_t5.describe:describe",
            tiny="bestiary_t5.tiny:T5",
        )
    ]
