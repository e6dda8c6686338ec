"""The registry: real distributions with real entry points, some of them broken in every way."""

import importlib.metadata
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from bestiary import registry
from bestiary.errors import MissingPlugin
from bestiary.records import API, Architecture, KernelBackend, PipelineType
from bestiary.registry import Registry, default_registry, discover

NUMBERS = itertools.count()
GOOD = """
    import bestiary

    @bestiary.hookimpl
    def bestiary_architectures():
        return [bestiary.Architecture("{name}", "text", "nowhere:build")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """install(source, ...) makes a distribution for each source, and discovers them and no others."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(*sources: str | tuple[str, str], **options: object) -> Registry:
        for place, source in enumerate(sources):
            name, code = source if isinstance(source, tuple) else (f"plugin{place}", source)
            number = next(NUMBERS)
            module, distribution = f"a_plugin_{number}", f"dist-{len(made)}"
            made.append(module)
            (tmp_path / f"{module}.py").write_text(dedent(code))
            info = tmp_path / f"{distribution.replace('-', '_')}-1.{place}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.{place}\n")
            (info / "entry_points.txt").write_text(f"[bestiary]\n{name} = {module}\n")
        importlib.invalidate_caches()
        found = importlib.metadata.distributions(path=[str(tmp_path)])
        points = [point for dist in found for point in dist.entry_points if point.group == "bestiary"]
        return discover(points=sorted(points, key=lambda point: point.value), **options)  # type: ignore[arg-type]

    yield make
    for module in made:
        sys.modules.pop(module, None)


def names_of(found: Registry) -> list[str]:
    return [record.name for record, _ in found.records(Architecture)]


def test_a_plugin_is_known_with_its_distribution(install: Callable[..., Registry]) -> None:
    (plugin,) = install(GOOD.format(name="A")).plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("plugin0", "dist-0", "1.0")
    assert plugin.module.startswith("a_plugin_") and plugin.error is None
    assert plugin.records == (Architecture("A", "text", "nowhere:build"),)


def test_records_come_by_kind_with_their_owner(install: Callable[..., Registry]) -> None:
    found = install(
        GOOD.format(name="A")
        + """
    @bestiary.hookimpl
    def bestiary_pipelines():
        return [bestiary.PipelineType("song", "nowhere:Song")]
    """,
        GOOD.format(name="B"),
    )
    assert [(record.name, owner.name) for record, owner in found.records(Architecture)] == [
        ("A", "plugin0"),
        ("B", "plugin1"),
    ]
    assert [(record.task, owner.name) for record, owner in found.records(PipelineType)] == [("song", "plugin0")]
    assert found.pipeline("song").pipeline == "nowhere:Song"


