"""Whole tiny models: a file of every version and type answers as transformers does with the same numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bestiary
from bestiary.errors import CheckpointError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.nn import CausalLM, Embedding, Linear
from bestiary.opening import choose_loader
from bestiary.records import SourceOptions
from bestiary.registry import Registry
from bestiary.sources.folder import Folder
from bestiary_quant.ggml import checkpoint

PROMPT = [3, 5, 87, 3, 44, 130, 9]
OLDER = {"rms_norm_eps": 1e-6, "num_key_value_heads": 4}
NEWEST = {"rms_norm_eps": 1e-5, "num_key_value_heads": 2}
CASES = [
    (version, code)
    for version in (("ggml", 0), ("ggmf", 1), ("ggjt", 1), ("ggjt", 2), ("ggjt", 3))
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8)
    if code not in (4, 5) or version[0] != "ggjt" or version[1] < 2
]


def load(path: Path, registry: Registry) -> CausalLM:
    identified = identify_model(str(path), SourceOptions(), registry)
    loaded = load_weights(identified, registry, dtype="float32", device="cpu").model
    assert isinstance(loaded, CausalLM)
    return loaded


def logits(model: CausalLM) -> torch.Tensor:
    caches = [SequenceCache(len(model.specs))]
    with torch.no_grad():
        batch = make_batch(caches, [len(PROMPT)], "cpu", all_outputs=True)
        return model.head(model.hidden(torch.tensor(PROMPT), batch))


@pytest.mark.parametrize(("version", "code"), CASES, ids=[f"{mark}{n}-{code}" for (mark, n), code in CASES])
def test_logits(version: tuple[str, int], code: int, made: Callable[..., Any], registry: Registry) -> None:
    case = made(version, code, **(NEWEST if version == ("ggjt", 3) else OLDER))
    model = load(case.path, registry)
    expected = case.reference.logits(PROMPT)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    packed = [module.packed is not None for module in model.modules() if isinstance(module, Linear | Embedding)]
    assert len(packed) == 23 and set(packed) == {code > 1}


def test_the_rows_of_queries_are_turned_back(made: Callable[..., Any], registry: Registry) -> None:
    """The file has them in the order of Meta, which the rules for GGUF files of a Llama bring into halves."""
    case = made(("ggjt", 3), **NEWEST)
    stored = load_file(case.reference.folder / "model.safetensors")
    parameters = dict(load(case.path, registry).named_parameters())
    opened = checkpoint.open(Folder(case.path.parent, "test"), ("model.bin",))
    for name, same in (("q_proj", False), ("k_proj", False), ("v_proj", True)):
        name = f"model.layers.0.self_attn.{name}.weight"
        assert torch.equal(opened.read(name), stored[name]) is same
        assert torch.equal(parameters[name], stored[name])
    opened.close()


def test_only_marked_files_are_of_the_format(made: Callable[..., Any], registry: Registry, tmp_path: Path) -> None:
    made(("ggjt", 3), 2, "model.ggmlv3.q4_0.bin", **NEWEST)
    for name in ("training_args.bin", "pytorch_model-00001-of-00002.bin"):
        (tmp_path / name).write_bytes(b"PK\3\4" + bytes(60))
    loader, names = choose_loader(Folder(tmp_path, "test"), registry)
    assert loader.name == "ggml" and names == ("model.ggmlv3.q4_0.bin",)


def test_a_pickle_keeps_its_advice(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\3\4" + bytes(60))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(CheckpointError, match=r"pickled \('pytorch_model\.bin'\)") as caught:
        choose_loader(Folder(tmp_path, "test"), registry)
    assert "safetensors" in str(caught.value.fix)


def test_real_weights(shared_data: Path, tmp_path: Path, writing: ModuleType, registry: Registry) -> None:
    """The stories of llama2.c: the tokens that its program gives, from the texts that its program was given."""
    stories = shared_data / "weights" / "stories260K"
    config = json.loads((stories / "hf" / "config.json").read_text())
    weights = {name: tensor.numpy() for name, tensor in load_file(stories / "hf" / "model.safetensors").items()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    tokens, scores = llama2c_tokens(stories / "original" / "tok512.bin", config["vocab_size"])
    expected = json.loads((stories / "expected_greedy.json").read_text())
    assert len(expected) >= 5
    path = writing.llama(weights, config, ("ggjt", 3), 0, tokens, scores).write(tmp_path / "stories.ggml")
    with bestiary.load(str(path), dtype="float32", device="cpu", registry=registry, progress=False) as pipeline:
        for case in expected:
            assert pipeline.tokenize(case["prompt"]) == case["prompt_tokens"]
            wanted = case["greedy_tokens"]
            made = pipeline.generate(case["prompt"], max_tokens=len(wanted), ignore_eos=True, temperature=0)
            assert list(made.tokens) == wanted


def llama2c_tokens(path: Path, count: int) -> tuple[list[bytes], list[float]]:
    """The vocabulary of llama2.c as convert.py would write it: bytes as such, and no text for control tokens."""
    import struct

    content, at = path.read_bytes(), 4
    tokens, scores = [], []
    for place in range(count):
        score, length = struct.unpack_from("<fi", content, at)
        raw = content[at + 8 : at + 8 + length]
        at += 8 + length
        if place == 0:
            raw = " \u2047 ".encode()
        elif place < 3:
            raw = b""
        elif place < 259:
            raw = bytes([int(raw[3:5], 16)])
        tokens.append(raw)
        scores.append(score)
    return tokens, scores
