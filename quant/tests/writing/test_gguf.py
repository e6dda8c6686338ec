"""GGUF files of small models of every architecture, beside those of another writer (converting.py)."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest
import torch

from bestiary.errors import OptionError
from bestiary.identified import identify_model
from bestiary.loading import WeightStream, load_weights, open_weights
from bestiary.records import Architecture, SourceOptions, resolve
from bestiary.registry import default_registry
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.tiny import decoder, rope
from bestiary_quant.blocks.types import TYPES
from bestiary_quant.gguf.names import hugging_face_names
from bestiary_quant.making.pack import pack
from bestiary_quant.writing.filetypes import GUESSED, file_type, known_scheme
from bestiary_quant.writing.gguf import write_gguf
from bestiary_quant.writing.metadata import WRITTEN

NOT_WRITTEN = {
    ("Qwen2MoeForCausalLM", 1): "decoder_sparse_step",
    ("Qwen2MoeForCausalLM", 2): "mlp_only_layers",
    ("Qwen3MoeForCausalLM", 1): "mlp_only_layers",
    ("GemmaForCausalLM", 2): "lm_head",
    ("Gemma2ForCausalLM", 0): "query_pre_attn_scalar",
    ("Gemma2ForCausalLM", 1): "query_pre_attn_scalar",
    ("Gemma2ForCausalLM", 2): "soft caps",
    ("Gemma3ForCausalLM", 1): "query_pre_attn_scalar",
    ("Gemma3ForCausalLM", 2): "query_pre_attn_scalar",
}
"""What files cannot say of these configurations; the default scalar of Gemma is 256, and their heads are smaller."""
GEMMA2 = decoder("Gemma2ForCausalLM", "gemma2", head_dim=16, query_pre_attn_scalar=16, sliding_window=5)
GEMMA3 = decoder(
    "Gemma3ForCausalLM", "gemma3_text", head_dim=16, query_pre_attn_scalar=16, sliding_window=5, num_hidden_layers=7
)
STRETCHED3 = {
    **GEMMA3,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    },
    "layer_types": ["full_attention", "sliding_attention"] * 3 + ["full_attention"],
}
GEMMA2_KINDS = {**GEMMA2, "layer_types": ["full_attention", "full_attention", "sliding_attention"]}
QWEN3 = decoder("Qwen3ForCausalLM", "qwen3", head_dim=32, **rope("yarn", factor=4.0, attention_factor=1.3))
TINY = {
    **{f"{record.name}-{n}": config for record, _ in default_registry().records(Architecture)
       if record.tiny and record.name in WRITTEN for n, config in enumerate(resolve(record.tiny))},
    "gemma2": GEMMA2, "gemma2-kinds": GEMMA2_KINDS, "gemma3": GEMMA3, "gemma3-stretched": STRETCHED3, "yarn": QWEN3,
}  # fmt: skip
REFUSED = {f"{name}-{number}": key for (name, number), key in NOT_WRITTEN.items()}
CONVERTED = ("LlamaForCausalLM-1", "LlamaForCausalLM-2", "LlamaForCausalLM-4", "Qwen2ForCausalLM-0")
CONVERTED += ("Qwen2MoeForCausalLM-0", "Qwen3ForCausalLM-0", "Qwen3MoeForCausalLM-0", "gemma2", "gemma3")


@contextmanager
def opened(source: Path, dtype: str = "float32") -> Iterator[WeightStream]:
    found = identify_model(str(source), SourceOptions(), default_registry())
    with open_weights(found, default_registry(), dtype=dtype, device="cpu") as stream:
        yield stream


def parameters(source: Path) -> dict[str, torch.Tensor]:
    found = identify_model(str(source), SourceOptions(), default_registry())
    model = load_weights(found, default_registry(), dtype="float32", device="cpu").model
    return dict(model.named_parameters())


def value(reader: gguf.GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


@pytest.fixture(scope="module", params=[name for name in TINY if name not in REFUSED])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Reference, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    reference = make_reference(TINY[request.param], folder / "in")
    with opened(folder / "in") as stream:
        write_gguf(stream, folder / "model.gguf", plain="f32", unpack=True)
    return request.param, reference, folder / "model.gguf"


def test_the_model_comes_back(written: tuple[str, Reference, Path], models: ModuleType) -> None:
    """What this package reads in the file is the model of transformers, rotary kinds and windows included."""
    _, reference, path = written
    tokens = [5, 9, 17, 33, 64, 100, 7, 8, 21, 3, 90, 44]
    made, due = models.logits(path, tokens), reference.logits(tokens)
    assert float((made - due).abs().max()) <= 1e-5 * float(due.abs().max())


@pytest.mark.parametrize("written", CONVERTED, indirect=True)
def test_another_reader_finds_the_same(written: tuple[str, Reference, Path], converting: ModuleType) -> None:
    """Tensors and metadata are those that the gguf package writes, with its names, shapes and types."""
    _, reference, path = written
    ours, theirs = gguf.GGUFReader(path), gguf.GGUFReader(converting.convert(reference, path.with_name("other.gguf")))
    assert {tensor.name for tensor in ours.tensors} == {tensor.name for tensor in theirs.tensors}
    by_name = {tensor.name: tensor for tensor in ours.tensors}
    for tensor in theirs.tensors:
        own = by_name[tensor.name]
        shape = [int(size) for size in tensor.shape]
        assert own.tensor_type == tensor.tensor_type
        # A matrix of one row is a vector to llama.cpp.
        assert [int(size) for size in own.shape] == (shape[:-1] if shape[1:] == [1] else shape)
        assert numpy.allclose(own.data.flatten(), tensor.data.flatten(), rtol=1e-6, atol=0), tensor.name
    keys = [key for key in theirs.fields if not key.startswith(("GGUF.", "tokenizer."))]
    assert keys and {key: value(ours, key) for key in keys} == {key: value(theirs, key) for key in keys}
    assert value(ours, "general.file_type") == 0 and value(ours, "general.quantization_version") == 2


@pytest.mark.parametrize("name", REFUSED)
def test_what_files_cannot_say(name: str, tmp_path: Path) -> None:
    make_reference(TINY[name], tmp_path / "in")
    with opened(tmp_path / "in") as stream, pytest.raises(OptionError, match=REFUSED[name]):
        write_gguf(stream, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*gguf*"))


def test_unknown_architecture(tmp_path: Path) -> None:
    config = next(c for r, _ in default_registry().records(Architecture) if r.name == "Ministral3ForCausalLM"
                  for c in resolve(r.tiny or ""))  # fmt: skip
    make_reference(config, tmp_path / "in")
    with opened(tmp_path / "in") as stream, pytest.raises(OptionError) as error:
        write_gguf(stream, tmp_path / "model.gguf")
    assert all(name in (error.value.fix or "") for name in WRITTEN)


@pytest.mark.parametrize("scheme", ["q8_0", "q4_0", "q5_1"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM-1", "Qwen3MoeForCausalLM-0", "Qwen2MoeForCausalLM-0"])
def test_blocks(name: str, scheme: str, tmp_path: Path, models: ModuleType) -> None:
    """Packed rows are moved as plain ones are, experts are stacked, and what has to be is float32."""
    make_reference(TINY[name], tmp_path / "in")
    path = models.write_file(tmp_path / "in", tmp_path / "model.gguf", scheme)
    with opened(tmp_path / "in") as stream:
        sites = {site.name for site in stream.sites}
    plain, made = parameters(tmp_path / "in"), {}
    reader = gguf.GGUFReader(path)
    for tensor in reader.tensors:
        float32 = tensor.name.endswith((".bias", "norm.weight", "inp.weight", "inp_shexp.weight"))
        narrow = "F16" if tensor.name.endswith("down_shexp.weight") else scheme.upper()  # 40 columns: no whole blocks
        assert tensor.tensor_type.name == ("F32" if float32 else narrow), tensor.name
        made[tensor.name] = tensor
    with opened(path) as stream:
        assert set(stream.puller.names) == {name for name in plain if name not in stream.puller.ties}
        for name in stream.puller.names:
            packed = pack(plain[name].detach(), scheme) if name in sites else None
            due = plain[name] if packed is None or "shared_expert_gate" in name else packed.dequantize()
            rounded = "shared_expert_gate" in name or (packed is None and name in sites)
            assert torch.allclose(stream.puller.read(name).float(), due, rtol=0, atol=0.05 if rounded else 0), name
    assert value(reader, "general.file_type") == {"q8_0": 7, "q4_0": 2, "q5_1": 9}[scheme]


def test_parts(tmp_path: Path, models: ModuleType) -> None:
    """Parts are named and marked as those of llama.cpp; together they are the model."""
    source = models.write_model("qwen3", tmp_path / "in")
    models.write_file(source, tmp_path / "out/model.gguf", "q8_0", split_max_size=600_000)
    files = sorted((tmp_path / "out").iterdir())
    count = len(files)
    assert count > 3
    assert [file.name for file in files] == [f"model-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    readers = [gguf.GGUFReader(file) for file in files]
    total = sum(len(reader.tensors) for reader in readers)
    for number, reader in enumerate(readers):
        facts = value(reader, "split.no"), value(reader, "split.count"), value(reader, "split.tensors.count")
        assert facts == (number, count, total)
        assert ("general.architecture" in reader.fields) == (number == 0)
        sizes = [tensor.n_bytes for tensor in reader.tensors]
        assert sum(sizes) <= 600_000 or len(sizes) == 1
        assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)
    whole = models.write_file(source, tmp_path / "whole.gguf", "q8_0")
    assert torch.equal(models.logits(files[0], [5, 6, 7]), models.logits(whole, [5, 6, 7]))


def test_a_file_is_requantised(tmp_path: Path, models: ModuleType) -> None:
    """Of a GGUF file the metadata stay as they are, byte for byte, also such as this package knows nothing of."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 64}
    source = models.write_model("llama", tmp_path / "in", rope_scaling=scaling)
    first = models.write_file(source, tmp_path / "first.gguf", None)
    models.write_file(first, tmp_path / "again.gguf", "q8_0")
    direct = models.write_file(source, tmp_path / "direct.gguf", "q8_0")
    ours, theirs, whole = map(gguf.GGUFReader, (tmp_path / "again.gguf", first, direct))
    assert list(ours.fields) == list(theirs.fields)
    for key, field in theirs.fields.items():
        if key not in ("general.file_type", "GGUF.tensor_count"):
            assert ours.fields[key].contents() == field.contents(), key
    assert value(theirs, "general.file_type") == 1 and value(ours, "general.file_type") == 7
    by_name = {tensor.name: tensor for tensor in whole.tensors}
    assert "rope_freqs.weight" in by_name and len(by_name) == len(ours.tensors)
    for tensor in ours.tensors:
        assert numpy.array_equal(tensor.data, by_name[tensor.name].data), tensor.name


