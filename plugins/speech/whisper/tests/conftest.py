"""Tiny random checkpoints with a tokenizer of bytes, and what transformers makes of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.testing.hearing import write_small_files
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.threads import one_thread as one_thread


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reference]:
    """Makes, or finds, the checkpoint of a configuration."""
    made: dict[str, Reference] = {}

    def make(config: dict[str, Any]) -> Reference:
        name = json.dumps(config)
        if name not in made:
            folder = tmp_path_factory.mktemp("whisper")
            made[name] = make_reference(config, folder)
            write_small_files(folder, config["vocab_size"])
        return made[name]

    return make
