"""What Bestiary writes: the very bytes that mistral.rs was seen to load, in bounded memory, whole or not at all."""

import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open

from bestiary.errors import CheckpointError, ConfigError, OptionError
from bestiary.nn.packed import PackedList
from bestiary.records import Progress
from bestiary.sources.folder import Folder
from bestiary_quant.making.pack import pack
from bestiary_quant.making.schemes import SCHEMES
from bestiary_quant.packed import PackedMatrix
from bestiary_quant.uqff import checkpoint, selection
from bestiary_quant.uqff.writer import write

Opened = Callable[..., checkpoint.UqffCheckpoint]
CONFIG = {"model_type": "llama", "rope_theta": 10000.0}
WRITTEN = [name for name in SCHEMES if not name.startswith(("iq", "tq")) and name not in ("int8", "fp8_blocks")]


def stream(**weights: Any) -> Iterator[tuple[str, Any]]:
    yield from weights.items()


def matrix(out: int = 8, columns: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("label", ["codes", "blocks"])
def test_the_bytes_that_mistralrs_loads(
    label: str, data: Path, tmp_path: Path, tiny: ModuleType, opened: Opened
) -> None:
    """data/ was loaded by mistral.rs, and its answers recorded: what is written must not change."""
    made, source = opened(data / label), tmp_path / "source"
    tensors = tiny.save(tiny.SMALL, source)
    weights = ((name, packed if (packed := made.packed(name)) else made.read(name)) for name in tensors)
    write(tmp_path / "out", weights, name=label, repository=Folder(source, "tiny"), names=list(tensors))
    expected = {path.name: path.read_bytes() for path in (data / label).iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected


def test_recorded_answers_of_what_bestiary_packed(references: dict[str, Any]) -> None:
    """How far mistral.rs was from Bestiary with the same file; F8Q8 apart, whose scale the two read differently."""
    assert references["mistralrs"] == "0.9.5"
    for way in ("read", "written"):
        far = {kind: found["difference"] for kind, found in references[way].items() if kind != "f8q8"}
        assert set(far) >= {"q4k", "q8_0", "afq4", "hqq4", "fp8", "mxfp4"}
        blocks = {kind: value for kind, value in far.items() if kind[0] == "q"}
        assert max(blocks.values()) < 0.2
        assert max(value for kind, value in far.items() if kind not in blocks) < (2e-5 if way == "read" else 5e-3)


@pytest.mark.parametrize("scheme", WRITTEN)
def test_every_type_comes_back(scheme: str, tmp_path: Path, opened: Opened) -> None:
    packed = pack(matrix(64), scheme)
    assert packed is not None
    write(tmp_path / "out", stream(**{"a.weight": packed}), name="x", config=CONFIG)
    made = opened(tmp_path / "out")
    assert made.shape("a.weight") == (64, 256)
    exact = scheme not in ("hqq4", "hqq8")  # their offsets become zeros: a division and a product
    torch.testing.assert_close(
        made.read("a.weight"), packed.dequantize(), rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6
    )


@pytest.mark.parametrize("scheme", ["q4k", "q8_0", "afq4", "afq8", "mxfp4"])
@pytest.mark.parametrize("listed", [False, True])
def test_stacks_of_experts(scheme: str, listed: bool, tmp_path: Path, opened: Opened) -> None:
    whole = torch.stack([matrix(seed=seed) for seed in range(3)])
    packed: Any = PackedList([pack(expert, scheme) for expert in whole]) if listed else pack(whole, scheme)  # type: ignore[misc]
    name = "model.layers.0.mlp.experts.up_proj"
    write(tmp_path / "out", stream(**{name: packed}), name="x", config={"model_type": "mixtral"})
    made = opened(tmp_path / "out")
    assert made.layers[name].key == "model.layers.0.block_sparse_moe.experts.up_proj"
    expected = pack(whole, scheme)
    assert expected is not None
    if scheme == "afq4" and listed:
        assert (made.read(name) - whole).norm() < 0.1 * whole.norm()  # each expert has scales of a type of its own
    else:
        assert torch.equal(made.read(name), expected.dequantize())


def test_what_is_where(tmp_path: Path, opened: Opened) -> None:
    """Layers and their biases in the shard; norms, plain layers with their biases, routers and embeddings beside it."""
    weights = {
        "model.embed_tokens.weight": matrix().bfloat16(),
        "model.layers.0.self_attn.q_proj.bias": torch.ones(8),
        "model.layers.0.self_attn.q_proj.weight": pack(matrix(), "q4k"),
        "model.layers.0.self_attn.k_proj.weight": matrix(),
        "model.layers.0.self_attn.k_proj.bias": torch.ones(8),
        "model.layers.0.mlp.gate.weight": matrix(4),
        "model.layers.0.mlp.experts.up_proj": torch.randn(2, 4, 8),
        "model.norm.weight": torch.ones(256),
        "model.norm.bias": torch.zeros(256),
    }
    write(tmp_path / "out", stream(**weights), name="q4k", config=CONFIG)
    with safe_open(tmp_path / "out" / "residual.safetensors", "pt") as file:
        assert set(file.keys()) == {
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.k_proj.bias",
            "model.layers.0.mlp.gate.weight",
            "model.norm.weight",
            "model.norm.bias",
        }
        assert file.get_tensor("model.embed_tokens.weight").dtype == torch.bfloat16
    with safe_open(tmp_path / "out" / "q4k-0.uqff", "pt") as file:
        assert "model.layers.0.self_attn.q_proj.bias" in file.keys()  # noqa: SIM118
        assert int(file.get_tensor("model.layers.0.mlp.experts.up_proj.weight.format")) == 1
    made = opened(tmp_path / "out")
    assert set(made.names()) == set(weights)
    assert torch.equal(made.read("model.layers.0.mlp.experts.up_proj"), weights["model.layers.0.mlp.experts.up_proj"])


def test_shards_of_a_size(tmp_path: Path, opened: Opened) -> None:
    layers = {f"model.layers.{number}.a.weight": pack(matrix(64, seed=number), "q8_0") for number in range(5)}
    made = write(tmp_path / "out", stream(**layers), name="q8_0", config=CONFIG, shard_bytes=40_000)
    assert made.models[0].files == ("q8_0-0.uqff", "q8_0-1.uqff", "q8_0-2.uqff", "residual.safetensors")
    assert all((tmp_path / "out" / name).stat().st_size < 50_000 for name in made.models[0].files)
    again = opened(tmp_path / "out")
    for name, packed in layers.items():
        assert packed is not None and torch.equal(again.read(name), packed.dequantize())


def test_a_header_that_is_full_begins_a_new_shard(tmp_path: Path, opened: Opened) -> None:
    packed = pack(matrix(1, 32), "q8_0")
    assert packed is not None
    weights = ((f"model.layers.{number}.mlp.up_proj.weight", packed) for number in range(1500))
    made = write(tmp_path / "out", weights, name="q8_0", config=CONFIG)
    assert made.models[0].files == ("q8_0-0.uqff", "q8_0-1.uqff", "residual.safetensors")
    assert len(opened(tmp_path / "out").layers) == 1500


def test_one_weight_in_memory_at_a_time(tmp_path: Path) -> None:
    earlier: list[weakref.ref[Any]] = []

    def weights() -> Iterator[tuple[str, Any]]:
        for number in range(6):
            packed = pack(matrix(seed=number), "q4k")
            assert isinstance(packed, PackedMatrix)
            assert sum(ref() is not None for ref in earlier) <= 1
            earlier.append(weakref.ref(packed.data))
            yield f"layers.{number}.weight", packed
            del packed
            yield f"plain.{number}.weight", matrix(seed=number)

    write(tmp_path / "out", weights(), name="q4k", config=CONFIG)


def test_progress_counts_bytes(tmp_path: Path) -> None:
    heard: list[Progress] = []
    packed = pack(matrix(), "q8_0")
    assert packed is not None
    weights = stream(**{"a.weight": packed, "norm.weight": torch.ones(256)})
    write(tmp_path / "out", weights, name="x", config=CONFIG, expected=4000, progress=heard.append)
    assert {event.stage for event in heard} == {"write"} and {event.item for event in heard} >= {"a.weight"}
    assert [event.done for event in heard] == sorted(event.done for event in heard)
    assert heard[-1].done >= packed.nbytes + 1024 and all(event.total >= 4000 for event in heard)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def weights() -> Iterator[tuple[str, Any]]:
        yield "a.weight", pack(matrix(), "q4k")
        raise error

    with pytest.raises(error):
        write(tmp_path / "out", weights(), name="q4k", config=CONFIG)
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
import torch
from bestiary_quant.making.pack import pack
from bestiary_quant.uqff.writer import write
packed = pack(torch.randn(512, 256), "q8_0")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
write(Path(sys.argv[1]), [("a.weight", packed)], name="q8_0", config={"model_type": "llama"})
"""


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """A limit on the size of files gives the error that a full disk gives, in the middle of a tensor."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "out")], capture_output=True, text=True, timeout=60, check=False
    )
    assert "CheckpointError: The folder cannot be written: File too large; nothing was left behind." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_the_disk_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="and the disk has"):
        write(tmp_path / "out", iter(()), name="q4k", config=CONFIG, expected=1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_two_types_in_one_folder(tmp_path: Path, opened: Opened) -> None:
    folder = tmp_path / "out"
    for scheme in ("q4k", "afq4"):
        weights = {"a.weight": pack(matrix(), scheme), "norm.weight": torch.ones(256)}
        made = write(folder, stream(**weights), name=scheme, config=CONFIG)
    assert [(model.label, dict(model.counts or {})) for model in made.models] == [
        ("afq4", {"AFQ4": 1}),
        ("q4k", {"Q4_K": 1}),
    ]
    report = json.loads((folder / "uqff_report.json").read_text())
    assert [(output["quant"], output["shards"]) for output in report["outputs"]] == [
        ("q4k", ["q4k-0.uqff"]),
        ("afq4", ["afq4-0.uqff"]),
    ]
    assert opened(folder, "q4_k").dtype("a.weight") == "Q4_K"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = {"a.weight": pack(matrix(), "q4k"), "norm.weight": torch.ones(256)}
    with pytest.raises(OptionError, match="a model of this name"):
        write(folder, stream(**again), name="q4k", config=CONFIG)
    with pytest.raises(OptionError, match="a residual with other tensors"):
        write(folder, stream(**{**again, "more.weight": torch.ones(256)}), name="q8k", config=CONFIG)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    with pytest.raises(OptionError, match="not empty"):
        write(tmp_path / "out", stream(**{"a.weight": pack(matrix(), "q4k")}), name="q4k", config=CONFIG)
    with pytest.raises(OptionError, match="This is a file"):
        write(tmp_path / "out" / "letter.txt", iter(()), name="q4k", config=CONFIG)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "letter.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", stream(**{"a.weight": pack(matrix(), "q4k")}), name="q4k", config=CONFIG)
    assert selection.files(Folder(tmp_path / "out", "test")) == ("q4k-0.uqff", "residual.safetensors")


