"""The vision tower of CLIP against transformers."""

from typing import Any

import pytest
import torch

from bestiary.config import Config
from bestiary.errors import ConfigError, MediaError
from bestiary_clip.model import ClipVision, build

TINY: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 15,
    "patch_size": 5,
}
CONFIGS = (
    TINY,
    # Three pixels at the right and below belong to no patch, and there is one channel.
    {**TINY, "hidden_size": 30, "num_attention_heads": 3, "image_size": 31, "patch_size": 7, "num_channels": 1},
    # Three such pictures are more rows than pass a feed-forward block at once.
    {**TINY, "hidden_act": "gelu", "layer_norm_eps": 0.1, "image_size": 62, "patch_size": 3, "num_hidden_layers": 1},
)
LARGE: dict[str, Any] = {  # openai/clip-vit-large-patch14-336, as far as LLaVA's configurations state it
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


def reference(values: dict[str, Any], device: str = "cpu") -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    with torch.device(device):
        model = CLIPVisionModel(CLIPVisionConfig(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms begin at one and biases at zero: without noise a wrong one would go unseen.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def empty(values: dict[str, Any]) -> ClipVision:
    with torch.device("meta"):
        return build(Config(values, "the test"))


def tower(values: dict[str, Any], model: Any) -> ClipVision:
    made = empty(values)
    made.load_state_dict(model.state_dict(), assign=True)
    return made


def pictures(values: dict[str, Any], count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = values["image_size"]
    return torch.randn(count, values.get("num_channels", 3), size, size, generator=generator)


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_states_are_those_of_transformers(values: dict[str, Any], count: int) -> None:
    model = reference(values)
    made, pixels = tower(values, model), pictures(values, count)
    expected = model(pixels, output_hidden_states=True)
    for layer, state in enumerate(expected.hidden_states):
        torch.testing.assert_close(made(pixels, layer), state, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(made(pixels, layer - len(expected.hidden_states)), state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(pixels, -1), expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(pixels)[:, 0], expected.pooler_output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(pixels), model.post_layernorm(expected.last_hidden_state), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_batch_gives_what_each_picture_gives() -> None:
    made, pixels = tower(TINY, reference(TINY)), pictures(TINY, 3)
    alone = torch.cat([made(picture[None], -2) for picture in pixels])
    torch.testing.assert_close(made(pixels, -2), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_later_layers_are_not_computed() -> None:
    made, pixels = tower(TINY, reference(TINY)), pictures(TINY, 1)
    ran: list[int] = []
    for index, layer in enumerate(made.encoder.layers):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    made(pixels, -2)
    assert ran == [0, 1]


@torch.no_grad()
def test_the_callers_pictures_and_the_weights_stay() -> None:
    made, pixels = tower(TINY, reference(TINY)), pictures(TINY, 2)
    before, weights = pixels.clone(), {name: weight.clone() for name, weight in made.state_dict().items()}
    first = made(pixels, 0)
    kept = first.clone()
    made.encoder(first)
    assert torch.equal(first, kept)
    assert torch.equal(pixels, before)
    assert all(torch.equal(weight, weights[name]) for name, weight in made.state_dict().items())


@torch.no_grad()
def test_bfloat16_takes_float32_pictures() -> None:
    model = reference(TINY).bfloat16()
    made, pixels = tower(TINY, model), pictures(TINY, 2)
    states = made(pixels, -1)
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states, model(pixels).last_hidden_state, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("values", [*CONFIGS, LARGE])
def test_parameters_are_those_of_transformers(values: dict[str, Any]) -> None:
    made, model = empty(values).state_dict(), reference(values, "meta").state_dict()
    assert {name: weight.shape for name, weight in made.items()} == {name: w.shape for name, w in model.items()}
    assert all(weight.is_meta for weight in made.values())


def test_nothing_is_kept_beside_the_parameters() -> None:
    assert not list(empty(TINY).buffers())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 15, 15), r"\[2, 4, 15, 15\] came; \[N, 3, 15, 15\] is due"),
        ((3, 15, 15), r"\[3, 15, 15\] came; \[N, 3, 15, 15\] is due"),
        ((1, 3, 15, 20), r"15 x 20 pixels came; \[N, 3, 15, 15\] is due"),
    ],
)
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        tower(TINY, reference(TINY))(torch.zeros(shape))


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(ConfigError, match=f"State {layer} was asked for; the vision tower has those from -4 to 3"):
        tower(TINY, reference(TINY))(pictures(TINY, 1), layer)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"patch_size": 16}, "image_size"),
        ({"patch_size": 0}, "patch_size"),
        ({"patch_size": "5"}, "patch_size"),
        ({"image_size": [15, 15]}, "image_size"),
        ({"image_size": 1 << 20}, "image_size"),
        ({"num_channels": 0}, "num_channels"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_act": "wish"}, "wish"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        empty({**TINY, **wrong})
