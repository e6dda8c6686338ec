"""A text encoder by itself: `bestiary.load(...).embed`, against transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bestiary
from bestiary.errors import OptionError, RequestError

TEXTS = ["a fox", "a red fox on a hill", "b"]
LENGTH = 16


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(97 + place) for place in range(26)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=len(tokens),
        max_position_embeddings=LENGTH,
        projection_dim=10,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = CLIPTextModelWithProjection(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


@pytest.fixture
def pipe(saved: tuple[Path, Any, Any]) -> Iterator[Any]:
    with bestiary.load(str(saved[0]), device="cpu", progress=False, offline=True) as loaded:
        yield loaded


@torch.no_grad()
def expected(saved: tuple[Path, Any, Any], text: str) -> np.ndarray:
    _, model, tokenizer = saved
    found = model(**tokenizer([text], return_tensors="pt")).text_embeds
    return torch.nn.functional.normalize(found, dim=-1)[0].numpy()


def test_vectors_are_those_of_transformers(saved: tuple[Path, Any, Any], pipe: Any) -> None:
    vectors = pipe.embed(TEXTS)
    assert vectors.shape == (3, 10) and vectors.dtype == np.float32
    for vector, text in zip(vectors, TEXTS, strict=True):
        assert np.allclose(vector, expected(saved, text), atol=1e-5)
    assert np.allclose(pipe.embed(TEXTS, batch_size=1), vectors, atol=1e-6)
    assert np.allclose(pipe.embed("b"), vectors[2], atol=1e-6)
    bare = pipe.embed(TEXTS, normalize=False)
    assert np.allclose(bare / np.linalg.norm(bare, axis=1, keepdims=True), vectors, atol=1e-5)


def test_a_text_that_is_too_long_is_cut_only_where_that_is_asked(saved: tuple[Path, Any, Any], pipe: Any) -> None:
    long = "a fox " * 20
    with pytest.raises(RequestError, match="the model reads 16"):
        pipe.embed(long)
    _, model, tokenizer = saved
    with torch.no_grad():
        found = model(**tokenizer([long], truncation=True, return_tensors="pt")).text_embeds[0]
    cut = torch.nn.functional.normalize(found, dim=-1).numpy()
    assert np.allclose(pipe.embed(long, truncate=True), cut, atol=1e-5)


def test_requests_that_cannot_be(pipe: Any) -> None:
    for texts in ([], [3], 3.5):
        with pytest.raises(RequestError, match="a text or a list"):
            pipe.embed(texts)
    with pytest.raises(OptionError, match="batch_size is 0"):
        pipe.embed("a", batch_size=0)
    pipe.close()
    with pytest.raises(RequestError, match="closed"):
        pipe.embed("a")
