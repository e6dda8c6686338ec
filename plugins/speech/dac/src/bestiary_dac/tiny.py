"""Small configurations that exercise every argument of the network, for tests."""

from typing import Any


def codec(*ratios: int, **changes: Any) -> dict[str, Any]:
    """A config.json object with these `downsampling_ratios`."""
    return {
        "architectures": ["DacModel"],
        "model_type": "dac",
        "encoder_hidden_size": 4,
        "downsampling_ratios": list(ratios),
        "decoder_hidden_size": 32,
        "n_codebooks": 3,
        "codebook_size": 16,
        "codebook_dim": 4,
        "sampling_rate": 16000,
        **changes,
    }


FOUR = codec(2, 4, 8, 8, n_codebooks=9, codebook_size=64, codebook_dim=8, sampling_rate=44100)
"""The ratios of 44.1 kHz."""
ODD = codec(2, 4, 5, 8, n_codebooks=4, sampling_rate=24000)
"""Those of 24 and 16 kHz: an odd ratio loses a sample at each end of what it doubles."""
TWO = codec(3, 2, encoder_hidden_size=6, decoder_hidden_size=20, codebook_dim=3)
ONE = codec(4, decoder_hidden_size=6, n_codebooks=1, codebook_size=2, codebook_dim=1)
CONFIGS = (FOUR, ODD, TWO, ONE)
