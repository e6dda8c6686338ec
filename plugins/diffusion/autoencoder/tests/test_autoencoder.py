"""The autoencoder against diffusers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.errors import MediaError, OptionError, RequestError
from bestiary_autoencoder import norm
from bestiary_autoencoder.tiny import CONFIGS, FLUX, ONE_RESOLUTION, STABLE_DIFFUSION, WITHOUT_ATTENTION

Make = Callable[..., Any]


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(given: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert given.shape == expected.shape
    torch.testing.assert_close(given, expected, rtol=0.0, atol=1e-5 * float(expected.abs().max()))


def each(values: list[float] | None, otherwise: float) -> torch.Tensor:
    return torch.tensor(values if values is not None else [otherwise]).view(1, -1, 1, 1)


def scaled(values: dict[str, Any], latents: torch.Tensor) -> torch.Tensor:
    """As the pipelines of diffusers do it."""
    shift = each(values.get("latents_mean"), values.get("shift_factor") or 0.0)
    return (latents - shift) * values.get("scaling_factor", 0.18215) / each(values.get("latents_std"), 1.0)


def unscaled(values: dict[str, Any], latents: torch.Tensor) -> torch.Tensor:
    shift = each(values.get("latents_mean"), values.get("shift_factor") or 0.0)
    return latents * each(values.get("latents_std"), 1.0) / values.get("scaling_factor", 0.18215) + shift


@pytest.fixture(params=[1, norm._STRIP], ids=["strips", "whole"])
def strip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny pictures are one strip; here also as many strips as they have rows."""
    monkeypatch.setattr(norm, "_STRIP", request.param)


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("size", [(2, 24, 32), (1, 27, 41)])
def test_latents_are_those_of_diffusers(
    values: dict[str, Any], size: tuple[int, int, int], reference: Make, ours: Make
) -> None:
    model = reference(values)
    made, pixels = ours(values, model), numbers(size[0], 3, *size[1:])
    with torch.no_grad():
        distribution = model.encode(pixels).latent_dist
    close(made.encode(pixels), scaled(values, distribution.mode()))
    noise = numbers(*distribution.mean.shape, seed=2)
    close(made.encode(pixels, noise), scaled(values, distribution.mean + distribution.std * noise))


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("size", [(2, 3, 4), (1, 5, 1)])
def test_pixels_are_those_of_diffusers(
    values: dict[str, Any], size: tuple[int, int, int], reference: Make, ours: Make
) -> None:
    model = reference(values)
    made, latents = ours(values, model), numbers(size[0], values["latent_channels"], *size[1:])
    with torch.no_grad():
        expected = model.decode(unscaled(values, latents)).sample
    close(made.decode(latents), expected)


@pytest.mark.parametrize("values", [FLUX, WITHOUT_ATTENTION, ONE_RESOLUTION])
@pytest.mark.parametrize("size", [(2, 17, 12), (1, 5, 20), (1, 9, 10)])
def test_tiles_are_those_of_diffusers(
    values: dict[str, Any], size: tuple[int, int, int], reference: Make, ours: Make
) -> None:
    tile = 8
    model = reference(values)
    made = ours(values, model)
    model.enable_tiling()
    model.tile_latent_min_size, model.tile_sample_min_size = tile, tile * made.factor
    latents = numbers(size[0], values["latent_channels"], *size[1:])
    with torch.no_grad():
        expected = model.decode(unscaled(values, latents)).sample
    close(made.decode(latents, tile), expected)
    pixels = numbers(size[0], 3, size[1] * made.factor, size[2] * made.factor)
    with torch.no_grad():
        distribution = model.encode(pixels).latent_dist
    close(made.encode(pixels, tile=tile), scaled(values, distribution.mode()))


