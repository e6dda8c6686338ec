"""Configurations, those that were published and impossible ones."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bestiary.errors import ConfigError
from bestiary_dac.settings import DEFAULTS, read
from bestiary_dac.tiny import FOUR

Make = Callable[..., Any]
NAMES = {
    "sample_rate": "sampling_rate",
    "encoder_dim": "encoder_hidden_size",
    "encoder_rates": "downsampling_ratios",
    "decoder_dim": "decoder_hidden_size",
    "decoder_rates": "upsampling_ratios",
}


def published(path: Path) -> dict[str, Any]:
    """The settings of Descript's training by transformers' names."""
    yaml = pytest.importorskip("yaml")
    values = yaml.safe_load(path.read_text())
    own = {key.removeprefix("DAC."): value for key, value in values.items() if key.startswith("DAC.")}
    return {NAMES.get(key, key): value for key, value in own.items()}


@pytest.mark.parametrize(("name", "hop", "rate"), [("44khz", 512, 44100), ("24khz", 320, 24000)])
def test_the_published_configurations(name: str, hop: int, rate: int, shared_data: Path, empty: Make) -> None:
    from transformers import DacConfig, DacModel

    config = published(shared_data / f"checkpoints/dac/{name}.yml")
    made = empty(config)
    assert (made.hop_length, made.sampling_rate) == (hop, rate)
    with torch.device("meta"):
        model = DacModel(DacConfig(**{key: value for key, value in config.items() if key != "upsampling_ratios"}))
    shapes = {name: weight.shape for name, weight in made.named_parameters()}
    assert shapes == {name: weight.shape for name, weight in model.named_parameters()}


def test_what_is_left_out_is_as_transformers_has_it() -> None:
    from transformers import DacConfig

    config = DacConfig()
    assert {key: getattr(config, key) for key in DEFAULTS} == DEFAULTS
    settings = read({})
    assert settings == read(dict.fromkeys(DEFAULTS)) == read(config.to_dict())
    stated = ("hidden_size", "hop_length", "upsampling_ratios")
    assert {key: getattr(config, key) for key in stated} == {
        key: value for key, value in dataclasses.asdict(settings).items() if key in stated
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"downsampling_ratios": []},
        {"downsampling_ratios": [2] * 9},
        {"downsampling_ratios": 8},
        {"downsampling_ratios": "2488"},
        {"downsampling_ratios": [2, 4, 8, 0]},
        {"downsampling_ratios": [2, 4, 8, 1]},
        {"downsampling_ratios": [2, 4, 8, True]},
        {"downsampling_ratios": [2, 4, 8, 1 << 40]},
        {"upsampling_ratios": [8, 8, 4]},
        {"upsampling_ratios": [8, 8, 4, 2.0]},
        {"hop_length": 256},
        {"hop_length": -512},
        {"encoder_hidden_size": 0},
        {"encoder_hidden_size": 1 << 20},
        {"decoder_hidden_size": 24},
        {"decoder_hidden_size": 1.5},
        {"decoder_hidden_size": 1 << 5000},
        {"hidden_size": "64"},
        {"n_codebooks": 0},
        {"n_codebooks": 1 << 20},
        {"codebook_size": -1},
        {"codebook_dim": True},
        {"sampling_rate": float("nan")},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], empty: Make) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))) as caught:
        empty({**FOUR, **wrong})
    assert caught.value.where == "the test"
