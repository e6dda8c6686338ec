"""Each hook does what its page says, for a plugin of strangers that uses nothing else."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import bestiary
import bestiary.cli.commands  # its modules hold the real registry before one test replaces it
from bestiary import registry as registries
from bestiary.cli import invoke
from bestiary.errors import MissingPlugin, OptionError
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.tools.answer_grammar import Wanted, answer_grammar
from bestiary.generation.tools.choose import detect, form_of, parser_of, tool_format
from bestiary.generation.tools.events import Message, ToolCall, assemble
from bestiary.records import resolve
from bestiary.registry import Registry, discover

WEIGHT = [[1.0, -2.0, 0.5], [0.25, 4.0, -1.0], [3.0, 0.0, 1.5]]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "third_party"))
    points = [EntryPoint(name, module, "bestiary") for name, module in (("core", "bestiary.builtin"), ("newt", "newt"))]
    found = discover(points=points)
    assert not found.broken
    return found


@pytest.fixture
def pond(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NewtModel"], "width": 3}))
    (tmp_path / "weights.newt").write_text(json.dumps({"proj.weight": WEIGHT}))
    return tmp_path


def test_source_loader_architecture_and_pipeline(registry: Registry, pond: Path) -> None:
    pipe = bestiary.load(f"pond:{pond}", registry=registry)
    assert type(pipe).__name__ == "NewtPipeline"
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.equal(pipe(x), x @ torch.tensor(WEIGHT).T)


def test_quantizer_packs_while_loading(registry: Registry, pond: Path) -> None:
    pipe = bestiary.load(f"pond:{pond}", quant="rows8", registry=registry)
    proj = pipe.loaded.model.proj
    assert proj.weight is None and proj.packed.numbers.dtype == torch.int8
    x = torch.tensor([[1.0, 2.0, 3.0]])
    exact = x @ torch.tensor(WEIGHT).T
    assert not torch.equal(pipe(x), exact)
    # Half a step of each row's scale, for each of the inputs.
    assert ((pipe(x) - exact).abs() <= proj.packed.scales.T / 2 * x.sum() + 1e-6).all()


def test_quantizer_reads_what_the_config_names(registry: Registry, pond: Path) -> None:
    config = {"architectures": ["NewtModel"], "width": 3}
    config["quantization_config"] = {"quant_method": "stored_rows8", "scale": 0.5}
    (pond / "config.json").write_text(json.dumps(config))
    pipe = bestiary.load(f"pond:{pond}", registry=registry)
    assert torch.equal(pipe.loaded.model.proj.weight, torch.tensor(WEIGHT) * 0.5)


def test_unknown_schemes_name_the_known_ones(registry: Registry, pond: Path) -> None:
    with pytest.raises(MissingPlugin, match="rows9") as found:
        bestiary.load(f"pond:{pond}", quant="rows9", registry=registry)
    assert "rows8" in str(found.value)


def test_unknown_options_name_the_nearest(registry: Registry, pond: Path) -> None:
    with pytest.raises(OptionError, match="dtyp") as found:
        bestiary.load(f"pond:{pond}", dtyp="float32", registry=registry)
    assert "dtype" in str(found.value)


def test_kernels_are_found_by_operation_type_and_device(registry: Registry) -> None:
    found = registry.kernel("double", "F32", "cpu")
    assert found is not None and resolve(found.function)(torch.ones(1)).item() == 2
    assert found.function == "newt:double", "the higher priority is taken"
    assert registry.kernel("double", "F32", "mps") is None
    assert registry.kernel("triple", "F32", "cpu") is None


def test_tool_formats_are_shown_by_templates_and_read_and_enforced(registry: Registry) -> None:
    tools = [{"name": "eat", "parameters": {"type": "object", "properties": {"flies": {"type": "integer"}}}}]
    format = detect("{# croak(NAME, ARGUMENTS) #}{{ tools }}", registry)
    assert format is not None and format == tool_format("newt", registry) and format.name == "newt"
    parser = parser_of(format, tools)
    message = assemble([*parser.push('Yes. croak(eat, {"flies": 3})'), *parser.finish()])
    assert message == Message("Yes. ", "", (ToolCall(None, "eat", '{"flies": 3}'),))
    grammar = answer_grammar(form_of(format), Wanted(tools, required=True), {})
    pipe = bestiary.load("demo", progress=False)
    with pipe:
        state = ConstraintCompiler(pipe.tokenizer, pipe.model.vocab_size, pipe.engine.end_tokens).compile(grammar)
        right, wrong = (pipe.tokenizer.encode_after(f'croak(eat, {{"flies": {text}}})') for text in ("3", '"3"'))
        assert state.accepts(right) == len(right) and state.accepts(wrong) < len(wrong)


def test_commands_join_the_command_line(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registries, "default_registry", lambda: registry)
    assert invoke(["croak", "--times", "2"]) == 0
    assert capsys.readouterr().out.strip() == "croak croak"


def test_listing_shows_every_kind(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bestiary.cli.plugins.default_registry", lambda: registry)
    monkeypatch.setattr(registries, "default_registry", lambda: registry)
    assert invoke(["plugins", "--json"]) == 0
    listed = {plugin["name"]: plugin["provides"] for plugin in json.loads(capsys.readouterr().out)}
    assert listed["newt"] == {
        "architectures": ["NewtModel"],
        "loaders": ["newt"],
        "quantizers": ["rows"],
        "pipelines": ["newt"],
        "kernels": ["double (F32 on cpu)", "double (F32 on cpu, cuda)"],
        "sources": ["pond"],
        "tool formats": ["newt"],
    }