def test_a_picture_of_one_tile_is_whole(reference: Make, ours: Make) -> None:
    made = ours(FLUX, reference(FLUX))
    latents = numbers(1, 16, 8, 5)
    assert torch.equal(made.decode(latents, 8), made.decode(latents))
    pixels = numbers(1, 3, 64, 40)
    assert torch.equal(made.encode(pixels, tile=8), made.encode(pixels))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_fewer_bits_are_nearer_to_the_truth_than_those_of_diffusers(
    kind: torch.dtype, reference: Make, ours: Make
) -> None:
    model = reference(FLUX).to(kind)
    made, truth = ours(FLUX, model), ours(FLUX, model.float())
    model.to(kind)
    latents, pixels = numbers(1, 16, 3, 4).to(kind), numbers(1, 3, 24, 32).to(kind)
    with torch.no_grad():
        decoded = model.decode(unscaled(FLUX, latents).to(kind)).sample.float()
        encoded = scaled(FLUX, model.encode(pixels).latent_dist.mode().float())
    for given, theirs, true in (
        (made.decode(latents), decoded, truth.decode(latents)),
        (made.encode(pixels), encoded, truth.encode(pixels)),
    ):
        assert given.dtype == torch.float32
        assert float((given - true).norm()) < float((theirs - true).norm())
    assert next(made.parameters()).dtype == kind


def test_a_batch_gives_what_each_picture_gives(reference: Make, ours: Make) -> None:
    made = ours(STABLE_DIFFUSION, reference(STABLE_DIFFUSION))
    latents, pixels = numbers(3, 4, 3, 4), numbers(3, 3, 24, 32)
    assert torch.equal(made.decode(latents), torch.cat([made.decode(one) for one in latents.split(1)]))
    assert torch.equal(made.encode(pixels), torch.cat([made.encode(one) for one in pixels.split(1)]))


def test_blocks_take_batches(reference: Make, ours: Make) -> None:
    model = reference(STABLE_DIFFUSION)
    made, latents = ours(STABLE_DIFFUSION, model), numbers(2, 4, 3, 4)
    with torch.no_grad():
        close(made.decoder(latents), model.decoder(latents))


@pytest.mark.parametrize("values", [ONE_RESOLUTION, FLUX])
def test_what_is_given_and_the_weights_stay(values: dict[str, Any], reference: Make, ours: Make) -> None:
    made = ours(values, reference(values))
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    channels = values["latent_channels"]
    layout = torch.channels_last
    latents = numbers(1, channels, 3, 4).contiguous(memory_format=layout)
    pixels = numbers(1, 3, 24, 32).contiguous(memory_format=layout)
    before = latents.clone(), pixels.clone()
    made.decode(latents)
    made.encode(pixels)
    assert torch.equal(latents, before[0])
    assert torch.equal(pixels, before[1])
    assert all(torch.equal(weight, weights[name]) for name, weight in made.state_dict().items())


@pytest.mark.parametrize("values", CONFIGS)
def test_parameters_are_those_of_diffusers(values: dict[str, Any], reference: Make, empty: Make) -> None:
    made, model = empty(values).state_dict(), reference(values).state_dict()
    assert {name: weight.shape for name, weight in made.items()} == {name: w.shape for name, w in model.items()}
    assert all(weight.is_meta for weight in made.values())


def test_nothing_is_kept_beside_the_parameters(empty: Make) -> None:
    assert not list(empty(ONE_RESOLUTION).buffers())


def test_sizes_are_told(empty: Make) -> None:
    made = empty(FLUX)
    assert (made.factor, made.latent_channels) == (8, 16)


@pytest.mark.parametrize("shape", [(1, 4, 24, 32), (3, 24, 32), (1, 3, 7, 32)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...], empty: Make) -> None:
    with pytest.raises(MediaError, match=r"\[B, 3, H, W\] of at least 8 x 8 pixels is due"):
        empty(FLUX).encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 4, 3, 4), (16, 3, 4), (1, 16, 0, 4)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...], empty: Make) -> None:
    with pytest.raises(RequestError, match=r"\[B, 16, H, W\] is due"):
        empty(FLUX).decode(torch.zeros(shape))


def test_noise_of_another_shape_is_refused(empty: Make) -> None:
    with pytest.raises(RequestError, match=r"\[1, 16, 3, 5\] came; \[1, 16, 3, 4\] is due"):
        empty(FLUX).encode(torch.zeros(1, 3, 24, 32), torch.zeros(1, 16, 3, 5))


@pytest.mark.parametrize("tile", [0, -4, 6, True, "8", 8.0, 1 << 20])
def test_tiles_that_cannot_be_are_refused(tile: Any, empty: Make) -> None:
    with pytest.raises(OptionError, match="a multiple of 4"):
        empty(FLUX).decode(torch.zeros(1, 16, 3, 4), tile)
    with pytest.raises(OptionError, match="a multiple of 4"):
        empty(FLUX).encode(torch.zeros(1, 3, 24, 32), tile=tile)
