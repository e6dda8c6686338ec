"""The demo model: configuration, tokenizer and weights of a tiny Llama, packaged."""

from pathlib import Path


def folder() -> Path:
    """The packaged model folder, laid out as a checkpoint on the hub is."""
    return Path(__file__).parent / "model"
