"""Configurations, those of the hub and impossible ones."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import ConfigError
from bestiary_autoencoder.settings import DEFAULTS, read
from bestiary_autoencoder.tiny import FLUX

Make = Callable[..., Any]


def test_the_published_configuration_of_flux(shared_data: Path, empty: Make) -> None:
    config = json.loads((shared_data / "checkpoints/flux.1-schnell-bnb8/vae/config.json").read_text())
    settings = read(config)
    assert (settings.scale, settings.shift) == ((0.3611,), (0.1159,))
    made = empty(config)
    assert (made.factor, made.latent_channels) == (8, 16)
    assert sum(weight.numel() for weight in made.parameters()) == 83_819_683


def test_what_is_left_out_is_as_diffusers_has_it() -> None:
    from diffusers import AutoencoderKL

    signature = inspect.signature(AutoencoderKL.__init__)
    assert {key: signature.parameters[key].default for key in DEFAULTS} == DEFAULTS
    assert read({}) == read(dict.fromkeys(DEFAULTS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_out_channels": []},
        {"block_out_channels": [8] * 9},
        {"block_out_channels": 8},
        {"block_out_channels": [8, 16, 24, 0]},
        {"block_out_channels": [8, 16, 24, 30]},
        {"block_out_channels": [8, 16, 24, "24"]},
        {"block_out_channels": [8, 16, 24, 1 << 20]},
        {"norm_num_groups": 0},
        {"norm_num_groups": 3},
        {"norm_num_groups": True},
        {"layers_per_block": 0},
        {"layers_per_block": 1 << 20},
        {"latent_channels": -1},
        {"in_channels": 1.5},
        {"out_channels": "3"},
        {"act_fn": "gelu"},
        {"act_fn": 3},
        {"down_block_types": ["DownEncoderBlock2D"]},
        {"down_block_types": ["AttnDownEncoderBlock2D"] * 4},
        {"up_block_types": "UpDecoderBlock2D"},
        {"use_quant_conv": 1},
        {"mid_block_add_attention": "yes"},
        {"force_upcast": 0},
        {"scaling_factor": 0},
        {"scaling_factor": float("nan")},
        {"scaling_factor": "0.3611"},
        {"scaling_factor": 1 << 5000},
        {"shift_factor": True},
        {"shift_factor": None, "latents_std": [1.0] * 16, "latents_mean": [0.0]},
        {"shift_factor": None, "latents_mean": [0.0] * 16, "latents_std": [1.0] * 4},
        {"shift_factor": None, "latents_mean": [0.0] * 16, "latents_std": [0.0] * 16},
        {"latents_std": [1.0] * 16, "latents_mean": [0.0] * 16},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], empty: Make) -> None:
    with pytest.raises(ConfigError, match=next(iter(reversed(wrong)))) as caught:
        empty({**FLUX, **wrong})
    assert caught.value.where == "the test"
