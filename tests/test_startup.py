"""What starting imports. What it costs in time is for `benchmarks/startup.py`: a clock here measures the machine."""

import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "numpy", "tokenizers", "huggingface_hub", "jinja2", "transformers", "gguf", "safetensors"}


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_bestiary_imports_no_plugin_and_nothing_heavy() -> None:
    found = modules_after("import bestiary")
    assert not found & {*HEAVY, "typer", "pluggy", "pydantic", "bestiary_llama"}


def test_importing_bestiary_adds_few_modules() -> None:
    assert len(modules_after("import bestiary") - modules_after("")) < 60


def test_listing_plugins_imports_no_torch() -> None:
    found = modules_after("from bestiary.cli import invoke; assert invoke(['plugins']) == 0")
    assert "bestiary_llama" in found
    assert not found & HEAVY


def test_listing_plugins_adds_few_modules_to_what_the_command_line_library_imports() -> None:
    listing = modules_after("from bestiary.cli import invoke; assert invoke(['plugins']) == 0")
    library = modules_after("import typer.main, typer._adapters, pluggy, importlib.metadata")
    assert len(listing - library) < 130


def test_a_missing_plugin_is_reported_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2"}')
    found = modules_after(f"from bestiary.cli import invoke; assert invoke(['run', {str(tmp_path)!r}, 'hi']) == 1")
    assert "torch" not in found
