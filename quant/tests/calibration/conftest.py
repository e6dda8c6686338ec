"""Networks with their weights on disk, and what the tests of calibration ask of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from bestiary.building import build_empty, make_plan
from bestiary.config import Config
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.nn import CausalLM
from bestiary.opening import open_checkpoint
from bestiary.pulling import Puller
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.reference import make_reference


@dataclass(frozen=True)
class Model:
    """A model on disk."""

    id: str

    @contextmanager
    def puller(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Config, Puller]]:
        """A network without weights, and what makes them."""
        identified = identify_model(self.id, SourceOptions(offline=True), default_registry())
        checkpoint = open_checkpoint(identified, default_registry())
        model = build_empty(identified.architecture, identified.config)
        plan = make_plan(identified.architecture, identified.config, model, checkpoint)
        try:
            yield identified.config, Puller(model, plan, checkpoint, device=torch.device("cpu"), dtype=dtype)
        finally:
            checkpoint.close()

    def network(self, weights: Mapping[str, Any] | None = None) -> CausalLM:
        """With the weights of the checkpoint, or with these in place of some."""
        with self.puller() as (_, puller):
            for name in puller.names:
                puller.put(name, weights[name] if weights and name in weights else puller.plain(name))
            puller.finish()
        assert isinstance(puller.model, CausalLM)
        return puller.model


@torch.no_grad()
def logits_of(model: CausalLM, tokens: Sequence[int]) -> torch.Tensor:
    """[T, V] of one sequence."""
    batch = make_batch([SequenceCache(len(model.specs))], [len(tokens)], "cpu", all_outputs=True)
    return model(torch.tensor(tokens), batch)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def logits() -> Callable[[CausalLM, Sequence[int]], torch.Tensor]:
    return logits_of


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, Any]], Model]:
    """Makes the model of a config.json object, with random weights, once."""
    made: dict[str, Model] = {}

    def save(config: Mapping[str, Any]) -> Model:
        key = repr(sorted(config.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("model")
            make_reference(config, folder)
            made[key] = Model(str(folder))
        return made[key]

    return save


@pytest.fixture(scope="session")
def demo() -> Model:
    """The packaged model: trained, of six layers, 192 wide."""
    return Model("demo")
