"""The command line: one screen for each mistake, no traceback unless asked, and answers as they come."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bestiary
import bestiary_demo
from bestiary.cli import invoke
from bestiary.testing.reference import make_reference

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1536,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint, to be damaged in copies."""
    folder = tmp_path_factory.mktemp("whole")
    make_reference(LLAMA, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((bestiary_demo.folder() / name).read_bytes())
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def wrong_shape(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))


def unknown_architecture(folder: Path) -> None:
    edit_config(folder, architectures=["Mamba2ForCausalLM"], model_type="mamba2")


def remote_code(folder: Path) -> None:
    edit_config(folder, architectures=["OddForCausalLM"], auto_map={"AutoModelForCausalLM": "odd.OddForCausalLM"})


def without_key(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["intermediate_size"]
    path.write_text(json.dumps(config))


def broken_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": [')


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def unknown_scheme(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "runes"})


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


MISTAKES: dict[Callable[[Path], None], tuple[str, str]] = {
    without_config: ("no config.json", "the folder that holds config.json"),
    truncated: ("model.safetensors", "fetch"),
    without_tensor: ("model.layers.1.mlp.up_proj.weight", "bestiary check"),
    wrong_shape: ("is [31], should be [32]", "config.json"),
    unknown_architecture: ("Mamba2ForCausalLM", "plugin"),
    remote_code: ("never run", "plugin"),
    without_key: ("intermediate_size", "add it"),
    broken_json: ("not valid JSON", "fetch"),
    pickled: ("pickle", "safetensors"),
    unknown_scheme: ("runes", "gptq"),
    without_tokenizer: ("tokenizer.json", "tokenizer.json"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_damaged_model_is_one_screen_that_says_what_to_do(
    mistake: Callable[[Path], None], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mistake(model)
    assert invoke(["run", str(model), "hello"]) == 1
    shown = capsys.readouterr()
    what, fix = MISTAKES[mistake]
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert len(shown.err.splitlines()) <= 24
    assert shown.err.startswith("error: ") and what in shown.err, shown.err
    assert re.search(r"^  fix: .*" + re.escape(fix), shown.err, re.MULTILINE | re.DOTALL), shown.err


@pytest.mark.parametrize("name", ["no/such folder", "../up", "/nowhere/at/all", "", "a" * 400])
def test_a_wrong_id_is_one_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", name, "hello", "--offline"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and "  fix: " in shown and "Traceback" not in shown


def test_a_hub_id_offline_says_how_to_fetch_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "org/name", "hello", "--offline", "--cache-dir", str(tmp_path)]) == 1
    assert "offline" in capsys.readouterr().err


def test_the_traceback_is_there_when_asked(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncated(model)
    assert invoke(["run", str(model), "hello", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "demo", "hello", "--tempreture", "1"]) == 2
    assert "--tempreture" in capsys.readouterr().err


def test_out_of_bounds_options_say_their_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "demo", "hello", "--top-p", "7"]) == 1
    assert "top_p is 7.0; a number from 0 to 1 is due" in capsys.readouterr().err


def test_options_are_judged_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--top-p", "7"], ["--raw", "--system", "Be brief."]):
        assert invoke(["run", "no/model", "hello", "--offline", *arguments]) == 1
        assert "no/model" not in capsys.readouterr().err


def test_a_system_message_is_not_dropped_in_silence(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", str(shared_data / "weights/stories260K/hf"), "Once", "--system", "Be brief."]) == 1
    assert "no chat template" in capsys.readouterr().err


def test_run_streams_an_answer_with_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "demo", "Hello!"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip()
    assert re.search(r"\d+ tokens at \d+\.\d tokens/s", shown.err)


def test_run_takes_a_packing_a_cache_and_a_tokenizer(capsys: pytest.CaptureFixture[str], shared_data: Path) -> None:
    assert invoke(["run", "demo", "What is 27 + 45?", "--quant", "q8_0", "--cache-type", "int8"]) == 0
    assert "72" in capsys.readouterr().out
    assert invoke(["run", "demo", "Hello!", "--cache-type", "int9"]) == 1
    assert "int8" in capsys.readouterr().err
    stories = str(shared_data / "weights/stories260K/hf")
    assert invoke(["run", stories, "Once", "--tok-model-id", "nowhere/at-all", "--offline"]) == 1
    assert "nowhere/at-all" in capsys.readouterr().err


def test_inspect_prints_identity_plan_and_sizes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["inspect", str(model)]) == 0
    shown = capsys.readouterr().out
    assert "LlamaForCausalLM" in shown and "bestiary-llama" in shown
    assert "model.layers.{0-1}.mlp.up_proj.weight" in shown and "48x32" in shown
    assert "to fetch     nothing" in shown


