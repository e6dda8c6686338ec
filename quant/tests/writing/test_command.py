"""`bestiary quantize`, as a user calls it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import gguf
import pytest
import torch
from safetensors import safe_open

from bestiary.cli.app import make_app
from bestiary.errors import BestiaryError, OptionError
from bestiary_quant.cli import add_commands
from bestiary_quant.writing.target import Target, parse_size, parse_target

Call = Callable[..., str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs one command line in an empty folder, and gives what it prints."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> str:
        app = make_app()
        add_commands(app)
        app(["quantize", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def source(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = models.write_model("qwen3", tmp_path_factory.mktemp("source") / "Qwen3-Tiny")
    return folder


def test_gguf(call: Call, source: Path, models: ModuleType) -> None:
    told = call(str(source), "--to", "gguf:q4_k_m")
    assert [path.name for path in Path().iterdir()] == ["Qwen3-Tiny-Q4_K_M.gguf"]
    size = Path("Qwen3-Tiny-Q4_K_M.gguf").stat().st_size
    assert (
        "bestiary run Qwen3-Tiny-Q4_K_M.gguf" in told and f"{size / 1e6:.1f} MB now" in told and "8.1 MB before" in told
    )
    reader = gguf.GGUFReader("Qwen3-Tiny-Q4_K_M.gguf")
    assert reader.fields["general.file_type"].contents() == 15
    assert reader.fields["general.name"].contents() == "Qwen3-Tiny"
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["output.weight"] == "Q6_K" and kinds["blk.1.ffn_up.weight"] == "Q4_K"
    assert models.logits("Qwen3-Tiny-Q4_K_M.gguf", [5, 6]).isfinite().all()
    with pytest.raises(OptionError, match="exists already"):
        call(str(source), "--to", "gguf:q4_k_m")
    call(str(source), "--to", "gguf:q4_k_m", "--force")


@pytest.mark.parametrize(
    ("to", "dtype", "kind"), [("gguf", "auto", "F32"), ("gguf", "bf16", "BF16"), ("gguf:f16", "auto", "F16")]
)
def test_plain_gguf(to: str, dtype: str, kind: str, call: Call, source: Path, tmp_path: Path) -> None:
    call(str(source), "--to", to, "--dtype", dtype, "-o", str(tmp_path / "new/x.gguf"))
    reader = gguf.GGUFReader(tmp_path / "new/x.gguf")
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F32", kind}


def test_parts(call: Call, source: Path, tmp_path: Path) -> None:
    told = call(str(source), "--to", "gguf:q8_0", "-o", str(tmp_path / "out"), "--split-max-size", "1M")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) > 1 and files[0] == f"Qwen3-Tiny-Q8_0-00001-of-{len(files):05}.gguf"
    assert f"bestiary run {tmp_path / 'out' / files[0]}" in told


@pytest.mark.parametrize("scheme", ["fp8", "int8", "afq4"])
def test_safetensors(scheme: str, call: Call, source: Path, models: ModuleType) -> None:
    told = call(str(source), "--to", f"safetensors:{scheme}")
    folder = Path(f"Qwen3-Tiny-{scheme}")
    assert f"bestiary run ./{folder}" in told
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization" if scheme == "afq4" else "quantization_config"]
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    tokens = list(range(5, 40))
    made, due = models.logits(f"./{folder}", tokens), models.logits(source, tokens)
    assert torch.corrcoef(torch.stack((made.flatten(), due.flatten())))[0, 1] > (0.95 if scheme == "afq4" else 0.995)


def test_safetensors_of_a_gguf_file(call: Call, source: Path, models: ModuleType) -> None:
    """A GGUF file as a folder: plain weights, and the tokenizer and the template that it carried."""
    call(str(source), "--to", "gguf:q8_0")
    call("./Qwen3-Tiny-Q8_0.gguf", "--to", "safetensors:bf16")
    folder = Path("Qwen3-Tiny-Q8_0-bf16")
    with safe_open(folder / "model.safetensors", "pt") as ours, safe_open(source / "model.safetensors", "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys())
        for name in theirs.keys():  # noqa: SIM118
            assert (ours.get_tensor(name).float() - theirs.get_tensor(name)).abs().max() < 0.03
    from transformers import AutoModelForCausalLM, AutoTokenizer

    first, second = (AutoTokenizer.from_pretrained(place) for place in (source, folder))
    text = "The people would know that they have 123 years.\n\nWhat  about it's THEM?"
    assert first.encode(text) == second.encode(text) and first.chat_template == second.chat_template
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == models.LAYERS


def test_gguf_of_packed_safetensors(call: Call, source: Path, models: ModuleType) -> None:
    """What a checkpoint packs in a way of its own becomes plain numbers."""
    call(str(source), "--to", "safetensors:int8")
    call("./Qwen3-Tiny-int8", "--to", "gguf:f32", "-o", "x.gguf")
    tokens = [5, 9, 100, 7, 44]
    made, due = models.logits("x.gguf", tokens), models.logits("./Qwen3-Tiny-int8", tokens)
    assert torch.allclose(made, due, atol=1e-5)


def test_importing_the_command_is_light() -> None:
    code = "import sys, bestiary_quant.cli; sys.exit(sorted({'torch', 'tokenizers', 'gguf'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_uqff(call: Call, source: Path) -> None:
    told = call(str(source), "--to", "uqff:q4k", "-o", "out")
    assert Path("out/q4k-0.uqff").exists() and "residual.safetensors" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "onnx"),
        ("--to", "gguf:q4_k_x"),
        ("--to", "gguf:fp8"),
        ("--to", "safetensors:q4k"),
        ("--to", "uqff"),
        ("--to", "gguf:f16", "--dtype", "bf16"),
        ("--to", "gguf:q8_0", "--split-max-size", "4X"),
        ("--to", "gguf:q8_0", "--organization", "moqe"),
    ],
)
def test_what_is_asked_is_judged_first(arguments: tuple[str, ...], call: Call, source: Path) -> None:
    with pytest.raises(BestiaryError):
        call(str(source), *arguments)
    assert not list(Path().iterdir())


def test_targets() -> None:
    assert parse_target("GGUF:Q4_K_M") == Target("gguf", "q4_k_m")
    assert parse_target("safetensors") == Target("safetensors")
    assert parse_target("safetensors:bf16") == Target("safetensors", None, "bfloat16")
    assert parse_target("safetensors:gptq") == Target("safetensors", "gptq4")
    assert Target("gguf", "q4k").path(None, "org/Model-1B") == Path("Model-1B-Q4K.gguf")
    assert Target("gguf", "q4k").path(Path("a/b"), "org/Model") == Path("a/b/Model-Q4K.gguf")
    assert Target("safetensors", "fp8").path(None, "./Model/") == Path("Model-fp8")
    assert (parse_size("4G"), parse_size("500M"), parse_size("7"), parse_size(None)) == (4 * 10**9, 5 * 10**8, 7, None)
    for text in ("", "0", "-1", "4.5G", "G", "1e9", "9" * 30):
        with pytest.raises(OptionError):
            parse_size(text)
