"""Nothing in a model folder ever runs, and no code here could run it."""

import ast
import json
from pathlib import Path

import pytest

import bestiary
import bestiary_demo
from bestiary.errors import BestiaryError, CheckpointError, MissingPlugin
from bestiary.testing.reference import make_reference

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    [*(ROOT / "core/src").rglob("*.py"), *(ROOT / "quant/src").rglob("*.py"), *(ROOT / "plugins").rglob("src/**/*.py")]
)
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"torch.load", "pickle.load", "pickle.loads", "numpy.load", "np.load", "os.system", "os.popen"}


def calls(path: Path) -> list[tuple[int, str]]:
    """Every call that could run foreign code, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.append((node.lineno, node.func.id))
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ATTRIBUTES:
            found.append((node.lineno, ast.unparse(node.func)))
        if any(word.arg == "shell" for word in node.keywords):
            found.append((node.lineno, "shell="))
        if any(word.arg == "trust_remote_code" for word in node.keywords):
            found.append((node.lineno, "trust_remote_code="))
    return found


def test_no_source_calls_what_runs_foreign_code() -> None:
    assert len(set(SOURCES)) > 60
    assert {str(path): found for path in set(SOURCES) if (found := calls(path))} == {}


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("torch.load(x)\neval(x)\nrun(x, shell=True)\nload(x, trust_remote_code=True)\n")
    assert len(calls(path)) == 4


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1536,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A good Llama beside code that leaves a mark when it runs."""
    make_reference(CONFIG, tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((bestiary_demo.folder() / "tokenizer.json").read_bytes())
    mark = f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
    for name in (
        "modeling_trap.py",
        "configuration_trap.py",
        "tokenization_trap.py",
        "__init__.py",
        "sitecustomize.py",
    ):
        (tmp_path / name).write_text(mark)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_trap.Trap", "AutoConfig": "configuration_trap.Trap"}
    config["_attn_implementation"] = config["_attn_implementation_internal"] = f"{tmp_path}/modeling_trap.py"
    config["custom_generate"] = "modeling_trap"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_trap.Trap", None]}, "tokenizer_class": "Trap"})
    )
    return tmp_path


def test_a_known_architecture_loads_by_its_plugin_and_runs_nothing(trap: Path) -> None:
    with bestiary.load(str(trap), progress=False) as pipe:
        assert len(pipe.generate([3, 4], max_tokens=3).tokens) == 3
    assert not (trap / "mark").exists()


def test_an_unknown_architecture_with_code_is_refused(trap: Path) -> None:
    config = json.loads((trap / "config.json").read_text())
    (trap / "config.json").write_text(json.dumps({**config, "architectures": ["Trap"], "model_type": "trap"}))
    with pytest.raises(MissingPlugin, match="never run"):
        bestiary.load(str(trap), progress=False)
    assert not (trap / "mark").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
def test_pickles_are_refused_unopened(trap: Path, name: str) -> None:
    (trap / "model.safetensors").unlink()
    mark = trap / "mark"
    # The pickle of an object whose loading would call open(mark, "w").
    (trap / name).write_bytes(b"c__builtin__\nopen\n(V" + str(mark).encode() + b"\nVw\ntR.")
    with pytest.raises(CheckpointError, match="pickled"):
        bestiary.load(str(trap), progress=False)
    assert not mark.exists()


def test_an_option_to_trust_code_does_not_exist(trap: Path) -> None:
    with pytest.raises(BestiaryError, match="trust_remote_code"):
        bestiary.load(str(trap), trust_remote_code=True)
