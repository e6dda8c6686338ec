"""What the tests share: transformers' network of a configuration, and ours with its weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.config import Config
from bestiary.testing.threads import one_thread as one_thread
from bestiary_dac.model import Dac, build


def make_reference(values: dict[str, Any]) -> Any:
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    known = {key: value for key, value in values.items() if key not in ("architectures", "model_type")}
    model = DacModel(DacConfig(**known)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases begin at zero and Snake at one: without noise a wrong one would go unseen.
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def make_empty(values: dict[str, Any]) -> Dac:
    with torch.device("meta"):
        return build(Config(values, "the test"))


@pytest.fixture(scope="session")
def reference() -> Callable[[dict[str, Any]], Any]:
    return make_reference


@pytest.fixture(scope="session")
def empty() -> Callable[[dict[str, Any]], Dac]:
    return make_empty


@pytest.fixture(scope="session")
def ours() -> Callable[[dict[str, Any], Any], Dac]:
    def make(values: dict[str, Any], model: Any) -> Dac:
        made = make_empty(values)
        made.load_state_dict(model.state_dict(), assign=True)
        return made

    return make