def test_packed_weights_are_copied_or_unpacked(tmp_path: Path, models: ModuleType) -> None:
    source = models.write_model("qwen3", tmp_path / "in")
    packed = models.write_file(source, tmp_path / "packed.gguf", "q4_0")
    with opened(packed) as stream:
        write_gguf(stream, tmp_path / "copy.gguf")
        write_gguf(stream, tmp_path / "plain.gguf", plain="bf16", unpack=True)
    copy, plain, first = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("copy", "plain", "packed"))
    data = {tensor.name: tensor for tensor in first.tensors}
    assert all(numpy.array_equal(tensor.data, data[tensor.name].data) for tensor in copy.tensors)
    assert value(copy, "general.file_type") == 2
    assert Counter(tensor.tensor_type.name for tensor in plain.tensors).keys() == {"F32", "BF16"}
    assert value(plain, "general.file_type") == 32


def test_numbers_beyond_a_type(tmp_path: Path, models: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """A weight that no 16-bit float reaches is float32, plain or where it was to be packed; the file is whole."""
    from safetensors.torch import load_file, save_file

    source = models.write_model("llama", tmp_path / "in")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5
    save_file(tensors, source / "model.safetensors")
    with opened(source) as stream:
        write_gguf(stream, tmp_path / "f16.gguf", plain="f16", unpack=True)
        write_gguf(models.packed_stream(stream, "q8_0"), tmp_path / "q8_0.gguf", scheme="q8_0", plain="f16")
    for kind in ("f16", "q8_0"):
        found = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / f"{kind}.gguf").tensors}
        assert found.pop("blk.1.ffn_up.weight") == "F32"
        assert found["blk.1.ffn_gate.weight"] == found["blk.0.ffn_up.weight"] == kind.upper()
        assert models.logits(tmp_path / f"{kind}.gguf", [5, 6, 7]).isfinite().all()
    assert "blk.1" in caplog.text or "layers.1.mlp.up_proj" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(error: type[BaseException], tmp_path: Path, models: ModuleType) -> None:
    def stop(event: Any) -> None:
        if event.item.startswith("model.layers.1"):
            raise error

    source = models.write_model("llama", tmp_path / "in")
    with pytest.raises(error):
        models.write_file(source, tmp_path / "out/model.gguf", None, split_max_size=500_000, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, models: ModuleType) -> None:
    """A process that may write 1 MB ends with an error that names the file, and the file that was there stays."""
    models.write_model("llama", tmp_path / "in")
    (tmp_path / "model.gguf").write_bytes(b"older")
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[1]); import models; from pathlib import Path\n"
        "from bestiary.errors import CheckpointError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "folder = Path(sys.argv[2])\n"
        "try: models.write_file(folder / 'in', folder / 'model.gguf', None, force=True)\n"
        "except CheckpointError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "cannot be written: File too large" in done.stdout and "model.gguf" in done.stdout, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "model.gguf"]
    assert (tmp_path / "model.gguf").read_bytes() == b"older"