BROKEN = {
    "import of what is absent": ("import a_module_that_is_absent", "ModuleNotFoundError", "a_module_that_is_absent"),
    "syntax": ("def (", "SyntaxError", ""),
    "exception at import": ("raise ValueError('two\\nlines')", "ValueError", "two lines"),
    "exit at import": ("import sys; sys.exit(3)", "SystemExit", "3"),
    "exception of the lowest class": ("raise BaseException('deep')", "BaseException", "deep"),
    "panic of an extension": (
        "class PanicException(BaseException): pass\nraise PanicException('rust')",
        "PanicException",
        "rust",
    ),
    "hook raises": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_loaders():\n    raise OSError('no disk')",
        "OSError",
        "no disk",
    ),
    "misspelt hook": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_architecture():\n    return []",
        "InvalidPlugin",
        "bestiary_architecture'",
    ),
    "argument that the hook has not": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_architectures(torch):\n    return []",
        "PluginValidationError",
        "torch",
    ),
    "record of another hook": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_architectures():\n"
        "    return [bestiary.PipelineType('a', 'b:c')]",
        "InvalidPlugin",
        "bestiary_architectures returned a PipelineType, and Architecture records are due",
    ),
    "no record": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_kernels():\n    return ['fast']",
        "InvalidPlugin",
        "returned a str",
    ),
    "a record without a list": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_pipelines():\n    return bestiary.PipelineType('a', 'b:c')",
        "TypeError",
        "",
    ),
    "newer minor API": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_pipelines():\n"
        f"    return [bestiary.PipelineType('a', 'b:c', api=({API[0]}, {API[1] + 1}))]",
        "InvalidPlugin",
        "pip install -U bestiary-core",
    ),
    "newer major API": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_pipelines():\n"
        f"    return [bestiary.PipelineType('a', 'b:c', api=({API[0] + 1}, 0))]",
        "InvalidPlugin",
        f"hook API {API[0] + 1}.0; this core has {API[0]}.{API[1]}",
    ),
    "older major API": (
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_pipelines():\n"
        f"    return [bestiary.PipelineType('a', 'b:c', api=({API[0] - 1}, 9))]",
        "InvalidPlugin",
        "newer release",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("first", [True, False])
def test_a_broken_plugin_is_kept_with_its_error_and_harms_no_other(
    install: Callable[..., Registry], case: str, first: bool
) -> None:
    source, error, text = BROKEN[case]
    good = GOOD.format(name="A")
    found = install(*([source, good] if first else [good, source]))
    assert names_of(found) == ["A"]
    (broken,) = found.broken
    assert broken.name == f"plugin{0 if first else 1}" and broken.records == ()
    assert broken.error is not None and broken.error.startswith(f"{error}: ".rstrip() if not text else error)
    assert text in broken.error and "\n" not in broken.error
    assert broken.traceback.startswith("Traceback") and error in broken.traceback
    assert [name for name, _ in found.manager.list_name_plugin()] == [f"plugin{1 if first else 0}"]


def test_ctrl_c_during_discovery_is_ctrl_c(install: Callable[..., Registry]) -> None:
    with pytest.raises(KeyboardInterrupt):
        install("raise KeyboardInterrupt")


def test_a_name_taken_twice_leaves_the_first(install: Callable[..., Registry]) -> None:
    found = install(("same", GOOD.format(name="A")), ("same", GOOD.format(name="B")))
    assert names_of(found) == ["A"]
    (broken,) = found.broken
    assert broken.distribution == "dist-1"
    assert '"same": dist-0 and dist-1' in str(broken.error) and "pip uninstall dist-1" in str(broken.error)


def test_discovery_may_be_limited_to_plugins_or_distributions(install: Callable[..., Registry]) -> None:
    sources = [GOOD.format(name=name) for name in "ABC"]
    assert names_of(install(*sources)) == ["A", "B", "C"]
    assert names_of(install(only=["plugin1"])) == ["B"]
    assert names_of(install(only=["dist-2", "plugin0"])) == ["A", "C"]
    assert names_of(install(only=["absent"])) == []


def test_a_plugin_outside_of_the_limit_is_not_imported(install: Callable[..., Registry]) -> None:
    assert install("raise SystemExit", only=["plugin9"]).plugins == ()


@pytest.fixture
def fresh_default() -> Iterator[None]:
    default_registry.cache_clear()
    yield
    default_registry.cache_clear()


@pytest.mark.usefixtures("fresh_default")
@pytest.mark.parametrize(
    "limit, expected",
    [("bestiary-llama", {"core", "llama"}), (" qwen , llama,", {"core", "llama", "qwen"}), ("", {"core"})],
)
def test_the_environment_may_limit_the_default_registry(
    monkeypatch: pytest.MonkeyPatch, limit: str, expected: set[str]
) -> None:
    monkeypatch.setenv("BESTIARY_PLUGINS", limit)
    assert {plugin.name for plugin in default_registry().plugins} == expected
    assert default_registry() is default_registry()


@pytest.mark.usefixtures("fresh_default")
def test_the_environment_may_trace_every_hook_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BESTIARY_PLUGINS", "llama")
    with caplog.at_level(logging.DEBUG, "bestiary.plugins"):
        default_registry()
        assert caplog.text == ""
        default_registry.cache_clear()
        monkeypatch.setenv("BESTIARY_TRACE", "1")
        default_registry()
    assert "bestiary_architectures" in caplog.text and "LlamaForCausalLM" in caplog.text


def test_tracing_logs_what_each_hook_returned(
    install: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "bestiary.plugins"):
        install(GOOD.format(name="TracedForCausalLM"), trace=True)
    assert "bestiary_architectures" in caplog.text and "TracedForCausalLM" in caplog.text


def test_the_core_comes_first() -> None:
    found = discover()
    assert found.plugins[0].name == "core" and found.plugins[0].distribution == "bestiary-core"
    assert [plugin.name for plugin in found.plugins[1:]] == sorted(plugin.name for plugin in found.plugins[1:])
    assert found.broken == ()


def test_a_task_that_nobody_runs_names_those_that_are_run(install: Callable[..., Registry]) -> None:
    found = install(
        "import bestiary\n@bestiary.hookimpl\ndef bestiary_pipelines():\n"
        "    return [bestiary.PipelineType(task, 'a:b') for task in ('text', 'image')]"
    )
    with pytest.raises(MissingPlugin, match='"speech"') as error:
        found.pipeline("speech")
    assert error.value.where == "installed tasks: image, text"


def test_a_kernel_is_found_by_operation_type_and_device_and_the_best_wins(install: Callable[..., Registry]) -> None:
    found = install(
        """
        import bestiary

        @bestiary.hookimpl
        def bestiary_kernels():
            return [
                bestiary.KernelBackend("linear", ("q4",), ("cpu", "cuda"), "a:slow"),
                bestiary.KernelBackend("linear", ("q4",), ("cuda",), "a:fast", priority=5),
            ]
        """
    )

    def function(*key: str) -> str | None:
        kernel = found.kernel(*key)
        assert kernel is None or isinstance(kernel, KernelBackend)
        return None if kernel is None else kernel.function

    assert function("linear", "q4", "cuda") == "a:fast"
    assert function("linear", "q4", "cpu") == "a:slow"
    assert function("linear", "q8", "cpu") is function("norm", "q4", "cpu") is function("linear", "q4", "mps") is None


def test_commands_that_fail_are_left_out_and_logged(
    install: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    command = "import bestiary\n@bestiary.hookimpl\ndef bestiary_commands(cli):\n    {}"
    found = install(command.format("cli.append('a')"), command.format("1 / 0"), command.format("cli.append('c')"))
    cli: list[str] = []
    found.add_commands(cli)
    assert sorted(cli) == ["a", "c"]
    assert "plugin1" in caplog.text and "ZeroDivisionError" in caplog.text


def test_the_group_of_entry_points_is_bestiary() -> None:
    installed = {point.name for point in importlib.metadata.entry_points(group="bestiary")}
    assert {plugin.name for plugin in registry.discover().plugins} == installed