@pytest.mark.parametrize(
    ("scheme", "shape"),
    [("iq4_nl", (8, 256)), ("tq2_0", (8, 256)), ("int8", (8, 256)), ("fp8_blocks", (130, 256))]
    + [(scheme, (2, 64, 256)) for scheme in ("hqq4", "fp8", "f8q8")],
)
def test_what_uqff_does_not_hold(scheme: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a\.weight is packed in a way that UQFF has no form for"):
        write(tmp_path / "out", stream(**{"a.weight": pack(torch.randn(shape), scheme)}), name="x", config=CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, weights: dict[str, Any], **options: Any) -> None:
        with pytest.raises(error, match=match):
            write(tmp_path / "out", stream(**weights), **{"name": "q4k", "config": CONFIG, **options})
        assert list(tmp_path.iterdir()) == []

    packed = {"a.weight": pack(matrix(), "q4k")}
    refused(OptionError, "No weight is packed", {"a.weight": matrix()})
    refused(OptionError, "which UQFF does not hold", {"a.weight": matrix().double()})
    refused(OptionError, "unannounced", packed, names=["b.weight"])
    refused(OptionError, "cannot begin the name", packed, name="../q4k")
    refused(OptionError, "cannot begin the name", packed, name="")
    refused(OptionError, "joined", packed, config={"model_type": "phi3"})
    refused(OptionError, "shard_bytes", packed, shard_bytes=0)
    refused(ConfigError, r"no config\.json", packed, config=None)
    with pytest.raises(OptionError, match="came twice"):
        write(tmp_path / "out", [*packed.items(), *packed.items()], name="q4k", config=CONFIG)


def test_the_configuration_says_nothing_of_the_packing_before(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rope = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0}
    stated = {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}, "rope_parameters": rope}
    (source / "config.json").write_text(json.dumps({**stated, "text_config": {"quantization_config": {}}}))
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors", "README.md"):
        (source / name).write_text("{}")
    weights = stream(**{"a.weight": pack(matrix(), "q4k")})
    write(tmp_path / "out", weights, name="q4k", repository=Folder(source, "test"))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {
        "model_type": "llama",
        "rope_parameters": rope,
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
        "text_config": {},
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "tokenizer.json", "chat_template.jinja"),
        *("q4k-0.uqff", "residual.safetensors", "uqff_report.json"),
    }
