"""Small configurations that exercise every argument of the network, for tests."""

import json
from pathlib import Path
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
CONTROLS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"),
    *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
GENERATION: dict[str, Any] = {
    "decoder_start_token_id": 258,
    "eos_token_id": 257,
    "bos_token_id": 257,
    "pad_token_id": 257,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 259, "<|de|>": 260},
    "task_to_id": {"translate": 261, "transcribe": 262},
    "no_timestamps_token_id": 266,
    "prev_sot_token_id": 264,
    "max_initial_timestamp_index": 30,
    "suppress_tokens": [1, 2, 7, 258, 259, 260, 261, 262, 263, 264, 265],
    "begin_suppress_tokens": [32, 257],
    "max_length": 96,
    "return_timestamps": False,
}


def write_small_files(folder: Path, vocabulary: int) -> None:
    """A tokenizer of bytes and a generation_config.json for one of the configurations above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE({**letters, "th": 256}, [("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(CONTROLS))
    backend.add_tokens([f"<|{place * 0.02:.2f}|>" for place in range(vocabulary - 267)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer"}))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
