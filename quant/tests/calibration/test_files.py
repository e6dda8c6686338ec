"""Importance matrices as files: as the gguf package, and the layouts that llama.cpp and mistral.rs state, have them."""

import struct
from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGUFReader, GGUFWriter

from bestiary.errors import CheckpointError, OptionError
from bestiary_quant.calibration.files import read_importance, write_importance
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.calibration.names import parameter_names, tensor_names

DENSE, EXPERTS, HEAD = (
    "model.layers.3.self_attn.q_proj.weight",
    "model.layers.0.mlp.experts.down_proj",
    "lm_head.weight",
)


def importance() -> Importance:
    random = torch.Generator().manual_seed(0)
    values = {
        DENSE: torch.rand(32, generator=random) * 4096,
        EXPERTS: torch.rand(4, 16, generator=random) * 1000,
        HEAD: torch.rand(32, generator=random) * 1e6,
    }
    values[EXPERTS][2] = 0
    counts = {DENSE: torch.tensor([1024]), EXPERTS: torch.tensor([100, 7, 0, 917]), HEAD: torch.tensor([1024])}
    return Importance(values, counts, 2, 512, ("text.txt",))


def floats(values: torch.Tensor) -> bytes:
    return values.numpy().astype("<f4").tobytes()


@pytest.mark.parametrize("ending", ["gguf", "dat", "imatrix", "cimatrix"])
def test_means_come_back(ending: str, tmp_path: Path) -> None:
    """As they were; where nothing says how many experts there are, when the shape of the weight does."""
    made, path = importance(), tmp_path / f"model.{ending}"
    write_importance(path, made)
    read = read_importance(path)
    assert set(read.values) == set(made.values)
    for name, shape in ((DENSE, (8, 32)), (EXPERTS, (4, 8, 16)), (HEAD, (8, 32))):
        found, expected = read.of(name, shape), made.of(name, shape)
        assert found is not None and expected is not None
        size = expected / found
        if ending == "cimatrix" and name == EXPERTS:
            assert not found[2].any()
            size = size[[0, 1, 3]]
        torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-6, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == [f"model.{ending}"]


def test_gguf_is_what_the_gguf_package_reads(tmp_path: Path) -> None:
    made, path = importance(), tmp_path / "imatrix.gguf"
    write_importance(path, made)
    reader = GGUFReader(path)
    assert reader.get_field("general.type").contents() == "imatrix"
    assert reader.get_field("imatrix.datasets").contents() == ["text.txt"]
    assert reader.get_field("imatrix.chunk_count").contents() == 2
    assert reader.get_field("imatrix.chunk_size").contents() == 512
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    names = {DENSE: "blk.3.attn_q.weight", EXPERTS: "blk.0.ffn_down_exps.weight", HEAD: "output.weight"}
    assert set(tensors) == {name + end for name in names.values() for end in (".in_sum2", ".counts")}
    # ggml's dimensions: columns first, and [1, matrices] of counts (imatrix.cpp, save_imatrix).
    assert tensors["blk.0.ffn_down_exps.weight.in_sum2"].shape.tolist() == [16, 4]
    assert tensors["blk.0.ffn_down_exps.weight.counts"].shape.tolist() == [1, 4]
    for name, stored in names.items():
        assert (tensors[f"{stored}.in_sum2"].data == made.values[name].numpy()).all()
        assert (tensors[f"{stored}.counts"].data.flatten() == made.counts[name].numpy()).all()


