"""The small blocks against transformers' modules, or against their formula in numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama

from bestiary.errors import ConfigError
from bestiary.nn import MLP, Embedding, GatedMLP, LayerNorm, Linear, RMSNorm, activation
from bestiary.nn.activation import _ACTIVATIONS

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def take(ours: nn.Module, theirs: nn.Module) -> None:
    """The same random weights for both."""
    with torch.no_grad():
        for index, parameter in enumerate(theirs.parameters()):
            parameter.copy_(random(*parameter.shape, seed=index + 1) / 2)
    ours.load_state_dict(theirs.state_dict())


# Norms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1.0])
@pytest.mark.parametrize(
    "theirs, offset",
    [(modeling_llama.LlamaRMSNorm, 0.0), (modeling_gemma.GemmaRMSNorm, 1.0), (modeling_gemma3.Gemma3RMSNorm, 1.0)],
)
@torch.no_grad()
def test_rms_norm_is_that_of_transformers_to_the_last_bit(
    theirs: Callable[..., nn.Module], offset: float, eps: float, dtype: torch.dtype
) -> None:
    reference, ours = theirs(24, eps), RMSNorm(24, eps, offset)
    take(ours, reference)
    reference, ours = reference.to(dtype), ours.to(dtype)
    x = (random(5, 3, 24) * 3).to(dtype)
    assert ours(x).dtype == dtype
    assert torch.equal(ours(x), reference(x))


@torch.no_grad()
def test_gemma_rounds_after_the_weight_and_llama_before_it() -> None:
    """The two orders differ in bfloat16, so that a swap of them would be seen above."""
    x, weight = random(50, 24).bfloat16(), random(24, seed=1).bfloat16()
    llama, gemma = RMSNorm(24).bfloat16(), RMSNorm(24, offset=1.0).bfloat16()
    llama.weight.copy_(weight)
    gemma.weight.copy_((weight.float() - 1).bfloat16())
    scaled = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    assert torch.equal(llama(x), weight * scaled.bfloat16())
    assert torch.equal(gemma(x), (scaled * (1 + gemma.weight.float())).bfloat16())
    assert not torch.equal(scaled.bfloat16() * (1 + gemma.weight), gemma(x))


@torch.no_grad()
def test_rms_norm_of_large_half_precision_numbers_does_not_overflow() -> None:
    norm = RMSNorm(8).half()
    norm.weight.fill_(1)
    x = torch.full((1, 8), 60000.0).half()
    assert torch.equal(norm(x), torch.ones(1, 8).half())


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_layer_norm_is_its_formula(bias: bool) -> None:
    norm = LayerNorm(24, 1e-3, bias)
    norm.weight.copy_(random(24, seed=1))
    if norm.bias is not None:
        norm.bias.copy_(random(24, seed=2))
    x = random(5, 24).double().numpy() * 3 + 1
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * norm.weight.numpy()
    expected += 0.0 if norm.bias is None else norm.bias.numpy()
    np.testing.assert_allclose(norm(torch.from_numpy(x).float()).numpy(), expected, rtol=0, atol=3e-6)


# Feed-forward


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh", "gelu", "relu"])
@torch.no_grad()
def test_gated_mlp_is_that_of_llama(act: str, bias: bool) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4}
    theirs = modeling_llama.LlamaMLP(transformers.LlamaConfig(**sizes, hidden_act=act, mlp_bias=bias))
    ours = GatedMLP(16, 24, act, bias)
    take(ours, theirs)
    torch.testing.assert_close(ours(random(7, 16)), theirs(random(7, 16)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_mlp_is_two_layers_with_the_activation_between(bias: bool) -> None:
    theirs = nn.Sequential(nn.Linear(16, 24, bias), nn.ReLU(), nn.Linear(24, 16, bias))
    ours = MLP(16, 24, "relu", bias)
    names = {"0.weight": "up_proj.weight", "0.bias": "up_proj.bias", "2.weight": "down_proj.weight"}
    names["2.bias"] = "down_proj.bias"
    ours.load_state_dict({names[name]: tensor for name, tensor in theirs.state_dict().items()})
    torch.testing.assert_close(ours(random(7, 16)), theirs(random(7, 16)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", _ACTIVATIONS)
def test_activation_names_mean_what_they_mean_in_transformers(name: str) -> None:
    x = torch.linspace(-9, 9, 401)
    torch.testing.assert_close(activation(name)(x), ACT2FN[name](x), rtol=0, atol=2e-6)


def test_an_unknown_activation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r'"gelo".*gelu_pytorch_tanh'):
        activation("gelo")


# Embedding


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_the_scale_of_an_embedding_is_rounded_to_its_type_as_in_gemma3(dtype: torch.dtype) -> None:
    theirs = modeling_gemma3.Gemma3TextScaledWordEmbedding(50, 48, padding_idx=0, embed_scale=48**0.5)
    ours = Embedding(50, 48, scale=48**0.5)
    ours.weight.copy_(random(50, 48))
    theirs.weight.copy_(random(50, 48))
    tokens = torch.arange(50)
    assert torch.equal(ours.to(dtype)(tokens), theirs.to(dtype)(tokens))


@torch.no_grad()
def test_an_embedding_without_a_scale_is_rows_of_its_table() -> None:
    embedding = Embedding(50, 8)
    embedding.weight.copy_(random(50, 8))
    assert torch.equal(embedding(torch.tensor([3, 49, 3])), embedding.weight[[3, 49, 3]])


# Linear


class Int8Rows:
    """Whole numbers of 8 bits and a scale for each row."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.scales = weight.abs().amax(1, keepdim=True) / 127
        self.values = (weight / self.scales).round().to(torch.int8)
        self.shape = (weight.shape[0], weight.shape[1])
        self.nbytes = self.values.nbytes + self.scales.nbytes

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim == 2
        return ((x.float() @ self.values.T.float()) * self.scales.T).to(x.dtype)

    def dequantize(self) -> torch.Tensor:
        return self.values.float() * self.scales


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(16,), (7, 16), (2, 7, 16), (0, 16)])
@torch.no_grad()
def test_linear_over_a_tensor_and_over_a_packed_weight(shape: tuple[int, ...], bias: bool) -> None:
    linear, x = Linear(16, 5, bias), random(*shape)
    for index, parameter in enumerate(linear.parameters()):
        parameter.copy_(random(*parameter.shape, seed=index + 1))
    weight = linear.weight.numpy().astype(np.float64)
    offset = linear.bias.numpy() if linear.bias is not None else 0.0
    np.testing.assert_allclose(linear(x).numpy(), x.numpy() @ weight.T + offset, rtol=0, atol=1e-5)

    linear.hold(Int8Rows(linear.weight.detach()))
    scales = np.abs(weight).max(1, keepdims=True) / 127
    rounded = np.round(weight / scales) * scales
    np.testing.assert_allclose(linear(x).numpy(), x.numpy() @ rounded.T + offset, rtol=0, atol=1e-5)
    assert not x.numel() or not np.allclose(linear(x).numpy(), x.numpy() @ weight.T + offset, rtol=0, atol=1e-5)


def test_packing_releases_the_tensor() -> None:
    linear = Linear(16, 5, bias=True)
    linear.hold(Int8Rows(random(5, 16)))
    assert linear.weight is None
    assert [name for name, _ in linear.named_parameters()] == ["bias"]
