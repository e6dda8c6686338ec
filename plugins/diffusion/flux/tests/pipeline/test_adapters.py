"""LoRA adapters in every key style, against diffusers and against weights that they were merged into."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bestiary
from bestiary.diffusion.steps import noise_of
from bestiary.errors import CheckpointError, OptionError, WeightMismatch
from bestiary_flux.tokens import pack

Make = Callable[..., tuple[Path, Any]]
OURS: dict[str, Any] = {"height": 32, "width": 48, "steps": 2, "max_sequence_length": 16, "seed": 3, "output": "latent"}
THEIRS = {"height": 32, "width": 48, "num_inference_steps": 2, "max_sequence_length": 16, "output_type": "latent"}
DIM, RANK = 32, 3
DOUBLE, SINGLE = "transformer_blocks.0", "single_transformer_blocks.1"
LAYERS = {  # our layers: [out, in]
    f"{DOUBLE}.attn.to_q": (DIM, DIM),
    f"{DOUBLE}.attn.add_v_proj": (DIM, DIM),
    f"{DOUBLE}.ff.net.2": (DIM, 4 * DIM),
    f"{DOUBLE}.norm1.linear": (6 * DIM, DIM),
    f"{SINGLE}.attn.to_k": (DIM, DIM),
    f"{SINGLE}.proj_out": (DIM, 5 * DIM),
    "x_embedder": (DIM, 16),
}


def pair(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(RANK, columns, generator=generator) * 0.3, torch.randn(rows, RANK, generator=generator) * 0.3


def diffusers_style(prefix: str = "transformer.", down: str = "lora_A", up: str = "lora_B") -> dict[str, torch.Tensor]:
    made = {}
    for seed, (path, shape) in enumerate(LAYERS.items()):
        a, b = pair(*shape, seed)
        made[f"{prefix}{path}.{down}.weight"], made[f"{prefix}{path}.{up}.weight"] = a, b
    return made


def flat(name: str) -> str:
    path, *rest = name.rsplit(".", 2)
    return ".".join([f"lora_unet_{path.replace('.', '_')}", *rest])


def load(folder: Path, **options: Any) -> Any:
    return bestiary.load(str(folder), device="cpu", progress=False, offline=True, **options)


def merged(folder: Path, to: Path, changes: dict[str, torch.Tensor]) -> Path:
    """The pipeline with changes added to its transformer's weights."""
    import shutil

    shutil.copytree(folder, to)
    file = to / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for path, change in changes.items():
        tensors[f"{path}.weight"] = tensors[f"{path}.weight"] + change
    save_file(tensors, file)
    return to


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    assert difference < 1e-5, difference


