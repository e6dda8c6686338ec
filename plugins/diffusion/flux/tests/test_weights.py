"""The names of both layouts, and what they say of a model without configuration."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary_flux
from bestiary.building import build_empty
from bestiary.config import Config
from bestiary.weights import plan
from bestiary_flux.describe import describe
from bestiary_flux.settings import DEFAULTS
from bestiary_flux.tiny import TRANSFORMER
from bestiary_flux.weights import WEIGHTS

Shapes = dict[str, tuple[int, ...]]
Original = Callable[[dict[str, Any]], Shapes]

PREFIX = "model.diffusion_model."
# Released sizes: FLUX.1 [schnell], [dev], Fill [dev], Depth and Canny [dev], and one of those with fewer double blocks.
SCHNELL: dict[str, Any] = {**DEFAULTS, "out_channels": 64, "axes_dims_rope": [16, 56, 56]}
RELEASED: dict[str, dict[str, Any]] = {
    "schnell": SCHNELL,
    "dev": {**SCHNELL, "guidance_embeds": True},
    "fill": {**SCHNELL, "guidance_embeds": True, "in_channels": 384},
    "depth": {**SCHNELL, "guidance_embeds": True, "in_channels": 128},
    "lite": {**SCHNELL, "guidance_embeds": True, "num_layers": 8},
}


def parameters(values: dict[str, Any]) -> Shapes:
    known = {architecture.name: architecture for architecture in bestiary_flux.bestiary_architectures()}
    model = build_empty(known["FluxTransformer2DModel"], Config(values, "the test"))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("name", RELEASED)
def test_the_original_names_map_exactly(name: str, prefix: str, original: Original) -> None:
    shapes = {prefix + name: shape for name, shape in original(RELEASED[name]).items()}
    made = plan(WEIGHTS, shapes, Config(RELEASED[name], "the test"))
    assert not made.ties
    assert not made.dropped
    assert made.shapes(shapes.__getitem__) == parameters(RELEASED[name])


def test_a_published_index_maps_exactly(shared_data: Path) -> None:
    folder = shared_data / "checkpoints/flux.1-dev/transformer"
    values = json.loads((folder / "config.json").read_text())
    names = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    made, wanted = plan(WEIGHTS, names, Config(values, "the test")), parameters(values)
    assert set(made.recipes) == set(wanted)
    assert all(recipe.sources() == (name,) for name, recipe in made.recipes.items())
    # The original has the same network.
    assert wanted == parameters(RELEASED["dev"])


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("guidance", [False, True])
def test_the_original_tensors_become_those_that_diffusers_makes(
    prefix: str, guidance: bool, original: Original
) -> None:
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    # Its converter knows one width; what does not depend on it is made small.
    values = {**RELEASED["dev"], "num_layers": 2, "num_single_layers": 2, "guidance_embeds": guidance}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        prefix + name: torch.randn(shape[:1] + (2,) * (len(shape) - 1), generator=generator)
        for name, shape in original(values).items()
    }
    made = plan(WEIGHTS, tensors, Config(values, "the test"))
    expected = convert_flux_transformer_checkpoint_to_diffusers(dict(tensors))
    assert set(made.recipes) == set(expected)
    for name, recipe in made.recipes.items():
        assert torch.equal(recipe.make(tensors.__getitem__), expected[name])


def test_rules_hold_on_packed_weights(original: Original) -> None:
    """Each parameter is whole rows of one tensor, in some order."""
    values = {**TRANSFORMER[1], "out_channels": 8}
    shapes = original(values)
    made = plan(WEIGHTS, shapes, Config(values, "the test"))
    given = {name: Rows(shape) for name, shape in shapes.items() if len(shape) == 2}
    for name, recipe in made.recipes.items():
        if name.endswith("weight") and "attn.norm" not in name:
            assert recipe.packed(given.get) is not None  # type: ignore[arg-type]
    swapped = made.recipes["norm_out.linear.weight"].packed(given.get)  # type: ignore[arg-type]
    dim = shapes["img_in.weight"][0]
    assert swapped.index.tolist() == [*range(dim, 2 * dim), *range(dim)]  # type: ignore[union-attr]


class Rows:
    """A packed weight that remembers which of its rows were taken."""

    nbytes = 0

    def __init__(self, shape: tuple[int, ...], index: torch.Tensor | None = None) -> None:
        self.shape, self.index = shape, torch.arange(shape[0]) if index is None else index

    def rows(self, index: slice | torch.Tensor) -> "Rows":
        taken = self.index[index]
        return Rows((len(taken), self.shape[1]), taken)


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("name", RELEASED)
def test_shapes_tell_the_configuration(name: str, prefix: str, original: Original) -> None:
    values = {"_class_name": "FluxTransformer2DModel", **RELEASED[name]}
    for shapes in (original(values), parameters(values)):
        assert describe({prefix + name: shape for name, shape in shapes.items()}) == values


def test_heads_of_another_width_do_not_tell_how_they_turn(original: Original) -> None:
    found = describe(original(TRANSFORMER[1]))
    assert found == {**{k: v for k, v in TRANSFORMER[1].items() if k != "axes_dims_rope"}, "out_channels": 8}


@pytest.mark.parametrize(
    "lost",
    ["vector_in.in_layer.weight", "final_layer.linear.weight", "double_blocks.0.img_mod.lin.weight", "img_in.weight"],
)
def test_others_that_share_names_are_not_claimed(lost: str, original: Original) -> None:
    shapes = original(TRANSFORMER[0])
    assert describe(shapes) is not None
    assert describe({name: shape for name, shape in shapes.items() if name != lost}) is None


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("img_in.weight", (32,)),
        ("img_in.weight", ()),
        ("img_in.weight", (33, 8)),
        ("double_blocks.0.img_attn.norm.query_norm.scale", (0,)),
        ("double_blocks.0.img_attn.norm.query_norm.scale", (16, 1)),
    ],
)
def test_shapes_that_cannot_be_are_not_claimed(name: str, shape: tuple[int, ...], original: Original) -> None:
    assert describe({**original(TRANSFORMER[0]), name: shape}) is None


def test_nothing_is_claimed_where_nothing_is() -> None:
    assert describe({}) is None
    assert describe({"model.embed_tokens.weight": (131, 64)}) is None


def test_records_and_descriptions_import_no_torch() -> None:
    code = "import sys, bestiary_flux, bestiary_flux.describe, bestiary_flux.tiny; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
