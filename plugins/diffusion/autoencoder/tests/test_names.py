"""The weight map and the descriptions, against diffusers' converter of the original layout."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

import bestiary_autoencoder
from bestiary.errors import WeightMismatch
from bestiary.records import Architecture
from bestiary.weights import plan
from bestiary_autoencoder import describe, rules
from bestiary_autoencoder.tiny import FLUX, STABLE_DIFFUSION, WITHOUT_ATTENTION, autoencoder

Make = Callable[..., Any]
Tensors = dict[str, torch.Tensor]
WIDE: dict[str, Any] = {"norm_num_groups": 32, "layers_per_block": 2}
AE = autoencoder(
    32,
    64,
    96,
    128,
    **WIDE,
    latent_channels=16,
    scaling_factor=0.3611,
    shift_factor=0.1159,
    use_quant_conv=False,
    use_post_quant_conv=False,
)
KL_F8 = autoencoder(32, 64, 64, 96, **WIDE, scaling_factor=0.18215)
INNER = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
FIRST = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def original(tensors: Mapping[str, torch.Tensor], blocks: int = 4, prefix: str = "") -> Tensors:
    """Tensors of diffusers' names as the original code names and shapes them."""
    made = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if rest.startswith("mid_block.attentions.0."):
            inner, _, kind = rest.removeprefix("mid_block.attentions.0.").rpartition(".")
            rest = f"mid.attn_1.{INNER[inner]}.{kind}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        elif rest.startswith("mid_block.resnets."):
            rest = rest.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        elif rest.startswith(("down_blocks.", "up_blocks.")):
            way, number, *others = rest.split(".")
            index = int(number) if way == "down_blocks" else blocks - 1 - int(number)
            rest = ".".join((way.removesuffix("_blocks"), str(index), *others))
            rest = rest.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
            rest = rest.replace("resnets", "block")
        rest = rest.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        made[f"{prefix}{part}.{rest}"] = tensor
    return made


def mapped(tensors: Tensors, blocks: int = 4) -> Tensors:
    made = plan(rules(blocks), tensors)
    assert made.shapes(lambda name: tuple(tensors[name].shape)).keys() == made.recipes.keys()
    return {name: recipe.make(tensors.__getitem__) for name, recipe in made.recipes.items()}


def same(given: Tensors, expected: Tensors) -> None:
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("values", [FLUX, STABLE_DIFFUSION])
@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_original_names_become_what_the_converter_of_diffusers_makes(
    values: dict[str, Any], prefix: str, reference: Make
) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    model = reference(values)
    tensors = original(model.state_dict(), prefix=prefix)
    expected = convert_ldm_vae_checkpoint(dict(tensors), model.config)
    same(mapped(tensors), expected)
    same(expected, dict(model.state_dict()))


def test_another_number_of_resolutions_is_told(reference: Make) -> None:
    tensors = reference(WITHOUT_ATTENTION).state_dict()
    same(mapped(original(tensors, blocks=2), blocks=2), dict(tensors))


@pytest.mark.parametrize("values", [FLUX, STABLE_DIFFUSION, WITHOUT_ATTENTION])
def test_names_of_diffusers_stay(values: dict[str, Any], reference: Make) -> None:
    tensors = dict(reference(values).state_dict())
    same(mapped(tensors), tensors)
    same(mapped({f"vae.{name}": tensor for name, tensor in tensors.items()}), tensors)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_the_first_names_of_diffusers_are_read(shape: tuple[int, ...], reference: Make) -> None:
    tensors, old = dict(reference(FLUX).state_dict()), {}
    for name, tensor in tensors.items():
        for new, first in FIRST.items():
            if f".attentions.0.{new}." in name:
                name = name.replace(new, first)
                tensor = tensor.view(*tensor.shape, *shape) if tensor.ndim == 2 else tensor
        old[name] = tensor
    assert any("proj_attn" in name for name in old)
    same(mapped(old), tensors)


def test_what_training_leaves_is_dropped(reference: Make) -> None:
    tensors = dict(reference(STABLE_DIFFUSION).state_dict())
    left = {"loss.logvar": torch.zeros(()), "model_ema.num_updates": torch.zeros(())}
    same(mapped({**original(tensors), **left}), tensors)


def test_kernels_of_an_attention_that_see_more_than_a_pixel_are_refused() -> None:
    name = "decoder.mid.attn_1.q.weight"
    made = plan(rules(), [name])
    with pytest.raises(WeightMismatch, match="to_q"):
        made.shapes(lambda _: (8, 8, 3, 3))


@pytest.mark.parametrize("values", [AE, KL_F8])
@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_a_file_is_described(values: dict[str, Any], prefix: str, empty: Make) -> None:
    tensors = empty(values).state_dict()
    for named in (original(tensors, prefix=prefix), {prefix + name: tensor for name, tensor in tensors.items()}):
        told = describe({name: tuple(tensor.shape) for name, tensor in named.items()})
        assert told is not None
        expected = {key: value for key, value in values.items() if key != "sample_size"}
        flags = ("use_quant_conv", "use_post_quant_conv")
        assert told == {"act_fn": "silu", "mid_block_add_attention": True, **dict.fromkeys(flags, True), **expected}
        assert empty(told).state_dict().keys() == tensors.keys()


def test_an_autoencoder_without_attention_is_described(empty: Make) -> None:
    tensors = empty({**KL_F8, "mid_block_add_attention": False}).state_dict()
    told = describe({name: tuple(tensor.shape) for name, tensor in original(tensors).items()})
    assert told is not None
    assert told["mid_block_add_attention"] is False


def test_other_files_are_not_described(empty: Make) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in original(empty(AE).state_dict()).items()}
    assert describe({}) is None
    assert describe({"model.embed_tokens.weight": (8, 8)}) is None
    assert describe({**shapes, "double_blocks.0.img_attn.qkv.weight": (8, 8)}) is None
    assert describe({name: shape for name, shape in shapes.items() if name.startswith("decoder.")}) is None
    assert describe({name: shape for name, shape in shapes.items() if ".down.1." not in name}) is None
    assert describe({**shapes, "decoder.conv_in.weight": (128, 5, 3, 3)}) is None
    assert describe({**shapes, "decoder.conv_in.weight": ()}) is None


def test_the_record_and_the_description_import_no_torch() -> None:
    code = (
        "import sys, bestiary_autoencoder as plugin; plugin.bestiary_architectures(); plugin.describe({});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_record() -> None:
    (record,) = bestiary_autoencoder.bestiary_architectures()
    assert isinstance(record, Architecture)
    assert (record.name, record.task) == ("AutoencoderKL", "part")