def test_check_finds_values_that_are_not_finite(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["check", str(model), "--finite"]) == 0
    assert "the plan fits" in capsys.readouterr().out
    edit_tensors(model, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    assert invoke(["check", str(model)]) == 0
    assert invoke(["check", str(model), "--finite"]) == 1
    assert "model.norm.weight" in capsys.readouterr().err


def test_perplexity_is_that_of_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris. " * 4)
    assert invoke(["perplexity", "demo", str(text), "--dtype", "float32"]) == 0
    shown = float(capsys.readouterr().out.split()[1])
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        tokens = pipe.tokenize(text.read_text())
        logprobs = pipe.score(tokens).log_softmax(-1)[:-1]
        expected = logprobs.gather(1, torch.tensor(tokens[1:])[:, None]).mean().neg().exp()
    assert shown == pytest.approx(float(expected), rel=1e-3)


def test_bench_measures_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "demo", "--prompt", "16", "--generate", "4", "--repeat", "1", "--json"]
    assert invoke([*arguments, "--concurrency", "1", "--concurrency", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["requests"] for row in rows] == [1, 2]
    assert all(row["decode_tokens_per_second"] > 0 and row["prompt_tokens_per_second"] > 0 for row in rows)


def test_doctor_answers_offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert invoke(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["plugins"]["llama"].startswith("bestiary-llama")
    assert "HF_HUB_OFFLINE" in str(facts["hub"])


class Terminal:
    """A conversation in a real pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.parent, child = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bestiary", "run", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            close_fds=True,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )
        os.close(child)
        self.seen = ""

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Read until the pattern appears in what was not yet waited for."""
        end = time.monotonic() + seconds
        import select

        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"{pattern!r} did not come; seen: {self.seen!r}"
            if select.select([self.parent], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.parent, 65536).decode()
                except OSError:
                    raise AssertionError(f"the program ended; seen: {self.seen!r}") from None
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def say(self, text: str) -> None:
        os.write(self.parent, text.encode())


def test_a_conversation_survives_ctrl_c_and_obeys_its_commands() -> None:
    terminal = Terminal("demo", "--max-tokens", "900")
    terminal.wait_for("> $")
    terminal.say("/help\n")
    terminal.wait_for(r"/temperature NUMBER[\s\S]*> $")
    terminal.say("/temprature 1\n")
    terminal.wait_for(r"/temperature[\s\S]*> $")
    terminal.say("/temperature 5\n")
    terminal.wait_for(r"temperature is 5\.0[\s\S]*> $")
    terminal.say("Hello\n")
    terminal.wait_for(r"Hello\r\n[\s\S]")
    terminal.say("\x03")
    terminal.wait_for(r"> $")
    terminal.say("/temperature 0\n")
    terminal.wait_for(r"temperature is 0\.0[\s\S]*> $")
    terminal.say("/clear\n")
    terminal.wait_for(r"forgotten[\s\S]*> $")
    terminal.say("Hello\n")
    terminal.wait_for(r"tokens/s[\s\S]*> $")
    terminal.say("/exit\n")
    assert terminal.process.wait(timeout=30) == 0


def test_ctrl_c_ends_a_single_answer_with_its_own_status() -> None:
    terminal = Terminal("demo", "Hello", "--temperature", "9", "--max-tokens", "900")
    terminal.wait_for(r"\S")
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.process.wait(timeout=30) == 130


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m bestiary inspect demo --all | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "" and done.stdout.startswith("model")


def test_perplexity_of_conversations_is_that_of_the_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "talk.jsonl"
    said = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "2 + 3 = 5"}]
    file.write_text(json.dumps({"messages": said}) + "\n")
    assert invoke(["perplexity", "demo", str(file), "--dtype", "float32"]) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(r"perplexity 1\.\d+ over \d+ tokens \(answers\)\n", told), told
    for wrong in ('{"messages": []}', "[1]", "{", '{"messages": [{"role": "user", "content": "x"}]}'):
        file.write_text(wrong)
        assert invoke(["perplexity", "demo", str(file)]) == 1
        assert "talk.jsonl, line 1" in capsys.readouterr().err


def test_inspect_shows_what_becomes_of_each_weight(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["inspect", "demo", "--quant", "q4k"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"model\.layers\.\{0-5\}\.mlp\.down_proj\.weight +q4k +331\.8 kB", told)
    assert re.search(r"mlp\.up_proj\.weight +q5_0 +405\.5 kB +192 columns are no multiple of 256", told)
    assert re.search(r"in memory +1\.\d MB", told)
    assert invoke(["inspect", "demo", "--quant", "gptq4"]) == 1
    assert "calibration_file" in capsys.readouterr().err
    assert invoke(["inspect", "demo", "--quant", "gptq4", "--calibration-file", "some.txt"]) == 0
    assert re.search(r"mlp\.up_proj\.weight +gptq4", capsys.readouterr().out)
