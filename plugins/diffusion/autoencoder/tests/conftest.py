"""What the tests share: diffusers' network of a configuration, and ours with its weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.config import Config
from bestiary.testing.threads import one_thread as one_thread
from bestiary_autoencoder.model import Autoencoder, build


def make_reference(values: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    known = {key: value for key, value in values.items() if key != "_class_name"}
    model = AutoencoderKL(**known).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms begin at one and biases at zero: without noise a wrong one would go unseen.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def make_empty(values: dict[str, Any]) -> Autoencoder:
    with torch.device("meta"):
        return build(Config(values, "the test"))


@pytest.fixture(scope="session")
def reference() -> Callable[[dict[str, Any]], Any]:
    return make_reference


@pytest.fixture(scope="session")
def empty() -> Callable[[dict[str, Any]], Autoencoder]:
    return make_empty


@pytest.fixture(scope="session")
def ours() -> Callable[[dict[str, Any], Any], Autoencoder]:
    def make(values: dict[str, Any], model: Any) -> Autoencoder:
        made = make_empty(values)
        made.load_state_dict(model.state_dict(), assign=True)
        return made

    return make
