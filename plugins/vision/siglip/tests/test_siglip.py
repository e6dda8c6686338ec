"""The vision tower of SigLIP against transformers."""

from typing import Any

import pytest
import torch

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError
from bestiary_siglip import SiglipVision, build

TINY: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 20,
    "patch_size": 5,
}
CONFIGS = (
    TINY,
    # Three pixels at the right and below belong to no patch, and there is one channel.
    {**TINY, "hidden_size": 30, "num_attention_heads": 3, "image_size": 31, "patch_size": 7, "num_channels": 1},
    # Three such pictures are more rows than pass a feed-forward block at once.
    {**TINY, "hidden_act": "gelu", "layer_norm_eps": 0.1, "image_size": 62, "patch_size": 3, "num_hidden_layers": 1},
)
SO400M: dict[str, Any] = {  # google/siglip-so400m-patch14-384
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
REAL = (SO400M, {**SO400M, "image_size": 896, "vision_use_head": False})  # the second: Gemma 3
VARIANTS = ("Idefics3", "SmolVLM")


def reference(values: dict[str, Any], family: str = "Siglip", device: str = "cpu") -> Any:
    import transformers

    module = getattr(transformers.models, family.lower())
    name = "SiglipVisionModel" if family == "Siglip" else f"{family}VisionTransformer"
    torch.manual_seed(0)
    with torch.device(device):
        model = getattr(module, name)(getattr(module, f"{family}VisionConfig")(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms begin at one and biases at zero: without noise a wrong one would go unseen.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def parameters(model: Any) -> dict[str, torch.Tensor]:
    """Of a model of transformers, less the pooling head."""
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith("head.")}


def empty(values: dict[str, Any], any_size: bool = False) -> SiglipVision:
    with torch.device("meta"):
        return build(Config(values, "the test"), any_size=any_size)


def tower(values: dict[str, Any], model: Any, any_size: bool = False) -> SiglipVision:
    made = empty(values, any_size)
    made.load_state_dict(parameters(model), assign=True)
    return made


def pictures(values: dict[str, Any], count: int, height: int | None = None, width: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = values["image_size"]
    return torch.randn(
        count, values.get("num_channels", 3), height or size, width or height or size, generator=generator
    )


def equal(made: SiglipVision, pixels: torch.Tensor, expected: Any, **options: Any) -> None:
    for layer, state in enumerate(expected.hidden_states):
        torch.testing.assert_close(made(pixels, layer, **options), state, rtol=1e-5, atol=1e-5)
        from_the_end = layer - len(expected.hidden_states)
        torch.testing.assert_close(made(pixels, from_the_end, **options), state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(pixels, **options), expected.last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_states_are_those_of_transformers(values: dict[str, Any], count: int) -> None:
    model, pixels = reference(values), pictures(values, count)
    equal(tower(values, model), pixels, model(pixels, output_hidden_states=True))


@torch.no_grad()
def test_a_batch_gives_what_each_picture_gives() -> None:
    made, pixels = tower(TINY, reference(TINY)), pictures(TINY, 3)
    alone = torch.cat([made(picture[None]) for picture in pixels])
    torch.testing.assert_close(made(pixels), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_later_layers_are_not_computed() -> None:
    made, pixels = tower(TINY, reference(TINY)), pictures(TINY, 1)
    ran: list[int] = []
    for index, layer in enumerate(made.encoder.layers):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    made(pixels, -2)
    assert ran == [0, 1]


@torch.no_grad()
def test_bfloat16_takes_float32_pictures() -> None:
    model = reference(TINY).bfloat16()
    made, pixels = tower(TINY, model), pictures(TINY, 2)
    states = made(pixels)
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states, model(pixels).last_hidden_state, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", VARIANTS)
@pytest.mark.parametrize("size", [(20, 20), (5, 5), (10, 20), (15, 5), (19, 13), (25, 40)])
@torch.no_grad()
def test_any_size(family: str, size: tuple[int, int]) -> None:
    model, pixels = reference(TINY, family), pictures(TINY, 2, *size)
    equal(tower(TINY, model, any_size=True), pixels, model(pixels, output_hidden_states=True))


@pytest.mark.parametrize("family", VARIANTS)
@torch.no_grad()
def test_pictures_of_several_sizes_in_a_batch(family: str) -> None:
    model, pixels = reference(TINY, family), pictures(TINY, 4)
    mask = torch.zeros(4, 4, 4, dtype=torch.bool)
    for picture, (rows, columns) in zip(mask, [(4, 4), (3, 2), (1, 1), (4, 3)], strict=True):
        picture[:rows, :columns] = True
    made = tower(TINY, model, any_size=True)
    equal(made, pixels, model(pixels, patch_attention_mask=mask, output_hidden_states=True), mask=mask)
    torch.testing.assert_close(made(pixels, mask=mask.long()), made(pixels, mask=mask))
    # What is not masked is what the picture gives alone.
    alone = made(pixels[1:2, :, :15, :10])
    torch.testing.assert_close(made(pixels, mask=mask)[1].view(4, 4, -1)[:3, :2].flatten(0, 1), alone[0])


@pytest.mark.parametrize("side", [26, 27, 32])
@torch.no_grad()
def test_every_grid_has_the_positions_of_transformers(side: int) -> None:
    """Idefics3 (364 / 14), SmolVLM of 2.2 B (384 / 14) and of 256 M (512 / 16): rounding moves some patches."""
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionEmbeddings

    from bestiary_siglip.positions import bucketed

    values = {"hidden_size": 1, "image_size": side, "patch_size": 1, "num_channels": 1, "num_attention_heads": 1}
    theirs = Idefics3VisionEmbeddings(reference({**values, "num_hidden_layers": 0}, "Idefics3").config)
    theirs.patch_embedding.weight.zero_()
    theirs.patch_embedding.bias.zero_()
    theirs.position_embedding.weight.copy_(torch.arange(side**2)[:, None])
    mask = torch.zeros(side**2, side, side, dtype=torch.bool)
    for picture, number in zip(mask, range(side**2), strict=True):
        picture[: number // side + 1, : number % side + 1] = True
    expected = theirs(torch.zeros(side**2, 1, side, side), mask)
    assert torch.equal(bucketed(mask, side), expected[..., 0].long())


@pytest.mark.parametrize("values", [*CONFIGS, *REAL])
def test_parameters_are_those_of_transformers(values: dict[str, Any]) -> None:
    made, model = empty(values).state_dict(), parameters(reference(values, device="meta"))
    assert {name: weight.shape for name, weight in made.items()} == {name: w.shape for name, w in model.items()}
    assert all(weight.is_meta for weight in made.values())


@pytest.mark.parametrize("family", VARIANTS)
@pytest.mark.parametrize(
    "values",
    [
        {},
        {**SO400M, "image_size": 364},  # HuggingFaceM4/Idefics3-8B-Llama3
        # HuggingFaceTB/SmolVLM-256M-Instruct
        {"hidden_size": 768, "image_size": 512, "num_attention_heads": 12, "patch_size": 16},
    ],
)
def test_parameters_of_the_variants_are_those_of_transformers(family: str, values: dict[str, Any]) -> None:
    made, model = empty(values, any_size=True).state_dict(), reference(values, family, "meta").state_dict()
    assert {name: weight.shape for name, weight in made.items()} == {name: w.shape for name, w in model.items()}


def test_nothing_is_kept_beside_the_parameters() -> None:
    assert not list(empty(TINY).buffers())


@pytest.mark.parametrize(
    ("any_size", "shape", "message"),
    [
        (False, (2, 4, 20, 20), r"\[2, 4, 20, 20\] came; \[N, 3, 20, 20\] is due"),
        (False, (3, 20, 20), r"\[3, 20, 20\] came; \[N, 3, 20, 20\] is due"),
        (False, (1, 3, 20, 25), r"20 x 25 pixels came; \[N, 3, 20, 20\] is due"),
        (True, (2, 4, 20, 20), r"\[2, 4, 20, 20\] came; \[N, 3, H, W\] is due"),
        (True, (1, 3, 4, 20), r"4 x 20 pixels came; a patch has 5 x 5"),
    ],
)
def test_pictures_of_another_shape_are_refused(any_size: bool, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        tower(TINY, reference(TINY), any_size)(torch.zeros(shape))


def test_masks_that_do_not_fit_are_refused() -> None:
    model, pixels = reference(TINY), pictures(TINY, 2)
    with pytest.raises(MediaError, match=r"one size; a mask of \[2, 4, 4\] came"):
        tower(TINY, model)(pixels, mask=torch.ones(2, 4, 4))
    with pytest.raises(MediaError, match=r"A mask of \[2, 4, 3\] patches came; \[2, 4, 4\] is due"):
        tower(TINY, model, any_size=True)(pixels, mask=torch.ones(2, 4, 3))
    with pytest.raises(MediaError, match="no patch"):
        tower(TINY, model, any_size=True)(pixels, mask=torch.zeros(2, 4, 4))


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(ConfigError, match=f"State {layer} was asked for; the vision tower has those from -4 to 3"):
        tower(TINY, reference(TINY))(pictures(TINY, 1), layer)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size"),
        ({"patch_size": 21}, "image_size"),
        ({"image_size": [20, 20]}, "image_size"),
        ({"num_channels": 0}, "num_channels"),
        ({"hidden_size": -1}, "hidden_size"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        empty({**TINY, **wrong})
