"""Of a repository on the hub only the first bytes of candidates move, and then the one file that is meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.records import SourceOptions
from bestiary.sources.hub import open_hub
from bestiary.testing.hub import LocalHub
from bestiary_quant.ggml import checkpoint
from bestiary_quant.ggml.identity import identify
from bestiary_quant.ggml.selection import files

ID = "zoo/tiny-lion-GGML"
SHARD = "pytorch_model-00001-of-00002.bin"


def test_only_one_file_is_fetched(made: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    content = made(("ggjt", 3), 2).path.read_bytes()
    with LocalHub() as local:
        pickle = b"PK\3\4" + bytes(4096)
        local.add(ID, {"lion.q4_0.bin": content, "optimizer.bin": pickle, SHARD: pickle, "README.md": b"lion"})
        options = SourceOptions(cache_dir=str(tmp_path / "cache"), token=False)
        repository = open_hub(ID, options, endpoint=local.endpoint)
        names = files(repository)
        assert names == ("lion.q4_0.bin",) and repository.missing(names)
        assert identify(repository, "optimizer.bin").config["hidden_size"] == 64
        assert not repository.missing(names) and repository.missing(["optimizer.bin"])
        asked = {request.path.rpartition("/")[2] for request in local.requests if "/resolve/" in request.path}
        assert asked == {"lion.q4_0.bin", "optimizer.bin"}
        opened = checkpoint.open(repository, names)
        assert opened.shape("model.embed_tokens.weight") == (131, 64)
        opened.close()
