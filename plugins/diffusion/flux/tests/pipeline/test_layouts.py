"""One model in every layout in which it is published: the same latents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bestiary
from bestiary.config import normalise
from bestiary.errors import CheckpointError, ConfigError, ModelNotFound
from bestiary.weights import plan
from bestiary_flux.weights import WEIGHTS

Make = Callable[..., tuple[Path, Any]]
Original = Callable[[dict[str, Any]], dict[str, tuple[int, ...]]]
OURS: dict[str, Any] = {"height": 32, "width": 48, "steps": 2, "max_sequence_length": 16, "seed": 3, "output": "latent"}


class Layouts:
    """A diffusers folder, and the transformer's tensors by the names of the original release."""

    def __init__(self, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        self.folder, self.tensors = folder, tensors

    def original(self, path: Path, prefix: str = "", dtype: torch.dtype = torch.float32) -> Path:
        save_file({prefix + name: tensor.to(dtype) for name, tensor in self.tensors.items()}, path)
        return path


@pytest.fixture(scope="module")
def layouts(made: Make, original: Original, tmp_path_factory: pytest.TempPathFactory) -> Layouts:
    source, _ = made(guidance=True, head=128)  # the size that files without a configuration have
    folder = tmp_path_factory.mktemp("layouts") / "diffusers"
    shutil.copytree(source, folder)
    config = json.loads((folder / "transformer/config.json").read_text())
    generator = torch.Generator().manual_seed(0)
    shapes = original(config)
    tensors = {name: torch.randn(shape, generator=generator) * 0.08 for name, shape in shapes.items()}
    recipes = plan(WEIGHTS, tensors, normalise(config, "the test")).recipes
    ours = {name: recipe.make(tensors.__getitem__).contiguous() for name, recipe in recipes.items()}
    file = folder / "transformer/diffusion_pytorch_model.safetensors"
    assert {name: each.shape for name, each in load_file(file).items()} == {n: each.shape for n, each in ours.items()}
    save_file(ours, file)
    return Layouts(folder, tensors)


def paint(model: Path, **options: Any) -> torch.Tensor:
    with bestiary.load(str(model), device="cpu", progress=False, offline=True, **options) as pipe:
        made: torch.Tensor = pipe("a red fox", **OURS)
        return made


@pytest.fixture(scope="module")
def expected(layouts: Layouts) -> torch.Tensor:
    return paint(layouts.folder)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_the_single_file_of_the_original_release(
    layouts: Layouts, expected: torch.Tensor, tmp_path: Path, prefix: str
) -> None:
    file = layouts.original(tmp_path / "anything.safetensors", prefix)
    assert torch.equal(paint(file, parts=str(layouts.folder)), expected)


def test_a_folder_of_files_of_the_original_release(layouts: Layouts, expected: torch.Tensor, tmp_path: Path) -> None:
    layouts.original(tmp_path / "flux1-dev.safetensors")
    shutil.copy(layouts.folder / "vae/diffusion_pytorch_model.safetensors", tmp_path / "ae.safetensors")
    rest = {name: str(layouts.folder / name) for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")}
    rest["scheduler"] = str(layouts.folder / "scheduler")
    # Latents do not pass the autoencoder, whose scale a file alone cannot tell for sizes that nobody published.
    assert torch.equal(paint(tmp_path, parts=rest), expected)


def test_text_encoders_in_single_files(layouts: Layouts, expected: torch.Tensor, tmp_path: Path) -> None:
    """Their sizes tell all but what published models have in common."""
    t5 = shutil.copy(layouts.folder / "text_encoder_2/model.safetensors", tmp_path / "t5xxl.safetensors")
    made = paint(layouts.folder, parts={"text_encoder_2": str(t5), "tokenizer_2": str(layouts.folder / "tokenizer_2")})
    assert torch.allclose(made, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelNotFound, match="needs the part tokenizer_2"):
        paint(layouts.folder, parts={"text_encoder_2": str(t5), "tokenizer_2": None})


def test_shards(made: Make, tmp_path: Path) -> None:
    folder, theirs = made()
    whole = tmp_path / "sharded"
    shutil.copytree(folder, whole)
    shutil.rmtree(whole / "transformer")
    theirs.transformer.save_pretrained(whole / "transformer", max_shard_size="200KB")
    assert len(list((whole / "transformer").glob("*.safetensors"))) > 2
    assert torch.equal(paint(whole), paint(folder))
    assert torch.equal(paint(whole, offload="layers"), paint(folder))


def test_a_transformer_folder_alone_is_the_pipeline(layouts: Layouts, expected: torch.Tensor) -> None:
    assert torch.equal(paint(layouts.folder / "transformer", parts=str(layouts.folder)), expected)
    with pytest.raises(ModelNotFound, match="needs the part vae") as found:
        paint(layouts.folder / "transformer")
    assert "parts=" in str(found.value)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_gguf(layouts: Layouts, expected: torch.Tensor, tmp_path: Path, kind: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "flux.gguf", "flux")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, tensor in layouts.tensors.items():
        values = tensor.numpy()
        packs = kind == "Q8_0" and values.ndim == 2 and values.shape[1] % 32 == 0
        if packs:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values.astype(np.float16) if kind == "F16" and values.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made = paint(tmp_path / "flux.gguf", parts=str(layouts.folder), dtype="float32")
    if kind == "F32":
        assert torch.equal(made, expected)
    assert float((made - expected).norm() / expected.norm()) < (0.05 if kind == "Q8_0" else 0.01)
    streamed = paint(tmp_path / "flux.gguf", parts=str(layouts.folder), dtype="float32", offload="layers")
    assert torch.equal(streamed, made)


def test_numbers_of_eight_bits(layouts: Layouts, tmp_path: Path) -> None:
    """They are for keeping: it computes in bfloat16, with the numbers that they stand for."""
    file = layouts.original(tmp_path / "fp8.safetensors", dtype=torch.float8_e4m3fn)
    rounded = Layouts(layouts.folder, {n: each.to(torch.float8_e4m3fn).float() for n, each in layouts.tensors.items()})
    other = rounded.original(tmp_path / "rounded.safetensors", dtype=torch.bfloat16)
    assert torch.equal(paint(file, parts=str(layouts.folder)), paint(other, parts=str(layouts.folder)))


def test_a_part_alone_says_whose_it_is(layouts: Layouts) -> None:
    with pytest.raises(CheckpointError, match="AutoencoderKL is a part of other models") as found:
        paint(layouts.folder / "vae")
    assert 'FluxPipeline has it as parts={"vae": ...}' in str(found.value)


def test_something_else_as_a_part(layouts: Layouts) -> None:
    with pytest.raises(CheckpointError, match="given as the part vae is something else"):
        paint(layouts.folder, parts={"vae": str(layouts.folder / "text_encoder")})


def test_weights_that_nothing_describes(tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="Nothing here says what the model is"):
        paint(tmp_path)


def test_text_encoders_are_models_by_themselves(layouts: Layouts) -> None:
    for name, width in (("text_encoder", 32), ("text_encoder_2", 24)):
        place = layouts.folder.parent / name
        shutil.copytree(layouts.folder / name, place, dirs_exist_ok=True)
        shutil.copytree(layouts.folder / name.replace("text_encoder", "tokenizer"), place, dirs_exist_ok=True)
        with bestiary.load(str(place), device="cpu", progress=False) as pipe:
            vectors = pipe.embed(["a red fox", "a circle"])
            assert vectors.shape == (2, width)
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
            assert np.allclose(pipe.embed("a circle"), vectors[1], atol=1e-5)
