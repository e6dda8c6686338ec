"""Small configurations that exercise every argument of the network, for tests."""

from typing import Any


def _whisper(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": 1768,  # 256 bytes, one word, ten controls, and a timestamp for each position and the end
        "num_mel_bins": 80,
        "d_model": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 96,
        "decoder_layers": 3,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 112,
        "max_source_positions": 1500,
        "max_target_positions": 96,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "decoder_start_token_id": 258,
        "pad_token_id": 257,
        "bos_token_id": 257,
        "eos_token_id": 257,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        **changes,
    }


WHISPER = (
    _whisper(),
    _whisper(
        vocab_size=318,
        max_source_positions=50,
        decoder_attention_heads=2,
        num_mel_bins=128,
        encoder_layers=3,
    ),
    _whisper(vocab_size=318, max_source_positions=50, scale_embedding=True, activation_function="gelu_new"),
)
