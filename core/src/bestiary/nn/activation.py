"""Activation functions by the names that configurations use."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from bestiary.errors import ConfigError

Activation = Callable[[torch.Tensor], torch.Tensor]

_TANH = partial(F.gelu, approximate="tanh")
_ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_new": _TANH,
    "gelu_fast": _TANH,
    "gelu_pytorch_tanh": _TANH,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
}


def activation(name: str) -> Activation:
    """The function that `hidden_act` names.  Raises ConfigError for an unknown one."""
    if name not in _ACTIVATIONS:
        raise ConfigError(f'The activation "{name}" is unknown; known are {", ".join(sorted(_ACTIVATIONS))}.')
    return _ACTIVATIONS[name]
