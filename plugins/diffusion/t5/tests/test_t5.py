"""The encoders against transformers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bestiary_t5
from bestiary.building import build_empty, make_plan
from bestiary.config import Config
from bestiary.errors import ConfigError, RequestError, WeightMismatch
from bestiary.identified import identify_model
from bestiary.kernels import choose, wish
from bestiary.loading import load_weights
from bestiary.nn.operations import fit
from bestiary.records import Architecture, SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.conformance import assert_close, assert_maps
from bestiary.testing.headers import HeaderList
from bestiary.testing.reference import Reference, make_reference
from bestiary_t5.describe import describe
from bestiary_t5.model import T5Encoder, build
from bestiary_t5.position import bucket
from bestiary_t5.tiny import T5

LENGTH = 41


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    (record,) = bestiary_t5.bestiary_architectures()
    return record


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Reference]:
    return [make_reference(config, tmp_path_factory.mktemp("t5")) for config in T5]


@pytest.fixture(params=range(len(T5)), ids=lambda index: f"{T5[index]['model_type']}-{index}")
def reference(request: pytest.FixtureRequest, references: list[Reference]) -> Reference:
    return references[request.param]


def load(folder: Path, dtype: str = "float32") -> T5Encoder:
    identified = identify_model(str(folder), SourceOptions(offline=True), default_registry())
    model = load_weights(identified, default_registry(), dtype=dtype, device="cpu").model
    assert isinstance(model, T5Encoder)
    return model


def texts(count: int = 3, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and a mask of texts of several lengths."""
    tokens = torch.randint(3, 99, (count, length), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([length, length // 3, 1])[:count, None]
    return tokens, torch.arange(length) < lengths


@torch.no_grad()
def states(reference: Reference, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    made = reference.model(input_ids=tokens, attention_mask=None if mask is None else mask.long())
    return made.last_hidden_state  # type: ignore[no-any-return]


# The network


@torch.no_grad()
def test_states_equal_the_reference(reference: Reference) -> None:
    model, (tokens, mask) = load(reference.folder), texts()
    assert_close(model(tokens), states(reference, tokens))
    assert_close(model(tokens, mask)[mask], states(reference, tokens, mask)[mask])
    assert_close(model(tokens, mask.long())[mask], states(reference, tokens, mask)[mask])  # as tokenizers give it


@torch.no_grad()
def test_padded_equals_alone(reference: Reference) -> None:
    model, (tokens, mask) = load(reference.folder), texts()
    together, vectors = model(tokens, mask), model.embed(tokens, mask)
    for row, vector, ids, seen in zip(together, vectors, tokens, mask, strict=True):
        alone = model(ids[seen][None])
        assert_close(row[seen][None], alone)
        assert_close(vector, alone[0].mean(0))


@torch.no_grad()
def test_a_text_without_tokens_is_a_vector_of_zeros(references: list[Reference]) -> None:
    model, (tokens, mask) = load(references[0].folder), texts()
    mask[1] = False
    made = model.embed(tokens, mask)
    assert made.isfinite().all() and made.dtype == torch.float32 and not made[1].any()
    assert_close(made[0], model.embed(tokens[:1], mask[:1])[0])


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (14, 17), (4, 2), (320, 800)])
def test_buckets_equal_the_reference(buckets: int, farthest: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(-1100, 1100)
    theirs = T5Attention._relative_position_bucket(distances, True, buckets, farthest)
    assert torch.equal(bucket(distances, buckets, farthest), theirs)


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_the_bits(reference: Reference, dtype: str) -> None:
    model, (tokens, mask) = load(reference.folder, dtype), texts()
    made, due = model(tokens, mask)[mask], states(reference, tokens, mask)[mask]
    assert made.dtype == getattr(torch, dtype)
    assert_close(made.float(), due, 4e-2 if dtype == "bfloat16" else 5e-3)


@torch.no_grad()
def test_float16_where_sums_leave_its_range(references: list[Reference], tmp_path: Path) -> None:
    """As in T5-XXL, whose sums are larger than 65504; the states are those of float32, without clamping."""
    name = "encoder.block.{}.layer.1.DenseReluDense.wo.weight"
    tensors = load_file(references[0].folder / "model.safetensors")
    tensors[name.format(0)] *= 2.0**16
    tensors[name.format(1)] *= 2.0**12
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((references[0].folder / "config.json").read_text())
    tokens, _ = texts()
    due = load(tmp_path)(tokens)
    largest = 0.0

    def watch(module: torch.nn.Module, given: Any, made: tuple[torch.Tensor, torch.Tensor]) -> None:
        nonlocal largest
        largest = max(largest, float(made[0].abs().max()))

    model = load(tmp_path, "float16")
    for block in model.encoder.block:
        block.register_forward_hook(watch)
    made = model(tokens)
    assert largest > 2 * 65504 and made.dtype == torch.float16
    assert_close(made.float(), due, 5e-3)


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernels_compute_the_same(references: list[Reference], dtype: str) -> None:
    registry, (tokens, mask) = default_registry(), texts()
    for index in (0, 1):
        model = load(references[index].folder, dtype)
        due = model(tokens, mask)[mask].float()
        fit(model, choose(registry, getattr(torch, dtype), torch.device("cpu"), wish("", registry)))
        assert_close(
            model(tokens, mask)[mask].float(), due, {"float32": 1e-5, "bfloat16": 4e-2, "float16": 5e-3}[dtype]
        )


def test_shapes_that_are_not_texts(references: list[Reference]) -> None:
    model, (tokens, mask) = load(references[0].folder), texts()
    for wrong in (tokens[0], tokens[:, :0]):
        with pytest.raises(RequestError, match="are due"):
            model(wrong)
    with pytest.raises(RequestError, match="A mask"):
        model(tokens, mask[:, 1:])


# Checkpoints


def test_import_is_light() -> None:
    code = "import sys, bestiary_t5, bestiary_t5.describe; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("folder", ["mochi-t5xxl/text_encoder", "flux.1-schnell-bnb8/text_encoder_2"])
def test_real_indices_map(shared_data: Path, architecture: Architecture, folder: str) -> None:
    place = shared_data / "checkpoints" / folder
    weight_map = json.loads((place / "model.safetensors.index.json").read_text())["weight_map"]
    # Of bitsandbytes, what makes one weight has its name with more behind it; the quantizer gives them as that one.
    names = [name for name in weight_map if ".weight." not in name]
    assert_maps(architecture, place / "config.json", names)


@pytest.mark.parametrize("index", [0, 1, 3, 4])
@torch.no_grad()
def test_what_writes_texts_is_left_out(
    index: int, references: list[Reference], architecture: Architecture, tmp_path: Path
) -> None:
    """A checkpoint of the whole model gives the encoder's states."""
    name = T5[index]["architectures"][0].replace("EncoderModel", "ForConditionalGeneration")
    whole = make_reference({**T5[index], "architectures": [name]}, tmp_path)
    tokens, _ = texts()
    due = whole.model.get_encoder()(input_ids=tokens).last_hidden_state
    assert_close(load(tmp_path)(tokens), due)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"].clone()}
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    assert_close(load(tmp_path)(tokens), due)


@torch.no_grad()
def test_shards(references: list[Reference], tmp_path: Path) -> None:
    references[0].model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    tokens, _ = texts()
    assert_close(load(tmp_path)(tokens), states(references[0], tokens))


@torch.no_grad()
def test_float8(references: list[Reference], tmp_path: Path) -> None:
    """As t5xxl_fp8_e4m3fn.safetensors: numbers of 8 bits without scales."""
    tensors = load_file(references[0].folder / "model.safetensors")
    small = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}
    config = (references[0].folder / "config.json").read_text()
    made = []
    for kind, stored in (("8", small), ("32", {name: tensor.float() for name, tensor in small.items()})):
        folder = tmp_path / kind
        folder.mkdir()
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(config)
        made.append(load(folder)(texts()[0]))
    assert torch.equal(*made)


def test_plan_is_exact(reference: Reference, architecture: Architecture) -> None:
    """Without any one tensor, or with one too many, the plan fails and names it."""
    headers = HeaderList.from_folder(reference.folder)
    config = Config(json.loads((reference.folder / "config.json").read_text()), "the test")
    model = build_empty(architecture, config)
    made = make_plan(architecture, config, model, headers)
    assert set(made.recipes) == {name for name, _ in model.named_parameters()} and not made.dropped
    for name in headers.names():
        with pytest.raises(WeightMismatch):
            make_plan(architecture, config, model, headers.without(name))
    with pytest.raises(WeightMismatch, match="spare"):
        make_plan(architecture, config, model, headers.with_extra("encoder.block.0.spare.weight", (3, 3)))


# GGUF

STORED = {
    "layer.0.layer_norm": "attn_norm",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    **{f"layer.0.SelfAttention.{part}": f"attn_{part}" for part in "qkvo"},
    "layer.1.layer_norm": "ffn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
}


def test_gguf_names_are_those_of_the_converter() -> None:
    gguf = pytest.importorskip("gguf")
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 3)
    for name, stored in STORED.items():
        assert table.get_name(f"encoder.block.2.{name}") == f"enc.blk.2.{stored}"
    assert table.get_name("encoder.final_layer_norm") == "enc.output_norm"
    assert table.get_name("shared") == "token_embd"


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "q8_0"])
def test_gguf(tmp_path: Path, packed: bool) -> None:
    """A file as converters write it, with the metadata that they write."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("bestiary_quant")
    config = {**T5[0], "d_model": 64, "d_kv": 16, "d_ff": 96}
    reference = make_reference(config, tmp_path / "folder")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "t5encoder")
    writer.add_context_length(512)
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_eps(1e-6)
    writer.add_relative_attn_buckets_count(32)
    writer.add_layer_norm_rms_eps(1e-6)
    kind = gguf.GGMLQuantizationType.Q8_0
    state = {name: tensor for name, tensor in reference.model.state_dict().items() if "embed_tokens" not in name}
    for name, tensor in state.items():
        parts = name.removesuffix(".weight").split(".", 3)
        stored = {"shared": "token_embd", "encoder.final_layer_norm": "enc.output_norm"}.get(".".join(parts))
        stored = stored or f"enc.blk.{parts[2]}.{STORED[parts[3]]}"
        numbers = tensor.numpy()
        if packed and tensor.ndim == 2 and "bias" not in name:
            data = gguf.quants.quantize(numbers, kind)
            writer.add_tensor(f"{stored}.weight", data, raw_dtype=kind)
            tensor.copy_(torch.from_numpy(gguf.quants.dequantize(data, kind)))
        else:
            writer.add_tensor(f"{stored}.weight", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model, (tokens, mask) = load(tmp_path / "model.gguf"), texts()
    assert (model.encoder.block[0].layer[0].SelfAttention.q.packed is not None) == packed
    assert_close(model(tokens, mask)[mask], states(reference, tokens, mask)[mask], 1e-5)


# Configurations


@torch.no_grad()
def test_described_by_names_and_shapes(reference: Reference) -> None:
    shapes = HeaderList.from_folder(reference.folder).shapes
    found = describe(shapes)
    assert found is not None
    stated = json.loads((reference.folder / "config.json").read_text())
    unseen = {
        key: stated[key] for key in ("relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj")
    }
    if stated["model_type"] == "mt5":  # which is a T5
        stated["model_type"] = "t5"
    assert {key: stated[key] for key in found if key not in (*unseen, "architectures")} == {
        key: value for key, value in found.items() if key not in (*unseen, "architectures")
    }
    assert found["feed_forward_proj"] == ("relu" if unseen["feed_forward_proj"] == "relu" else "gated-gelu")
    model = build(Config({**found, **unseen}, "the test"))
    tensors = load_file(reference.folder / "model.safetensors")
    model.load_state_dict(tensors, assign=True)
    tokens, _ = texts()
    assert_close(model(tokens), states(reference, tokens))


def test_others_are_not_described() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in build(Config(T5[0], "")).state_dict().items()}
    assert describe({}) is None
    assert describe({"text_model.embeddings.token_embedding.weight": (49408, 768)}) is None
    for name in ("shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"):
        assert describe({key: shape for key, shape in shapes.items() if key != name}) is None
        assert describe({**shapes, name: (7,)}) is None
        assert describe({**shapes, name: (0, 7)}) is None
    large = describe({**shapes, "encoder.block.999999999.layer.0.SelfAttention.q.weight": (48, 40)})
    assert large is not None and large["num_layers"] == 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *(({key: value}, key) for key in ("d_model", "num_layers", "vocab_size") for value in (0, -1, "8", 1.5, True)),
        *(({key: 1 << 40}, key) for key in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")),
        *(({key: None}, key) for key in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")),
        *(({"layer_norm_epsilon": value}, "layer_norm_epsilon") for value in (-1e-6, "small", float("nan"), True)),
        ({"relative_attention_num_buckets": 2}, "buckets"),
        ({"relative_attention_num_buckets": 64, "relative_attention_max_distance": 16}, "max_distance"),
        ({"feed_forward_proj": 3}, "feed_forward_proj"),
        ({"feed_forward_proj": "gated-sigmoid"}, "sigmoid"),
        ({"feed_forward_proj": "sigmoid"}, "sigmoid"),
        ({"dense_act_fn": []}, "dense_act_fn"),
        ({"is_gated_act": "yes"}, "is_gated_act"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be(changes: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=told):
        build(Config({**T5[0], **changes}, "the test"))
