"""Wheels in a fresh environment: what each brings, what it does not, and a third party's plugin beside them."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import bestiary
from bestiary.testing.reference import make_reference

sys.path.insert(0, str(Path(__file__).parent))
import tutorial

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = {
    "bestiary-core": "core",
    "bestiary-llama": "plugins/text/llama",
    "bestiary-qwen": "plugins/text/qwen",
    "bestiary-gemma": "plugins/text/gemma",
    "bestiary-demo": "plugins/text/demo",
    "bestiary-siglip": "plugins/vision/siglip",
    "bestiary-idefics": "plugins/vision/idefics",
}
NOT_WANTED = (
    "transformers",
    "gguf",
    "pillow",
    "triton",
    "fastapi",
    "uvicorn",
    "diffusers",
    "torchaudio",
    "torchvision",
)
pytestmark = pytest.mark.timeout(900)


def build(source: Path, target: Path) -> Path:
    """The wheel of a source tree."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    before = set(target.glob("*.whl"))
    subprocess.run([*pip, str(target), str(source)], check=True, timeout=120)
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


class Environment:
    """A virtual environment with its own packages."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"

    def pip(self, *arguments: str) -> None:
        command = [str(self.bin / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*command, *arguments], check=True, timeout=600)

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints on both streams."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("BESTIARY_", "PYTHON"))}
        done = subprocess.run(
            [str(self.bin / arguments[0]), *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=120,
            env={**variables, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    target = tmp_path_factory.mktemp("wheels")
    made = {name: build(ROOT / place, target) for name, place in DISTRIBUTIONS.items()}
    made["bestiary-olmo"] = build(tutorial.write(tmp_path_factory.mktemp("bestiary-olmo")), target)
    return made


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A fresh environment with `pip install bestiary-llama`, taken from the wheels, and nothing else."""
    environment = Environment(tmp_path_factory.mktemp("fresh"))
    environment.pip("--find-links", str(wheels["bestiary-llama"].parent), "bestiary-llama")
    yield environment