@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_an_adapter_is_that_of_diffusers(made: Make, tmp_path: Path, weight: float) -> None:
    folder, theirs = made(guidance=True)
    save_file(diffusers_style(), tmp_path / "pytorch_lora_weights.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.load_lora_weights(str(tmp_path), adapter_name="style")
        theirs.set_adapters(["style"], [weight])
        expected = theirs("a fox", latents=pack(noise_of(3, (4, 16, 24))), guidance_scale=3.5, **THEIRS).images
        theirs.unload_lora_weights()
    with load(folder, adapters={"style": str(tmp_path)}) as pipe:
        plain = pipe("a fox", **OURS)
        found = pipe("a fox", adapters={"style": weight}, **OURS)
        close(pack(found), expected)
        assert not torch.allclose(plain, found, atol=1e-3)
        assert torch.equal(pipe("a fox", **OURS), plain)  # it counts where it is named, and nowhere else
        assert torch.equal(pipe("a fox", adapters={"style": 0.0}, **OURS), plain)


@pytest.mark.parametrize("offload", ["parts", "layers"])
def test_an_adapter_stays_on_what_comes_and_goes(made: Make, tmp_path: Path, offload: str) -> None:
    folder, _ = made(guidance=True)
    save_file(diffusers_style(), tmp_path / "lora.safetensors")
    given = {"adapters": {"style": str(tmp_path / "lora.safetensors")}}
    with load(folder, **given) as resident, load(folder, offload=offload, **given) as pipe:
        for prompt in ("a fox", "a circle"):
            one, other = (each(prompt, adapters=["style"], **OURS) for each in (resident, pipe))
            assert torch.equal(one, other)


def test_several_at_once_add_up(made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = pair(DIM, DIM, 1), pair(DIM, DIM, 2)
    for name, (a, b) in (("one", first), ("two", second)):
        path = f"transformer.{DOUBLE}.attn.to_q"
        save_file({f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}, tmp_path / name / "x.safetensors")
    change = 0.5 * first[1] @ first[0] - 2.0 * second[1] @ second[0]
    whole = merged(folder, tmp_path / "merged", {f"{DOUBLE}.attn.to_q": change})
    adapters = {name: str(tmp_path / name) for name in ("one", "two")}
    with load(folder, adapters=adapters) as pipe, load(whole) as reference:
        assert pipe.adapters == ("one", "two")
        close(pipe("a fox", adapters={"one": 0.5, "two": -2.0}, **OURS), reference("a fox", **OURS))


@pytest.mark.parametrize(
    "style",
    [
        pytest.param(lambda: diffusers_style("diffusion_model.", "lora_down", "lora_up"), id="comfyui"),
        pytest.param(lambda: diffusers_style("transformer.", "lora.down", "lora.up"), id="older diffusers"),
        pytest.param(
            lambda: {flat(name): tensor for name, tensor in diffusers_style("", "lora_down", "lora_up").items()},
            id="kohya with our names",
        ),
    ],
)
def test_other_spellings_are_the_same(made: Make, tmp_path: Path, style: Callable[[], dict[str, torch.Tensor]]) -> None:
    folder, _ = made()
    for name, tensors in (("one", diffusers_style()), ("two", style())):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "lora.safetensors")
    with load(folder, adapters={name: str(tmp_path / name) for name in ("one", "two")}) as pipe:
        one, two = (pipe("a fox", adapters=[name], **OURS) for name in ("one", "two"))
    assert torch.equal(one, two)


def test_peft_with_its_configuration(made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    save_file(diffusers_style("base_model.model."), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": list(LAYERS)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    changes = {path: 2.0 * b @ a for seed, (path, shape) in enumerate(LAYERS.items()) for a, b in [pair(*shape, seed)]}
    whole = merged(folder, tmp_path / "merged", changes)
    with load(folder, adapters={"style": str(tmp_path)}) as pipe, load(whole) as reference:
        close(pipe("a fox", adapters=["style"], **OURS), reference("a fox", **OURS))


def test_kohya_with_the_names_of_the_original_release(made: Make, tmp_path: Path) -> None:
    """Fused there: one A for queries, keys and values, parts of B below each other; alpha over rank counts."""
    folder, _ = made()
    (qa, qb), (la, lb), (fa, fb) = pair(3 * DIM, DIM, 1), pair(7 * DIM, DIM, 2), pair(2 * DIM, DIM, 3)
    tensors = {}
    for name, (a, b) in {
        "double_blocks_0_img_attn_qkv": (qa, qb),
        "single_blocks_1_linear1": (la, lb),
        "final_layer_adaLN_modulation_1": (fa, fb),
    }.items():
        tensors[f"lora_unet_{name}.lora_down.weight"], tensors[f"lora_unet_{name}.lora_up.weight"] = a, b
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(1.5)
    save_file(tensors, tmp_path / "kohya.safetensors")
    scale = 1.5 / RANK
    (q, k, v), first = (scale * qb @ qa).split(DIM), scale * lb @ la
    shift, factor = (scale * fb @ fa).split(DIM)
    changes = {
        **{f"{DOUBLE}.attn.to_{name}": change for name, change in zip("qkv", (q, k, v), strict=True)},
        **{f"{SINGLE}.attn.to_{name}": first[place * DIM :][:DIM] for place, name in enumerate("qkv")},
        f"{SINGLE}.proj_mlp": first[3 * DIM :],
        "norm_out.linear": torch.cat((factor, shift)),
    }
    whole = merged(folder, tmp_path / "merged", changes)
    with load(folder, adapters={"style": str(tmp_path / "kohya.safetensors")}) as pipe, load(whole) as reference:
        close(pipe("a fox", adapters=["style"], **OURS), reference("a fox", **OURS))


def test_the_text_encoder_is_changed_too(made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    a, b = pair(32, 32, 1)
    path = "text_model.encoder.layers.0.self_attn.q_proj"
    for name, prefix, parts in (
        ("dotted", f"text_encoder.{path}", ("lora_A", "lora_B")),
        ("flat", f"lora_te1_{path.replace('.', '_')}", ("lora_down", "lora_up")),
    ):
        (tmp_path / name).mkdir()
        tensors = {f"{prefix}.{part}.weight": tensor for part, tensor in zip(parts, (a, b), strict=True)}
        save_file(tensors, tmp_path / name / "lora.safetensors")
    with load(folder, adapters={name: str(tmp_path / name) for name in ("dotted", "flat")}) as pipe:
        plain, one, two = (pipe("a fox", adapters=given, **OURS) for given in (None, ["dotted"], ["flat"]))
        assert torch.equal(pipe("a fox", **OURS), plain)
    assert torch.equal(one, two) and not torch.equal(one, plain)


Q = f"transformer.{DOUBLE}.attn.to_q"
OTHER = "lora_unet_input_blocks_1"


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({f"{Q}.lora_A": (3, 32)}, CheckpointError, "no up"),
        ({f"{OTHER}.lora_down": (3, 8), f"{OTHER}.lora_up": (8, 3)}, WeightMismatch, "no layer input_blocks_1"),
        ({f"{Q}.lora_A": (3, 64), f"{Q}.lora_B": (64, 3)}, WeightMismatch, r"is for a weight \[64, 64\]"),
        ({f"{Q}.lora_A": (3, 32), f"{Q}.lora_B": (32, 4)}, CheckpointError, "no LoRA"),
        ({"transformer.proj_out.diff": (3,)}, CheckpointError, "no part of a LoRA"),
        ({"te.x.lora_A": (3, 32), "te.x.lora_B": (32, 3)}, WeightMismatch, "no layer te.x"),
    ],
)
def test_what_does_not_fit(
    made: Make, tmp_path: Path, tensors: dict[str, tuple[int, ...]], error: type[Exception], message: str
) -> None:
    folder, _ = made()
    save_file({f"{name}.weight": torch.ones(shape) for name, shape in tensors.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(error, match=message):
        load(folder, adapters={"style": str(tmp_path)})


def test_values_that_are_no_numbers(made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    tensors = diffusers_style()
    tensors[next(iter(tensors))][0, 0] = float("nan")
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        load(folder, adapters={"style": str(tmp_path)})


def test_an_unknown_adapter_is_told_with_those_that_are_there(made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    save_file(diffusers_style(), tmp_path / "lora.safetensors")
    with load(folder, adapters={"style": str(tmp_path)}) as pipe:
        with pytest.raises(OptionError, match="No adapter is called 'stile'"):
            pipe("a fox", adapters=["stile"], **OURS)
        with pytest.raises(OptionError, match="weight of the adapter style"):
            pipe("a fox", adapters={"style": float("inf")}, **OURS)
