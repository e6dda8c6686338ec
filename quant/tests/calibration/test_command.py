"""`bestiary imatrix`: the file that it writes, read by the gguf package, is what a model was multiplied with."""

from pathlib import Path

import gguf
import numpy
import pytest
import torch

import bestiary
from bestiary.cli import invoke
from bestiary.generation.cache import SequenceCache, make_batch

TEXT = "The capital of France is Paris. 27 + 45 = 72. " * 12


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_the_sums_are_those_of_the_inputs(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo.gguf"
    assert invoke(["imatrix", "demo", str(text), "-o", str(path), "--dtype", "float32", "--chunk", "128"]) == 0
    assert "43 weights" in capsys.readouterr().out
    file = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor.data for tensor in file.tensors}
    chunks = int(file.fields["imatrix.chunk_count"].parts[-1][0])

    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        tokens = pipe.tokenize(TEXT)
        parts = [part for part in torch.split(torch.tensor(tokens), 128) if len(part) >= 64]
        model, sums = pipe.model, numpy.zeros(192)
        with torch.no_grad():
            for part in parts:
                # What the first layer's queries are multiplied with: the norm of the embedding.
                x = model.model.layers[0].input_layernorm(model.model.embed_tokens(part)).double()
                sums += x.square().sum(0).numpy()
                model.hidden(part, make_batch([SequenceCache(len(model.specs))], [len(part)], "cpu"))
    assert chunks == len(parts)
    numpy.testing.assert_allclose(tensors["blk.0.attn_q.weight.in_sum2"].reshape(-1), sums, rtol=1e-4)
    assert float(tensors["blk.0.attn_q.weight.counts"].reshape(-1)[0]) == sum(map(len, parts))


def test_the_file_is_what_a_load_takes(text: Path, tmp_path: Path) -> None:
    path = tmp_path / "demo.imatrix"
    assert invoke(["imatrix", "demo", str(text), "-o", str(path)]) == 0
    with (
        bestiary.load("demo", quant="q4_0", imatrix=str(path), progress=False) as weighed,
        bestiary.load("demo", quant="q4_0", progress=False) as plain,
    ):
        ours, theirs = (pipe.model.model.layers[2].mlp.up_proj.packed.data for pipe in (weighed, plain))
        assert ours.shape == theirs.shape and not torch.equal(ours, theirs)


def test_names_that_are_no_form_or_are_taken(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["imatrix", "demo", str(text), "-o", str(tmp_path / "demo.txt")]) == 1
    assert ".imatrix" in capsys.readouterr().err
    taken = tmp_path / "demo.dat"
    taken.write_bytes(b"mine")
    assert invoke(["imatrix", "demo", str(text), "-o", str(taken)]) == 1
    assert "--force" in capsys.readouterr().err and taken.read_bytes() == b"mine"
    assert invoke(["imatrix", "demo", str(tmp_path / "none.txt"), "-o", str(tmp_path / "x.dat")]) == 1
    assert "none.txt" in capsys.readouterr().err