def tiny_checkpoint(folder: Path, name: str, model_type: str) -> Path:
    """A random checkpoint with the story model's kind of configuration but no tokenizer."""
    config = {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    reference = make_reference(config, folder)
    (folder / "expected.json").write_text(json.dumps(reference.greedy([5, 6, 7], 8)))
    return folder


GREEDY = """
import json, sys
from pathlib import Path
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.greedy import greedy_tokens
folder = Path(sys.argv[1])
identified = identify_model(str(folder), SourceOptions(offline=True), default_registry())
model = load_weights(identified, default_registry(), dtype="float32").model
made = greedy_tokens(model, [5, 6, 7], 8)
assert made == json.loads((folder / "expected.json").read_text()), made
print(identified.plugin.distribution)
"""


def test_one_family_brings_a_text_stack_and_nothing_of_others(fresh: Environment) -> None:
    listed = {item["name"].lower() for item in json.loads(fresh.run("python", "-m", "pip", "list", "--format=json"))}
    assert {"bestiary-core", "bestiary-llama", "torch", "tokenizers", "safetensors"} <= listed
    assert not listed & set(NOT_WANTED)
    assert "bestiary-qwen" not in listed


def test_it_builds_and_runs_a_model(fresh: Environment, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "LlamaForCausalLM", "llama")
    assert fresh.run("python", "-c", GREEDY, str(folder)).strip().endswith("bestiary-llama")


def test_it_answers_with_a_real_tokenizer(fresh: Environment, shared_data: Path) -> None:
    folder = shared_data / "weights/stories260K/hf"
    shown = fresh.run("bestiary", "run", str(folder), "Once upon a time", "--raw", "--max-tokens", "20")
    with bestiary.load(str(folder)) as pipe:
        assert pipe.generate("Once upon a time", max_tokens=20).text.strip() in shown


def test_a_missing_family_is_named_with_its_command(
    fresh: Environment, wheels: dict[str, Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path, "Qwen3ForCausalLM", "qwen3")
    shown = fresh.run("bestiary", "inspect", str(folder), code=1)
    assert "No installed plugin claims Qwen3ForCausalLM" in shown and "pip install bestiary-qwen" in shown
    fresh.pip("--no-deps", str(wheels["bestiary-qwen"]))
    assert fresh.run("python", "-c", GREEDY, str(folder)).strip().endswith("bestiary-qwen")


def test_the_packaged_model_is_named_with_its_command(fresh: Environment) -> None:
    assert "pip install bestiary-demo" in fresh.run("bestiary", "run", "demo", "hi", code=1)


def test_the_plugin_of_the_tutorial_serves(fresh: Environment, wheels: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "OlmoForCausalLM", "olmo")
    assert "OlmoForCausalLM" in fresh.run("bestiary", "inspect", str(folder), code=1)
    fresh.pip("--no-deps", str(wheels["bestiary-olmo"]))
    assert "olmo  (bestiary-olmo 0.1.0" in fresh.run("bestiary", "plugins")
    assert fresh.run("python", "-c", GREEDY, str(folder)).strip().endswith("bestiary-olmo")


def test_a_plugin_that_fails_to_import_is_shown_and_harms_no_other(fresh: Environment, tmp_path: Path) -> None:
    site = Path(fresh.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    info = site / "bestiary_gemma-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bestiary-gemma\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[bestiary]\ngemma = bestiary_gemma\n")
    (site / "bestiary_gemma.py").write_text("import flash_newt\n")
    try:
        shown = fresh.run("bestiary", "plugins")
        assert "BROKEN: ModuleNotFoundError: No module named 'flash_newt'" in shown and "LlamaForCausalLM" in shown
        folder = tiny_checkpoint(tmp_path, "GemmaForCausalLM", "gemma")
        shown = fresh.run("bestiary", "inspect", str(folder), code=1)
        assert "flash_newt" in shown and "fix:" in shown
    finally:
        for path in (*info.iterdir(), site / "bestiary_gemma.py"):
            path.unlink()
        info.rmdir()


def test_wheels_hold_the_package_and_its_licence_only(wheels: dict[str, Path]) -> None:
    for name in DISTRIBUTIONS:
        with zipfile.ZipFile(wheels[name]) as wheel:
            names = wheel.namelist()
        module = {"bestiary-core": "bestiary"}.get(name, name.replace("-", "_"))
        assert all(part.startswith((f"{module}/", f"{name.replace('-', '_')}-")) for part in names), names
        assert any(part.endswith("licenses/LICENSE") for part in names)
        assert f"{module}/py.typed" in names
        assert not any("/tests/" in part for part in names)


def test_the_demo_wheel_carries_its_model_and_not_how_it_was_made(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["bestiary-demo"]) as wheel:
        names = wheel.namelist()
    assert "bestiary_demo/model/model.safetensors" in names and "bestiary_demo/model/chat_template.jinja" in names
    assert not any("training" in name or "heldout" in name for name in names)


def test_the_meta_package_has_no_modules(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(ROOT, tmp_path)) as wheel:
        assert all(name.startswith("bestiary-") for name in wheel.namelist())
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA"))
    assert "Requires-Dist: bestiary-core" in metadata and "Provides-Extra: text" in metadata


def test_the_tutorial_passes_its_own_tests(tmp_path: Path) -> None:
    """In this environment, which has pytest and transformers, from its source tree."""
    folder = tutorial.write(tmp_path)
    info = folder / "src" / "bestiary_olmo-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bestiary-olmo\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[bestiary]\nolmo = bestiary_olmo\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_picture_for_a_model_without_eyes_is_refused(fresh: Environment, shared_data: Path) -> None:
    """Without the library that would open it."""
    folder = shared_data / "weights/stories260K/hf"
    shown = fresh.run("bestiary", "run", str(folder), "Once", "--raw", "--image", "data:image/png;base64,", code=1)
    assert "takes no images, only text" in shown


def test_a_family_that_sees_brings_what_it_needs(fresh: Environment, wheels: dict[str, Path]) -> None:
    fresh.pip("--find-links", str(wheels["bestiary-idefics"].parent), "bestiary-idefics")
    listed = {item["name"].lower() for item in json.loads(fresh.run("python", "-m", "pip", "list", "--format=json"))}
    assert {"pillow", "bestiary-siglip", "bestiary-llama"} <= listed and "torchvision" not in listed
    assert "idefics  (bestiary-idefics 0.1.0" in fresh.run("bestiary", "plugins")
    fresh.run("python", "-c", "import bestiary_idefics.processor, bestiary_idefics.model, bestiary.media.opening")
