"""The weight map and the descriptions, against transformers and torch's own weight norm."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary
import bestiary_dac
from bestiary.config import Config
from bestiary.errors import WeightMismatch
from bestiary.records import Architecture
from bestiary.weights import plan
from bestiary_dac import describe, rules
from bestiary_dac.tiny import CONFIGS, FOUR, ODD, codec

Make = Callable[..., Any]
Tensors = dict[str, torch.Tensor]
UNIT = ("snake1", "conv1", "snake2", "conv2")
PUBLISHED = {"sampling_rate": 44100}


def original(tensors: Tensors, blocks: int) -> Tensors:
    """Tensors of transformers' names as Descript's code names them."""
    return {_original(name, blocks): tensor for name, tensor in tensors.items()}


def _original(name: str, blocks: int) -> str:
    half, *rest = name.split(".")
    if half == "quantizer":
        return name
    stem = f"{half}.block" if half == "encoder" else f"{half}.model"
    if rest[0] != "block":
        place = {"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}[rest[0]]
        return ".".join((stem, str(place), *rest[1:]))
    stem = f"{stem}.{int(rest[1]) + 1}.block"
    if rest[2].startswith("res_unit"):
        place = int(rest[2][-1]) - 1 + (0 if half == "encoder" else 2)
        return ".".join((stem, str(place), "block", str(UNIT.index(rest[3])), *rest[4:]))
    place = {"encoder": ("", "", "", "snake1", "conv1"), "decoder": ("snake1", "conv_t1")}[half].index(rest[2])
    return ".".join((stem, str(place), *rest[3:]))


def normed(tensors: Tensors, spelling: tuple[str, str]) -> Tensors:
    """With weight norm: every weight of three dimensions as a length and a direction, which is longer than one."""
    made = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.ndim == 3:
            stem = name.removesuffix("weight")
            lengths = tensor.flatten(1).norm(dim=1)[:, None, None] if not tensor.is_meta else tensor[:, :1, :1]
            made[stem + spelling[0]] = lengths
            made[stem + spelling[1]] = tensor if tensor.is_meta else tensor * (1 + torch.rand_like(lengths))
        else:
            made[name] = tensor
    return made


SPELLINGS = [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")]


def mapped(tensors: Tensors, values: dict[str, Any]) -> Tensors:
    made = plan(rules(), tensors, Config({**bestiary_dac.DEFAULTS, **values}, "the test"))
    shapes = made.shapes(lambda name: tuple(tensors[name].shape))
    result = {name: recipe.make(tensors.__getitem__) for name, recipe in made.recipes.items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in result.items()}
    return result


def same(given: Tensors, expected: Tensors, tolerance: float = 0.0) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("values", CONFIGS)
def test_names_of_transformers_stay(values: dict[str, Any], reference: Make) -> None:
    tensors = dict(reference(values).state_dict())
    same(mapped(tensors, values), tensors)


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_descript_become_those_of_transformers(
    values: dict[str, Any], spelling: tuple[str, str], reference: Make
) -> None:
    tensors = dict(reference(values).state_dict())
    blocks = len(values["downsampling_ratios"])
    same(mapped(original(tensors, blocks), values), tensors)
    same(mapped(original(normed(tensors, spelling), blocks), values), tensors, 1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("values", [FOUR, ODD])
def test_weight_norm_is_folded_as_torch_folds_it(values: dict[str, Any], reference: Make) -> None:
    model = reference(values)
    model.apply_weight_norm()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert any("original0" in name for name in tensors)
        given = mapped(tensors, values)
        for name, module in model.named_modules():
            if hasattr(module, "parametrizations"):
                torch.testing.assert_close(given[f"{name}.weight"], module.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["transformers", *SPELLINGS])
def test_the_published_configuration_in_every_layout(layout: Any, empty: Make) -> None:
    model = empty(PUBLISHED)
    tensors = {name: weight.detach() for name, weight in model.named_parameters()}
    stored = tensors if layout == "transformers" else original(normed(tensors, layout), 4)
    made = plan(rules(), stored, Config({**bestiary_dac.DEFAULTS, **PUBLISHED}, "the test"))
    shapes = made.shapes(lambda name: tuple(stored[name].shape))
    assert shapes == {name: tuple(weight.shape) for name, weight in tensors.items()}
    assert not made.dropped


def test_lengths_without_directions_and_of_other_shapes_are_told(reference: Make) -> None:
    tensors = normed(dict(reference(FOUR).state_dict()), SPELLINGS[0])
    config = Config({**bestiary_dac.DEFAULTS, **FOUR}, "the test")
    missing = {name: tensor for name, tensor in tensors.items() if name != "encoder.conv2.weight_g"}
    with pytest.raises(WeightMismatch) as caught:
        plan(rules(), missing, config)
    assert caught.value.missing == ("encoder.conv2.weight_g",)
    for name, shape in {
        "encoder.conv2.weight_g": (64, 2, 1),
        "encoder.block.1.conv1.weight_v": (16, 8, 3),
        "decoder.block.0.conv_t1.weight_g": (31, 1, 1),
        "decoder.conv1.weight_v": (32, 64),
        "decoder.conv2.weight_g": (),
    }.items():
        given = {**{key: tuple(tensor.shape) for key, tensor in tensors.items()}, name: shape}
        with pytest.raises(WeightMismatch):
            plan(rules(), given, config).shapes(given.__getitem__)


@pytest.mark.parametrize("layout", ["transformers", "plain", *SPELLINGS])
def test_a_file_is_described(layout: Any, empty: Make) -> None:
    for values in (
        FOUR,
        codec(2, 4, 5, 8, n_codebooks=32, sampling_rate=24000),
        codec(2, 4, 5, 8, n_codebooks=12, hidden_size=24),
    ):
        tensors = {name: weight.detach() for name, weight in empty(values).named_parameters()}
        stored = tensors if layout in ("transformers", "plain") else normed(tensors, layout)
        if layout != "transformers":
            stored = original(stored, 4)
        told = describe({name: tuple(tensor.shape) for name, tensor in stored.items()})
        assert told is not None
        derived = {"hidden_size", "upsampling_ratios"}
        assert {key: value for key, value in told.items() if key not in derived or key in values} == values
        again = {name: weight.shape for name, weight in empty(told).named_parameters()}
        assert again == {name: weight.shape for name, weight in tensors.items()}


def test_other_files_are_not_described(empty: Make) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in empty(FOUR).named_parameters()}
    assert describe({}) is None
    assert describe({"model.embed_tokens.weight": (8, 8)}) is None
    assert describe({name: shape for name, shape in shapes.items() if name.startswith("decoder.")}) is None
    assert describe({**shapes, "encoder.conv1.weight": ()}) is None
    assert describe({**shapes, "quantizer.quantizers.9.codebook.weight": (64, 8)}) is None


def test_a_folder_of_each_layout_is_loaded(tmp_path: Path, reference: Make, ours: Make) -> None:
    """Through the core: the files of a repository become the network, weight norm and all."""
    import json

    from safetensors.torch import save_file

    from bestiary.identified import identify_part
    from bestiary.loading import load_weights
    from bestiary.records import Part, SourceOptions
    from bestiary.registry import default_registry
    from bestiary.sources.folder import Folder

    model = reference(FOUR)
    tensors = dict(model.state_dict())
    codes = torch.randint(64, (1, 9, 4), generator=torch.Generator().manual_seed(3))
    expected = ours(FOUR, model).decode(codes)
    for number, stored in enumerate((tensors, original(normed(tensors, SPELLINGS[0]), 4))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(FOUR))
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors")
        registry = default_registry()
        part = Part("codec", ("DacModel",))
        identified = identify_part(part, Folder(folder, "test/codec"), SourceOptions(), registry)
        assert identified is not None
        loaded = load_weights(identified, registry, dtype="float32", device="cpu")
        torch.testing.assert_close(loaded.model.decode(codes), expected, rtol=0.0, atol=1e-5)


def test_the_record_and_the_description_import_no_torch() -> None:
    code = (
        "import sys, bestiary_dac as plugin; plugin.bestiary_architectures(); plugin.describe({});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_record() -> None:
    (record,) = bestiary_dac.bestiary_architectures()
    assert isinstance(record, Architecture)
    assert isinstance(record, bestiary.Architecture)
    assert (record.name, record.task, record.model_types) == ("DacModel", "part", ("dac",))
