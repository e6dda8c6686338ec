"""Quantised safetensors: read back by this package's readers, they give the numbers that were packed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from safetensors import safe_open

from bestiary.checkpoints import safetensors_checkpoint
from bestiary.errors import OptionError
from bestiary.identified import identify_model
from bestiary.loading import WeightStream, open_weights
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder
from bestiary.testing.reference import make_reference
from bestiary.testing.tiny import decoder
from bestiary_quant.calibration.grid import rounded
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.loading import load
from bestiary_quant.making.pack import pack
from bestiary_quant.writing import words
from bestiary_quant.writing.layout import plain
from bestiary_quant.writing.quantized import write_safetensors

SIZES = {"hidden_size": 128, "intermediate_size": 192, "head_dim": 32, "num_hidden_layers": 2}
DENSE = decoder("Qwen3ForCausalLM", "qwen3", **SIZES)
SPARSE = decoder(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    **SIZES,
    moe_intermediate_size=64,
    num_experts=4,
    num_experts_per_tok=2,
    norm_topk_prob=True,
)
TIED = decoder("LlamaForCausalLM", "llama", **SIZES, tie_word_embeddings=True)
SCHEMES = ("fp8", "fp8_blocks", "int8", "mxfp4", "afq2", "afq3", "afq4", "afq6", "afq8", "gptq4", "gptq8", "awq4")
METHODS = {"fp8": "compressed-tensors", "int8": "compressed-tensors", "mxfp4": "compressed-tensors"}
METHODS |= {"fp8_blocks": "fp8", "gptq4": "gptq", "gptq8": "gptq", "awq4": "awq"}


@pytest.fixture(scope="module", params=["dense", "sparse", "tied"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"dense": DENSE, "sparse": SPARSE, "tied": TIED}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    make_reference(config, folder)
    (folder / "notes.md").write_text("of the model")
    return folder


def by_hand(tensor: torch.Tensor, scheme: str) -> Any:
    """A weight as GPTQ and AWQ leave it, without a text to calibrate with; as for the others, what packs."""
    if not scheme.startswith(("gptq", "awq")):
        return pack(tensor, scheme)
    group, bits = 32, int(scheme[-1])
    parts = [rounded(part, bits, group) for part in (tensor if tensor.ndim == 3 else [tensor])]
    if tensor.ndim == 3:
        from bestiary_quant.checkpoints.coded import stacked

        return stacked(parts)
    if scheme.startswith("gptq"):  # columns in an order of their own, and a zero of 0
        order = torch.arange(tensor.shape[1]).roll(5) // group
        zeros = parts[0].scaling.zeros
        assert zeros is not None
        zeros = zeros.clone()
        zeros[0, 0] = 0
        scaling = replace(parts[0].scaling, order=order, zeros=zeros)
        return CodedMatrix(parts[0].codes, scaling)
    return parts[0]


class ByHand:
    """A `PackingPlan` that packs every weight in one scheme."""

    def __init__(self, stream: WeightStream, scheme: str) -> None:
        self.scheme, self.made = scheme, dict[str, Any]()
        self.assigned: dict[str, Any] = {site.name: None for site in stream.sites}

    def weights(self, puller: Any) -> Iterator[tuple[str, Any]]:
        for name in puller.names:
            self.made[name] = weight = by_hand(puller.read(name), self.scheme) if name in self.assigned else None
            yield name, puller.plain(name) if weight is None else weight


@contextmanager
def opened(folder: Path, dtype: str = "float32") -> Iterator[WeightStream]:
    found = identify_model(str(folder), SourceOptions(), default_registry())
    with open_weights(found, default_registry(), dtype=dtype, device="cpu") as stream:
        yield stream


@pytest.mark.parametrize("scheme", SCHEMES)
def test_round_trip(scheme: str, source: Path, tmp_path: Path) -> None:
    with opened(source) as stream:
        plan = ByHand(stream, scheme)
        sizes = write_safetensors(tmp_path / "out", replace(stream, packing=plan), scheme, shard_bytes=50_000)
        roles = {site.name: site.role for site in stream.sites}
        original = {name: stream.puller.read(name).clone() for name in stream.puller.names}
    assert all(path.stat().st_size == size for path, size in sizes.items())
    config = json.loads((tmp_path / "out/config.json").read_text())
    key = "quantization" if scheme.startswith("afq") else "quantization_config"
    assert config[key].get("quant_method") == METHODS.get(scheme)
    assert (tmp_path / "out/notes.md").read_text() == "of the model"
    repository = Folder(tmp_path / "out", "test/out")
    files = tuple(name for name in repository.files() if name.endswith(".safetensors"))
    assert len(files) > 1 and (tmp_path / "out/model.safetensors.index.json").exists()
    read = load(safetensors_checkpoint.open(repository, files), config[key])
    packed = 0
    for name, numbers in original.items():
        held = plan.made[name]
        names = [name]
        if roles.get(name) == "experts":
            before, _, last = name.rpartition(".")
            names = [f"{before}.{expert}.{last}.weight" for expert in range(len(numbers))]
        for number, stored in enumerate(names):
            due = numbers if len(names) == 1 else numbers[number]
            if read.packed(stored) is not None:
                due = plain(held if len(names) == 1 else held[number])
                packed += 1
            assert torch.equal(read.read(stored), due), stored
    read.close()
    everywhere = scheme.startswith("afq")
    due_packed = [n for n, role in roles.items() if everywhere or role in ("linear", "experts")]
    assert packed == sum(len(original[n]) if roles[n] == "experts" else 1 for n in due_packed)


def test_plain(source: Path, tmp_path: Path) -> None:
    """Without a scheme the weights are those of the source, under its names, in the type that is asked for."""
    with opened(source, "bfloat16") as stream:
        write_safetensors(tmp_path / "out", stream)
    with (
        safe_open(source / "model.safetensors", "pt") as theirs,
        safe_open(tmp_path / "out/model.safetensors", "pt") as ours,
    ):
        assert set(ours.keys()) == set(theirs.keys())
        for name in theirs.keys():  # noqa: SIM118
            assert torch.equal(ours.get_tensor(name), theirs.get_tensor(name).bfloat16())
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_transformers_reads_plain_files(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    reference = make_reference(SPARSE, tmp_path / "in")
    with opened(tmp_path / "in") as stream:
        write_safetensors(tmp_path / "out", stream, shard_bytes=100_000)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, reference.model(tokens).logits)


def test_a_folder_with_weights_is_kept(tmp_path: Path, models: ModuleType) -> None:
    source = models.write_model("llama", tmp_path / "in")
    with opened(source) as stream:
        with pytest.raises(OptionError, match="is the one that is read"):
            write_safetensors(source, stream, force=True)
        write_safetensors(tmp_path / "out", stream, shard_bytes=1_000_000)
        with pytest.raises(OptionError, match="has weights already"):
            write_safetensors(tmp_path / "out", stream)
        write_safetensors(tmp_path / "out", stream, force=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_an_interruption_leaves_nothing(tmp_path: Path, models: ModuleType) -> None:
    def stop(event: object) -> None:
        raise KeyboardInterrupt

    with opened(models.write_model("llama", tmp_path / "in")) as stream, pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path / "out", stream, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_unknown_scheme(tmp_path: Path, models: ModuleType) -> None:
    with opened(models.write_model("llama", tmp_path / "in")) as stream, pytest.raises(OptionError, match="q4k"):
        write_safetensors(tmp_path / "out", stream, "q4k")


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")
@pytest.mark.parametrize("scheme", ["fp8", "int8", "mxfp4"])
def test_compressed_tensors_reads_them(scheme: str, tmp_path: Path) -> None:
    """As transformers reads them with compressed-tensors, linear layers have the numbers that were packed."""
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    make_reference(DENSE, tmp_path / "in")
    with opened(tmp_path / "in") as stream:
        plan = ByHand(stream, scheme)
        write_safetensors(tmp_path / "out", replace(stream, packing=plan), scheme)
        linear = [site.name for site in stream.sites if site.role == "linear"]
    asked = CompressedTensorsConfig(run_compressed=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, quantization_config=asked)
    numbers = model.state_dict()
    assert linear and all(torch.equal(numbers[name], plain(plan.made[name])) for name in linear)


def test_transformers_reads_blocks_of_float8(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    make_reference({**DENSE, "hidden_size": 256, "intermediate_size": 384}, tmp_path / "in")
    with opened(tmp_path / "in") as stream:
        plan = ByHand(stream, "fp8_blocks")
        write_safetensors(tmp_path / "out", replace(stream, packing=plan), "fp8_blocks")
        linear = [site.name for site in stream.sites if site.role == "linear"]
    asked = FineGrainedFP8Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, quantization_config=asked)
    numbers = model.state_dict()
    assert linear and all(torch.equal(numbers[name], plain(plan.made[name])) for name in linear)


def test_words_by_the_formulas_of_others() -> None:
    """Unpacked in plain NumPy as AutoGPTQ (qlinear_cuda.py) and AutoAWQ (gemm.py) do, words are the weight."""
    torch.manual_seed(0)
    weight = rounded(torch.randn(24, 64), 4, 32)
    due = weight.dequantize().numpy()
    shifts = numpy.arange(0, 32, 4)
    made = words.gptq(weight)
    assert made is not None
    qweight, qzeros, scales, order = (made[key].numpy() for key in ("qweight", "qzeros", "scales", "g_idx"))
    codes = (qweight[:, None] >> shifts[:, None] & 15).reshape(64, 24)
    zeros = (qzeros[..., None] >> shifts & 15).reshape(2, 24) + 1
    assert numpy.array_equal((scales.astype(numpy.float32)[order] * (codes - zeros[order])).T, due)
    made = words.awq(weight)
    assert made is not None
    back = numpy.argsort([0, 2, 4, 6, 1, 3, 5, 7])
    codes, zeros = ((made[key].numpy()[..., None] >> shifts & 15)[..., back] for key in ("qweight", "qzeros"))
    codes, zeros = codes.reshape(2, 32, 24), zeros.reshape(2, 1, 24)
    scaled = made["scales"].float().numpy()[:, None] * (codes - zeros)
    assert numpy.array_equal(scaled.reshape(64, 24).T, due)
