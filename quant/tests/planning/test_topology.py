"""Topology files: mistral.rs's own examples, its rules, and what no such file may do."""

from pathlib import Path

import pytest

from bestiary.errors import ConfigError, OptionError
from bestiary_quant.planning.topology import read_topology

Q = "model.layers.{}.self_attn.q_proj.weight"


def written(folder: Path, text: str) -> str:
    path = folder / "topology.yml"
    path.write_text(text)
    return str(path)


def test_the_examples_of_mistral_rs(shared_data: Path) -> None:
    folder = shared_data / "mistralrs/topologies"
    ranges = read_topology(str(folder / "isq.yml"))
    found = [ranges.scheme(Q.format(layer), "afq4") for layer in range(32)]
    assert found == ["q3k"] * 8 + ["q4k"] * 8 + ["q6k"] * 8 + ["afq4"] * 4 + ["q8_0"] * 4
    assert ranges.scheme("lm_head.weight", None) is None and ranges.device(Q.format(0)) is None
    devices = read_topology(str(folder / "isq_and_device.yml"))
    assert [devices.device(Q.format(layer)) for layer in (0, 8, 16, 28)] == ["cuda:0", "cpu", None, "cuda:0"]
    names = read_topology(str(folder / "isq_regex.yml"))
    assert names.scheme("model.language_model.layers.3.self_attn.q_proj.weight", None) == "afq3"
    assert names.scheme("model.language_model.layers.3.mlp.up_proj.weight", None) == "afq4"
    assert names.scheme("model.layers.3.mlp.up_proj.weight", "q4k") == "q4k"


def test_later_entries_win_by_scheme_and_device_each_for_itself(tmp_path: Path) -> None:
    topology = read_topology(
        written(
            tmp_path,
            "0-4:\n  isq: Q4_K\n  device: cpu\n2:\n  isq: 8\n/v_proj/:\n  isq: none\n/layers.1/: {device: 'cuda[1]'}\n",
        )
    )
    assert [topology.scheme(Q.format(layer), None) for layer in range(5)] == ["q4k", "q4k", "q8_0", "q4k", None]
    assert topology.scheme("model.layers.2.self_attn.v_proj.weight", "q6k") is None
    assert [topology.device(Q.format(layer)) for layer in (0, 1, 2, 4)] == ["cpu", "cuda:1", "cpu", None]


def test_content_serves_as_well_as_a_file() -> None:
    assert read_topology({"0": {"isq": "q8_0"}}).scheme(Q.format(0), None) == "q8_0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 0-4", "entries such as"),
        ("just words", "entries such as"),
        ("0-4: Q4K", "isq and device are due"),
        ("0-4: {}", "isq and device are due"),
        ("0-4: {ISQ: Q4K}", "Did you mean 'isq'"),
        ("4-4: {isq: Q4K}", "none"),
        ("8-4: {isq: Q4K}", "the end comes first"),
        ("layers: {isq: Q4K}", "for no layers"),
        ("'0-99999999999': {isq: Q4K}", "for no layers"),
        ("'/(/': {isq: Q4K}", "malformed"),
        ("0-4: {isq: [Q4K]}", "the name of a scheme is due"),
        ("0-4: {isq: true}", "the name of a scheme is due"),
        ("0-4: {device: tpu}", '"cpu" or'),
        ("0-4: {device: 3}", '"cpu" or'),
        ("0-4: {isq: Q4K}\n0-4: {isq: Q8_0}", "comes twice"),
        ("a: &a [x]\nb: *a", "aliases"),
        ("!!python/object/apply:os.system ['true']", "no valid YAML"),
        ("0-4: {isq: Q4K", "no valid YAML"),
        ("[" * 5000, "no valid YAML"),
        ("\x00", "no valid YAML"),
    ],
)
def test_bad_files_name_the_entry(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_topology(written(tmp_path, text))
    assert said in str(caught.value) and "topology.yml" in str(caught.value)


def test_unknown_schemes_are_option_errors(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="q4k"):
        read_topology(written(tmp_path, "0-4: {isq: Q4X}"))


def test_files_that_are_absent_or_huge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_topology(str(tmp_path / "none.yml"))
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        read_topology(written(tmp_path, "#" * (1 << 21)))
    with pytest.raises(ConfigError, match="path of a YAML file"):
        read_topology(4)  # type: ignore[arg-type]