def test_gguf_as_the_gguf_package_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "any name"
    writer = GGUFWriter(path, "qwen3moe")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["a", "b"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 256)
    sums = numpy.arange(12, dtype=numpy.float32).reshape(3, 4)
    for name, values, counts in (
        ("blk.1.ffn_up_exps.weight", sums, [2, 0, 4]),
        ("blk.0.ffn_gate.weight", sums[:1], [3]),
    ):
        writer.add_tensor(f"{name}.in_sum2", values)
        writer.add_tensor(f"{name}.in_sum", -values)
        writer.add_tensor(f"{name}.counts", numpy.array(counts, numpy.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_importance(path)
    assert (read.chunks, read.chunk_size, read.datasets) == (7, 256, ("a", "b"))
    experts = read.of("model.layers.1.mlp.experts.up_proj", (3, 8, 4))
    assert experts is not None
    assert experts.tolist() == [[0, 0.5, 1, 1.5], [1, 1, 1, 1], [2, 2.25, 2.5, 2.75]]
    assert read.mean("model.layers.0.mlp.gate_proj.weight").tolist() == [0, 1 / 3, 2 / 3, 1]


def test_legacy_layout(tmp_path: Path) -> None:
    """The bytes that save_imatrix_legacy of llama.cpp's imatrix.cpp writes, put together by hand."""
    made, path = importance(), tmp_path / "imatrix.dat"
    write_importance(path, made)
    ones = torch.tensor([100, 7, 1, 917])[:, None]
    sums = made.values[EXPERTS].clone()
    sums[2] = 1.0
    expected = struct.pack("<i", 3)
    for name, means in (
        ("blk.0.ffn_down_exps.weight", (sums / ones).flatten()),
        ("blk.3.attn_q.weight", made.values[DENSE] / 1024),
        ("output.weight", made.values[HEAD] / 1024),
    ):
        calls = 2  # 1024 rows, or 917, in chunks of 512
        expected += struct.pack(f"<i{len(name)}sii", len(name), name.encode(), calls, len(means)) + floats(
            means * calls
        )
    expected += struct.pack("<ii8s", 2, 8, b"text.txt")
    content = path.read_bytes()
    assert len(content) == len(expected)
    assert content[:34] == expected[:34] and content[-16:] == expected[-16:]
    differing = sum(a != b for a, b in zip(content, expected, strict=True))
    assert differing < len(content) / 20  # divided in float64 here, in float32 there: the last bit
    (tmp_path / "by hand.imatrix").write_bytes(expected)
    read = read_importance(tmp_path / "by hand.imatrix")
    torch.testing.assert_close(read.mean(DENSE), made.mean(DENSE), rtol=1e-6, atol=0)
    assert read.chunks == 2 and read.datasets == ("text.txt",) and read.counts[DENSE].item() == 1024


def test_the_oldest_files_end_with_the_weights(tmp_path: Path) -> None:
    name, means = b"blk.0.attn_k.weight", torch.tensor([1.0, 2.0])
    path = tmp_path / "old.dat"
    path.write_bytes(struct.pack(f"<ii{len(name)}sii", 1, len(name), name, 5, 2) + floats(means * 5))
    read = read_importance(path)
    assert read.mean("model.layers.0.self_attn.k_proj.weight").tolist() == [1.0, 2.0] and read.datasets == ()


def test_cimatrix_layout(tmp_path: Path) -> None:
    """The bytes that CollectedImatrixData::save_imatrix of mistralrs-quant writes, put together by hand."""
    made, path = importance(), tmp_path / "traffic.cimatrix"
    write_importance(path, made)
    expected = struct.pack("<Q", 3)
    for name in (HEAD, EXPERTS, DENSE):
        key, means = name.removesuffix(".weight").encode(), made.mean(name).float()
        if name == EXPERTS:
            means[2] = 0
        expected += struct.pack(f"<Q{len(key)}sQ", len(key), key, means.numel()) + floats(means.flatten())
    assert path.read_bytes() == expected
    read = read_importance(path)
    torch.testing.assert_close(read.mean(DENSE).float(), made.mean(DENSE).float(), rtol=0, atol=0)


def test_names_go_there_and_back() -> None:
    pairs = {
        "blk.12.attn_q.weight": "model.layers.12.self_attn.q_proj.weight",
        "blk.12.attn_k.weight": "model.layers.12.self_attn.k_proj.weight",
        "blk.12.attn_v.weight": "model.layers.12.self_attn.v_proj.weight",
        "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
        "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.0.ffn_gate_exps.weight": "model.layers.0.mlp.experts.gate_proj",
        "blk.0.ffn_up_exps.weight": "model.layers.0.mlp.experts.up_proj",
        "blk.0.ffn_down_exps.weight": "model.layers.0.mlp.experts.down_proj",
        "blk.7.ffn_up_shexp.weight": "model.layers.7.mlp.shared_expert.up_proj.weight",
        "blk.7.ffn_gate_inp_shexp.weight": "model.layers.7.mlp.shared_expert_gate.weight",
        "output.weight": "lm_head.weight",
        "token_embd.weight": "model.embed_tokens.weight",
    }
    for architecture in (None, "llama", "qwen3moe", "gemma3", "not known"):
        assert parameter_names(pairs, architecture) == pairs
        assert tensor_names(pairs.values(), architecture) == {name: tensor for tensor, name in pairs.items()}
    assert parameter_names(["v.blk.0.attn_q.weight"]) == {"v.blk.0.attn_q.weight": "v.blk.0.attn_q.weight"}


def test_weights_with_the_same_input_share_what_is_known() -> None:
    values = {"model.layers.0.self_attn.qkv_proj.weight": torch.tensor([2.0, 4.0])}
    fused = Importance(values, {"model.layers.0.self_attn.qkv_proj.weight": torch.tensor([2])})
    for part in "qkv":
        means = fused.of(f"model.layers.0.self_attn.{part}_proj.weight", (3, 2))
        assert means is not None and means.tolist() == [1.0, 2.0]
    assert fused.of("model.layers.0.self_attn.o_proj.weight", (2, 3)) is None
    assert fused.of("model.layers.1.self_attn.q_proj.weight", (3, 2)) is None


def test_another_width_is_another_model() -> None:
    with pytest.raises(OptionError, match="of 32 columns, and the weight is"):
        importance().of(DENSE, (8, 64))


def test_endings_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        write_importance(tmp_path / "importance.txt", importance())
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_importance(tmp_path / "absent.dat")
