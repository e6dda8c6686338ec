"""The whole pipeline against diffusers, on the same noise."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bestiary
from bestiary.diffusion.steps import ENCODING, noise_of
from bestiary.errors import ConfigError, ModelNotFound, OptionError, OutOfMemory, RequestError
from bestiary_flux.tokens import pack

Make = Callable[..., tuple[Path, Any]]
SIZE = {"height": 32, "width": 48}
OURS: dict[str, Any] = {**SIZE, "steps": 4, "max_sequence_length": 16}
THEIRS: dict[str, Any] = {**SIZE, "num_inference_steps": 4, "max_sequence_length": 16, "guidance_scale": 3.5}
DEV = {"guidance": True, "scheduler": {"use_dynamic_shifting": True, "shift": 3.0}}
KINDS = [pytest.param(DEV, id="dev"), pytest.param({}, id="schnell")]
SHAPE = (4, 16, 24)


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def noise(*seeds: int) -> torch.Tensor:
    return torch.cat([pack(noise_of(seed, SHAPE)) for seed in seeds])


def load(folder: Path, **options: Any) -> Any:
    return bestiary.load(str(folder), device="cpu", progress=False, offline=True, **options)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    difference = float((pack(ours) - theirs).abs().max() / theirs.abs().max())
    assert difference < 1e-5, difference


def drawn(kind: int) -> Image.Image:
    pixels = np.random.default_rng(kind).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(pixels).resize((48, 32), Image.Resampling.BICUBIC)


# Text to image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"negative": "blue", "scale": 3.0}], ids=["plain", "true_cfg"])
def test_latents_and_pictures_are_those_of_diffusers(made: Make, kind: dict[str, Any], more: dict[str, Any]) -> None:
    folder, theirs = made(**kind)
    others = {"negative_prompt": more["negative"], "true_cfg_scale": more["scale"]} if more else {}
    own = {"negative_prompt": more["negative"], "true_cfg": more["scale"]} if more else {}
    with quiet():
        latents = theirs("a red fox", latents=noise(7), output_type="latent", **THEIRS, **others).images
        picture = theirs("a red fox", latents=noise(7), output_type="np", **THEIRS, **others).images[0]
    with load(folder) as pipe:
        close(pipe("a red fox", seed=7, output="latent", **OURS, **own), latents)
        image = pipe("a red fox", seed=7, **OURS, **own)
    assert image.size == (48, 32)
    assert np.abs(np.asarray(image) - picture * 255).max() <= 1


def test_guidance_and_another_text_for_the_second_encoder(made: Make) -> None:
    folder, theirs = made(**DEV)
    with quiet():
        expected = theirs(
            "a red fox", "green circle", latents=noise(1), output_type="latent", **{**THEIRS, "guidance_scale": 7.0}
        ).images
    with load(folder) as pipe:
        found = pipe("a red fox", prompt_2="green circle", guidance=7.0, seed=1, output="latent", **OURS)
    close(found, expected)


def test_prompts_that_are_too_long_are_cut_as_diffusers_does(made: Make, caplog: pytest.LogCaptureFixture) -> None:
    folder, theirs = made()
    prompt = "a red fox on a green square no blue circle " * 4
    with quiet():
        expected = theirs(prompt, latents=noise(1), output_type="latent", **THEIRS).images
    with load(folder) as pipe:
        close(pipe(prompt, seed=1, output="latent", **OURS), expected)
    assert "the rest is cut" in caplog.text


def test_a_seed_gives_a_picture_whatever_is_beside_it(made: Make) -> None:
    folder, _ = made()
    with load(folder) as pipe:
        alone = pipe("a red fox", seed=5, **OURS)
        several = pipe(["a green square", "a red fox"], seed=[1, 5], **OURS)
        row = pipe("a red fox", seed=3, n=3, **OURS)
        assert len(several) == 2 and len(row) == 3
        for found in (several[1], row[2]):
            assert np.array_equal(np.asarray(found), np.asarray(alone))
        assert not np.array_equal(np.asarray(row[0]), np.asarray(alone))
        assert [image.info["seed"] for image in row] == ["3", "4", "5"]
        again = pipe("a red fox", **OURS)
        seed = int(again.info["seed"])
        assert np.array_equal(np.asarray(again), np.asarray(pipe("a red fox", seed=seed, **OURS)))


def test_latents_in_and_a_condition_in_place_of_a_text(made: Make) -> None:
    folder, _ = made()
    with load(folder) as pipe:
        expected = pipe("a red fox", seed=5, output="latent", **OURS)
        told = pipe.condition("a red fox", max_sequence_length=16)
        assert torch.equal(pipe(told, latents=noise_of(5, SHAPE), output="latent", **OURS), expected)
        assert pipe(told, seed=5, **OURS).size == (48, 32)


def test_steps_are_told_and_can_be_looked_at(made: Make) -> None:
    folder, _ = made()
    seen: list[Any] = []
    events: list[Any] = []
    with load(folder) as pipe:
        image = pipe("a red fox", n=2, seed=1, callback=seen.append, progress=events.append, **OURS)
        assert [(step.picture, step.number, step.of) for step in seen] == [
            (p, s, 4) for p in (0, 1) for s in (1, 2, 3, 4)
        ]
        assert np.array_equal(np.asarray(seen[-1].preview()), np.asarray(image[1]))
    steps = [(event.done, event.total) for event in events if event.stage == "steps"]
    assert steps == [(done, 8) for done in range(1, 9)]


# Pictures in


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_image_to_image(made: Make, kind: dict[str, Any], strength: float) -> None:
    from diffusers import FluxImg2ImgPipeline

    folder, whole = made(**kind)
    theirs = FluxImg2ImgPipeline(**whole.components)
    theirs.set_progress_bar_config(disable=True)
    with load(folder) as pipe, _same_noise(theirs, 3):
        found = pipe("a red fox", image=drawn(1), strength=strength, seed=3, output="latent", **OURS)
        expected = theirs("a red fox", image=drawn(1), strength=strength, output_type="latent", **THEIRS).images
    close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting(made: Make, kind: dict[str, Any]) -> None:
    from diffusers import FluxInpaintPipeline

    folder, whole = made(**kind)
    theirs = FluxInpaintPipeline(**whole.components)
    theirs.set_progress_bar_config(disable=True)
    mask = Image.new("L", (48, 32))
    mask.paste(255, (10, 6, 30, 22))
    with load(folder) as pipe, _same_noise(theirs, 3):
        found = pipe("a red fox", image=drawn(1), mask=mask, strength=0.8, seed=3, output="latent", **OURS)
        expected = theirs(
            "a red fox", image=drawn(1), mask_image=mask, strength=0.8, output_type="latent", **THEIRS
        ).images
        kept = pipe._painter.encode(_pixels(drawn(1)), noise_of(3, SHAPE, ENCODING))
    close(found, expected)
    assert torch.allclose(found[..., 14:, :], kept[..., 14:, :], atol=1e-5)


def _pixels(image: Image.Image) -> torch.Tensor:
    from bestiary.media.pixels import pixels_of

    return pixels_of(image, image.height, image.width)


@contextmanager
def _same_noise(theirs: Any, seed: int) -> Iterator[None]:
    """Diffusers is given our noise, both of the autoencoder and of the steps."""
    import importlib

    from diffusers.models.autoencoders import vae

    module = importlib.import_module(type(theirs).__module__)
    own = {(2, *SHAPE): None, (1, *SHAPE): noise_of(seed, SHAPE)}
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.setattr(module, "randn_tensor", lambda shape, **_: own[tuple(shape)])
        patch.setattr(vae, "randn_tensor", lambda shape, **_: noise_of(seed, SHAPE, ENCODING))
        yield


def test_kontext_goes_by_a_reference(made: Make) -> None:
    from diffusers import FluxKontextPipeline

    folder, whole = made(**DEV)
    theirs = FluxKontextPipeline(**whole.components)
    theirs.set_progress_bar_config(disable=True)
    with load(folder) as pipe, quiet():
        found = pipe("a red fox", reference=drawn(1), seed=3, output="latent", **OURS)
        expected = theirs(
            drawn(1),
            "a red fox",
            latents=noise(3),
            output_type="latent",
            max_area=32 * 48,
            _auto_resize=False,
            **THEIRS,
        ).images
    close(found, expected)


def test_a_model_with_a_control(made: Make) -> None:
    from diffusers import FluxControlPipeline

    folder, whole = made(**DEV, channels=32, out=16)
    components = {
        name: part for name, part in whole.components.items() if name not in ("image_encoder", "feature_extractor")
    }
    theirs = FluxControlPipeline(**components)
    theirs.set_progress_bar_config(disable=True)
    theirs.vae.register_to_config(scaling_factor=theirs.vae.config.scaling_factor)
    with load(folder) as pipe, quiet(), pytest.MonkeyPatch.context() as patch:
        from diffusers.models.autoencoders import vae

        patch.setattr(vae.DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
        found = pipe("a red fox", control=drawn(1), guidance=10.0, seed=3, output="latent", **OURS)
        expected = theirs(
            "a red fox",
            control_image=drawn(1),
            latents=noise(3),
            output_type="latent",
            **{**THEIRS, "guidance_scale": 10.0},
        ).images
    close(found, expected)
    with load(folder) as pipe, pytest.raises(OptionError, match="needs a picture as control"):
        pipe("a red fox", **OURS)


def test_a_model_that_fills(made: Make) -> None:
    from diffusers import FluxFillPipeline

    folder, whole = made(**DEV, channels=2 * 16 + 4 * 4, out=16)
    components = {
        name: part for name, part in whole.components.items() if name not in ("image_encoder", "feature_extractor")
    }
    theirs = FluxFillPipeline(**components)
    theirs.set_progress_bar_config(disable=True)
    mask = Image.new("L", (48, 32))
    mask.paste(255, (10, 6, 30, 22))
    with load(folder) as pipe, quiet(), pytest.MonkeyPatch.context() as patch:
        from diffusers.models.autoencoders import vae

        patch.setattr(vae.DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
        found = pipe("a red fox", image=drawn(1), mask=mask, guidance=30.0, seed=3, output="latent", **OURS)
        expected = theirs(
            "a red fox",
            image=drawn(1),
            mask_image=mask,
            latents=noise(3),
            output_type="latent",
            **{**THEIRS, "guidance_scale": 30.0},
        ).images
    close(found, expected)


# Schedulers


@pytest.mark.parametrize("name", ["flow_match_heun", "dpmpp_2m", "unipc"])
def test_other_schedulers_run(made: Make, name: str) -> None:
    folder, _ = made()
    with load(folder) as pipe:
        usual = pipe("a red fox", seed=1, output="latent", **OURS)
        other = pipe("a red fox", seed=1, output="latent", scheduler=name, **OURS)
    assert bool(other.isfinite().all()) and not torch.allclose(usual, other, atol=1e-3)


def test_dpm_solver_is_that_of_diffusers(made: Make) -> None:
    from diffusers import DPMSolverMultistepScheduler, FluxPipeline

    folder, whole = made()
    settings = {
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "use_dynamic_shifting": True,
        "time_shift_type": "exponential",
    }
    theirs = FluxPipeline(**{**whole.components, "scheduler": DPMSolverMultistepScheduler(**settings)})
    theirs.set_progress_bar_config(disable=True)
    with quiet():
        expected = theirs("a red fox", latents=noise(3), output_type="latent", **THEIRS).images
    with load(folder) as pipe:
        config = {"_class_name": "DPMSolverMultistepScheduler", **settings}
        close(pipe("a red fox", seed=3, output="latent", scheduler=config, **OURS), expected)


# Memory


@pytest.mark.parametrize("offload", ["parts", "layers"])
def test_what_is_offloaded_computes_the_same(made: Make, offload: str) -> None:
    folder, _ = made(**DEV)
    with load(folder) as resident, load(folder, offload=offload) as pipe:
        for prompt in ("a red fox", "a green square"):
            ours, theirs = (each(prompt, seed=2, output="latent", **OURS) for each in (pipe, resident))
            assert torch.equal(ours, theirs)
        assert pipe.nbytes < resident.nbytes
        assert np.array_equal(
            *(np.asarray(each("a red fox", image=drawn(1), seed=2, **OURS)) for each in (pipe, resident))
        )


def test_the_text_encoder_leaves_before_the_denoiser_comes(made: Make) -> None:
    folder, _ = made(**DEV)
    here: list[set[str]] = []
    with load(folder, offload="parts") as pipe:
        for prompt in ("a red fox", "a green square"):
            pipe(prompt, seed=2, callback=lambda _: here.append(set(pipe._parts._here)), **OURS)
    assert len(here) == 8
    assert all("transformer" in each and "text_encoder_2" not in each for each in here)


def test_a_preview_leaves_the_denoiser_where_it_is(made: Make) -> None:
    folder, _ = made(**DEV)
    with load(folder) as resident, load(folder, offload="parts") as pipe:
        seen: list[Any] = []
        for each in (resident, pipe):
            each("a red fox", seed=2, callback=lambda step: seen.append(np.asarray(step.preview())), **OURS)
    assert all(np.array_equal(one, other) for one, other in zip(seen[:4], seen[4:], strict=True))


def test_a_tile_bounds_what_the_autoencoder_sees(made: Make) -> None:
    folder, _ = made()
    big = {**OURS, "height": 160, "width": 128}
    with load(folder) as whole, load(folder, tile=64) as pipe:
        one, other = (np.asarray(each("a fox", seed=1, **big), dtype=float) for each in (pipe, whole))
    assert one.shape == other.shape == (160, 128, 3)
    assert 0 < np.abs(one - other).mean() < 30  # near, and not the same: a tile does not see the rest


@pytest.mark.parametrize("quant", ["q8_0", {"transformer": "q8_0"}])
def test_weights_are_packed(made: Make, quant: Any) -> None:
    folder, _ = made()
    with load(folder) as plain, load(folder, quant=quant) as pipe:
        packed = {name.partition(".")[0] for name in pipe.packing}
        assert packed == ({"transformer"} if isinstance(quant, dict) else {"transformer", "text_encoder_2"})
        one, other = (each("a red fox", seed=1, output="latent", **OURS) for each in (plain, pipe))
    assert 0 < float((one - other).norm() / one.norm()) < 0.1


@pytest.mark.parametrize("quant", ["q4k", "q6k", "iq4_nl", "mxfp4", "afq6", "hqq8", "fp8", "int8", 5])
def test_every_kind_of_packing_serves(made: Make, quant: str | int) -> None:
    folder, _ = made(guidance=True, head=128)
    with load(folder) as plain, load(folder, quant=quant) as pipe:
        assert any(name.startswith("transformer.") and each.scheme for name, each in pipe.packing.items())
        one, other = (each("a red fox", seed=1, output="latent", **OURS) for each in (plain, pipe))
    assert 0 < float((one - other).norm() / one.norm()) < 0.15


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 30}, "height is 30; a multiple of 4 is due"),
        ({"width": 0}, "width is 0"),
        ({"width": 10**9}, "width is 1000000000"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": True}, "steps is True"),
        ({"n": 0}, "n is 0"),
        ({"seed": [1, 2]}, "seed is"),
        ({"seed": -1}, "seed is -1"),
        ({"strenght": 0.3}, 'no option "strenght"'),
        ({"guidance": 3.0}, "takes no guidance"),
        ({"negative_prompt": "blue"}, "true_cfg above 1"),
        ({"true_cfg": float("nan")}, "true_cfg is nan"),
        ({"mask": "m.png"}, "a mask and no image"),
        ({"control": "c.png"}, "takes no control"),
        ({"max_sequence_length": 10_000}, "max_sequence_length is 10000"),
        ({"output": "np"}, "output is 'np'"),
        ({"scheduler": "ddim"}, "DDIMScheduler is for models that predict noise"),
        ({"scheduler": "eulr"}, "eulr"),
        ({"adapters": ["style"]}, "No adapter is called 'style'"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, "latents have the shape"),
        ({"steps": 4, "sigmas": [1.0, 0.5]}, "Both steps and sigmas"),
    ],
)
def test_options_that_cannot_be(made: Make, options: dict[str, Any], message: str) -> None:
    folder, _ = made()
    with load(folder) as pipe, pytest.raises(OptionError, match=message):
        pipe("a red fox", **{**SIZE, "max_sequence_length": 16, **options})


@pytest.mark.parametrize("prompt", [[], 3, ["a", None], "a" * 200_000])
def test_prompts_that_cannot_be(made: Make, prompt: Any) -> None:
    folder, _ = made()
    with load(folder) as pipe, pytest.raises(RequestError):
        pipe(prompt, **OURS)


def test_a_closed_pipeline_says_so(made: Make) -> None:
    pipe = load(made()[0])
    pipe.close()
    with pytest.raises(RequestError, match="closed"):
        pipe("a red fox", **OURS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"offload": "disk"}, OptionError, "offload is \"?'disk'"),
        ({"offload": "layers", "quant": "q8_0"}, OptionError, "quant has no place"),
        ({"tile": 3}, OptionError, "tile is 3"),
        ({"parts": {"unet": "x"}}, OptionError, "no part 'unet'"),
        ({"parts": {"transformer": None}}, ModelNotFound, "transformer"),
        ({"quant": {"unet": "q8_0"}}, OptionError, "quant names the part 'unet'"),
        ({"parts": 3}, OptionError, "parts is 3"),
    ],
)
def test_loads_that_cannot_be(made: Make, options: dict[str, Any], error: type[Exception], message: str) -> None:
    folder, _ = made()
    with pytest.raises(error, match=message):
        load(folder, **options)


def test_a_missing_part_is_told_with_what_to_do(made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    for name in ("model_index.json", "transformer", "vae", "tokenizer", "text_encoder", "tokenizer_2", "scheduler"):
        copy = shutil.copy if (folder / name).is_file() else shutil.copytree
        copy(folder / name, tmp_path / name)
    with pytest.raises(ModelNotFound, match="needs the part text_encoder_2") as found:
        load(tmp_path)
    assert 'parts={"text_encoder_2"' in str(found.value)
    with load(tmp_path, parts={"text_encoder_2": str(folder / "text_encoder_2")}) as pipe:
        assert pipe("a red fox", seed=1, **OURS).size == (48, 32)
    with load(tmp_path, parts=str(folder)) as pipe:
        assert pipe("a red fox", seed=1, **OURS).size == (48, 32)
    with load(tmp_path, parts={"text_encoder_2": None, "tokenizer_2": None}) as pipe, pytest.raises(ModelNotFound):
        pipe("a red fox", **OURS)


def test_an_autoencoder_of_another_model_is_refused(made: Make) -> None:
    folder, _ = made(**DEV, channels=24)
    with pytest.raises(ConfigError, match="takes 24 channels"):
        load(folder)


def test_a_zoo_knows_what_it_takes(made: Make) -> None:
    folder, _ = made()
    with bestiary.Zoo({"paint": str(folder)}, memory="100 MB") as zoo:
        assert zoo.generate("a red fox", model="paint", seed=1, **OURS).size == (48, 32)
    with bestiary.Zoo({"paint": str(folder)}, memory="1 MB") as zoo, pytest.raises(OutOfMemory, match="weights need"):
        zoo.generate("a red fox", model="paint", seed=1, **OURS)
