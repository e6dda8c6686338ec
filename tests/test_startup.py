"""What starting costs, in processor time of a child: the clock would measure other programs too."""

import resource
import subprocess
import sys
from pathlib import Path

TRIES = 5


def cpu_seconds(*arguments: str) -> float:
    """The least processor time of several runs, less that of an empty interpreter."""

    def least(command: list[str]) -> float:
        spent = []
        for _ in range(TRIES):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(spent)

    return least([sys.executable, *arguments]) - least([sys.executable, "-c", ""])


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_costs_less_than_150_ms() -> None:
    assert cpu_seconds("-c", "import bestiary") < 0.15


def test_listing_plugins_costs_less_than_500_ms() -> None:
    assert cpu_seconds("-m", "bestiary", "plugins") < 0.5


def test_importing_bestiary_imports_no_plugin_and_nothing_heavy() -> None:
    found = modules_after("import bestiary")
    assert not found & {
        "torch",
        "numpy",
        "tokenizers",
        "huggingface_hub",
        "jinja2",
        "typer",
        "pluggy",
        "bestiary_llama",
    }


def test_listing_plugins_imports_no_torch() -> None:
    found = modules_after("from bestiary.cli import invoke; assert invoke(['plugins']) == 0")
    assert "bestiary_llama" in found
    assert not found & {"torch", "numpy", "tokenizers", "huggingface_hub", "jinja2", "transformers"}


def test_a_missing_plugin_is_reported_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2"}')
    found = modules_after(f"from bestiary.cli import invoke; assert invoke(['run', {str(tmp_path)!r}, 'hi']) == 1")
    assert "torch" not in found
