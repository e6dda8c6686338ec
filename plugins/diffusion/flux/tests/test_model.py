"""The transformer of FLUX.1 against diffusers."""

from typing import Any

import pytest
import torch

from bestiary.config import Config
from bestiary.errors import ConfigError, OptionError
from bestiary.kernels import Wish, choose
from bestiary.nn.operations import fit
from bestiary.registry import default_registry
from bestiary_flux.model import FluxTransformer, build
from bestiary_flux.tiny import TRANSFORMER

FEW = TRANSFORMER[1]
"""Of the configurations, the one with a guidance."""
BATCH, ROWS, COLUMNS, TEXT = 2, 3, 4, 5


def reference(values: dict[str, Any]) -> Any:
    """diffusers' model with noise on every parameter: norms of one and biases of zero would hide a wrong one."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    known = {key: value for key, value in values.items() if not key.startswith("_")}
    model = FluxTransformer2DModel(**known).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def made_of(values: dict[str, Any], model: Any) -> FluxTransformer:
    with torch.device("meta"):
        made = build(Config(values, "the test"))
    made.load_state_dict(model.state_dict(), assign=True)
    return made.eval()


def inputs(values: dict[str, Any], batch: int = BATCH, pictures: int = 1) -> dict[str, Any]:
    """Arguments of `FluxTransformer.forward`; more than one picture is as Kontext has them."""
    torch.manual_seed(1)
    places = torch.cartesian_prod(torch.arange(pictures), torch.arange(ROWS), torch.arange(COLUMNS)).float()
    return {
        "latents": torch.randn(batch, len(places), values["in_channels"]),
        "states": torch.randn(batch, TEXT, values["joint_attention_dim"]),
        "pooled": torch.randn(batch, values["pooled_projection_dim"]),
        "timestep": torch.rand(batch),
        "guidance": 1 + 3 * torch.rand(batch) if values["guidance_embeds"] else None,
        "positions": places,
    }


def expected(model: Any, given: dict[str, Any]) -> torch.Tensor:
    made: torch.Tensor = model(
        hidden_states=given["latents"],
        encoder_hidden_states=given["states"],
        pooled_projections=given["pooled"],
        timestep=given["timestep"],
        guidance=given["guidance"],
        img_ids=given["positions"],
        txt_ids=torch.zeros(given["states"].shape[1], 3),
        return_dict=False,
    )[0]
    return made


def assert_near(made: torch.Tensor, wanted: torch.Tensor, share: float = 1e-5) -> None:
    assert made.shape == wanted.shape
    assert float((made - wanted).abs().max() / wanted.abs().max()) < share


@pytest.mark.parametrize("values", TRANSFORMER)
@pytest.mark.parametrize("pictures", [1, 2])
@torch.no_grad()
def test_the_velocity_is_that_of_diffusers(values: dict[str, Any], pictures: int) -> None:
    model, given = reference(values), inputs(values, pictures=pictures)
    assert_near(made_of(values, model)(**given), expected(model, given))


@torch.no_grad()
def test_more_rows_than_pass_a_block_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestiary_flux.model._ROWS", 7)
    model, given = reference(FEW), inputs(FEW)
    assert_near(made_of(FEW, model)(**given), expected(model, given))


@torch.no_grad()
def test_a_batch_gives_what_each_picture_gives() -> None:
    made, given = made_of(FEW, reference(FEW)), inputs(FEW, 3)
    whole = made(**given)
    for number in range(3):
        alone = {key: value if key == "positions" else value[number : number + 1] for key, value in given.items()}
        assert_near(whole[number : number + 1], made(**alone))


@torch.no_grad()
def test_steps_share_what_was_prepared() -> None:
    made, given = made_of(FEW, reference(FEW)), inputs(FEW)
    kept = made.prepare(*(given[key] for key in ("states", "pooled", "guidance", "positions")))
    before = kept.text.clone(), kept.vector.clone()
    for time in (1.0, 0.6, 0.1):
        given["timestep"] = torch.full((BATCH,), time)
        assert torch.equal(made.step(given["latents"], given["timestep"], kept), made(**given))
    assert torch.equal(kept.text, before[0])
    assert torch.equal(kept.vector, before[1])


@torch.no_grad()
def test_blocks_are_called_one_by_one_and_what_is_given_stays() -> None:
    made, given = made_of(FEW, reference(FEW)), inputs(FEW)
    copies = {key: value.clone() for key, value in given.items()}
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    ran: list[str] = []
    for name, part in made.named_modules():
        if name.rpartition(".")[0].endswith("transformer_blocks"):
            part.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    made(**given)
    assert ran == [f"transformer_blocks.{n}" for n in range(2)] + [f"single_transformer_blocks.{n}" for n in range(3)]
    assert all(torch.equal(value, copies[key]) for key, value in given.items())
    assert all(torch.equal(weight, weights[name]) for name, weight in made.state_dict().items())


@torch.no_grad()
def test_kernels_that_are_installed_compute_the_same() -> None:
    registry = default_registry()
    made, given = made_of(FEW, reference(FEW)), inputs(FEW)
    plain = made(**given)
    fit(made, choose(registry, torch.float32, torch.device("cpu"), Wish()))
    assert_near(made(**given), plain)


@torch.no_grad()
def test_float16_keeps_within_its_range() -> None:
    made, given = made_of(FEW, reference(FEW)).half(), inputs(FEW)
    dim = FEW["num_attention_heads"] * FEW["attention_head_dim"]
    for block in made.transformer_blocks:
        block.ff_context.net["2"].bias.fill_(60000.0)
        block.norm1_context.linear.bias[-dim:].fill_(3.0)  # the gate behind it
    assert bool(made(**given).isfinite().all())


@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_that_of_diffusers() -> None:
    model, given = reference(FEW), inputs(FEW, 4)
    # A time that bfloat16 holds: others are rounded in both.
    given["timestep"], given["guidance"] = torch.full((4,), 0.5), torch.full((4,), 3.5)
    exact = expected(model, given)
    model = model.bfloat16()
    rounded = {key: value if key == "positions" else value.bfloat16() for key, value in given.items()}
    made, theirs = made_of(FEW, model)(**given), expected(model, rounded)
    assert made.dtype == torch.bfloat16
    assert (made.float() - exact).norm() < 1.5 * (theirs.float() - exact).norm()


@pytest.mark.parametrize("values", TRANSFORMER)
def test_parameters_are_those_of_diffusers(values: dict[str, Any]) -> None:
    with torch.device("meta"):
        made = build(Config(values, "the test"))
    wanted = {name: weight.shape for name, weight in reference(values).state_dict().items()}
    assert {name: weight.shape for name, weight in made.state_dict().items()} == wanted
    assert not list(made.buffers())


@pytest.mark.parametrize(("values", "message"), [(TRANSFORMER[0], "has not learned"), (FEW, "needs a guidance")])
def test_a_guidance_too_many_or_too_few_is_refused(values: dict[str, Any], message: str) -> None:
    made, given = made_of(values, reference(values)), inputs(values)
    given["guidance"] = None if given["guidance"] is not None else torch.ones(BATCH)
    with pytest.raises(OptionError, match=message):
        made(**given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_channels": 0}, '"in_channels" is 0; a whole number from 1 to 65536 is due'),
        ({"out_channels": -1}, "out_channels"),
        ({"num_layers": 1e3}, "num_layers"),
        ({"num_single_layers": 10**9}, "num_single_layers"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"num_attention_heads": 65000, "attention_head_dim": 16}, "more than 65536"),
        ({"attention_head_dim": 14}, r'"axes_dims_rope" \[4, 6, 6\] does not add up to "attention_head_dim", 14'),
        ({"axes_dims_rope": [5, 5, 6]}, "even numbers"),
        ({"axes_dims_rope": [8, 8]}, "three whole numbers"),
        ({"axes_dims_rope": "468"}, "three whole numbers"),
        ({"axes_dims_rope": [4, "6", 6]}, "axes_dims_rope"),
        ({"guidance_embeds": "yes"}, "guidance_embeds"),
        ({"patch_size": 65}, "patch_size"),
        ({"joint_attention_dim": "24"}, "joint_attention_dim"),
        ({"pooled_projection_dim": [20]}, "pooled_projection_dim"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Config({**TRANSFORMER[0], **wrong}, "the test"))


def test_what_a_configuration_leaves_out_is_as_in_the_released_model() -> None:
    with torch.device("meta"):
        made = build(Config({"in_channels": None}, "the test"))
    assert len(made.transformer_blocks) == 19
    assert len(made.single_transformer_blocks) == 38
    assert tuple(made.proj_out.weight.shape) == (64, 3072)  # type: ignore[union-attr]