def test_files_are_replaced_only_by_force(tmp_path: Path, models: ModuleType) -> None:
    source = models.write_model("llama", tmp_path / "in")
    path = models.write_file(source, tmp_path / "model.gguf", None)
    before = path.read_bytes()
    with pytest.raises(OptionError, match="exists already"):
        models.write_file(source, path, "q8_0")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    models.write_file(source, path, "q8_0", force=True)
    assert len(path.read_bytes()) < len(before)


def test_progress(tmp_path: Path, models: ModuleType) -> None:
    events: list[Any] = []
    models.write_file(models.write_model("llama", tmp_path / "in"), tmp_path / "x.gguf", "q8_0", progress=events.append)
    assert {event.stage for event in events} == {"write"} and events[-1].done == events[-1].total
    assert [event.done for event in events] == sorted(event.done for event in events)


def test_schemes() -> None:
    assert [known_scheme(name) for name in ("Q4_K_M", "q4_k", "q6_k", "IQ4_XS", "bf16", "4")] == [
        *("q4_k_m", "q4k", "q6k", "iq4_xs", "bf16", "q4k")
    ]
    for name in ("f8q8", "q8_1", "q8k", "afq4", "fp8", "nonsense", "q4_k_x", "", "gptq4"):
        with pytest.raises(OptionError):
            known_scheme(name)
    types = {kind.name: kind for kind in TYPES.values()}
    assert file_type(None, Counter({types["Q5_K"]: 9, types["Q6_K"]: 4})) == 16
    assert file_type(None, Counter()) == GUESSED and file_type("q4_k_m", Counter()) == 15
    from gguf import LlamaFileType

    for name in ("q4_0", "q8_0", "q3_k_l", "q4_k_s", "q5_k_m", "q2_k_s", "iq4_nl", "iq4_xs", "bf16", "f16", "tq1_0"):
        assert file_type(name, Counter()) == LlamaFileType[f"MOSTLY_{name.upper()}"]


def test_names_lead_back(models: ModuleType) -> None:
    from bestiary_quant.writing.names import gguf_names

    names = [name for name, _ in models.weights("qwen3")]
    made = gguf_names(names, "qwen3", models.LAYERS)
    assert {stored: name for name, stored in made.items()} == hugging_face_names(made.values(), "qwen3")
