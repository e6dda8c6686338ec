"""How a zoo sizes and makes its pipelines: the loader, the estimator and the budget that it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.amount import budget_of
from bestiary.zoo.entry import Entry
from bestiary.zoo.estimate import Estimate, device_name

Estimator = Callable[[str, Mapping[str, Any], Callable[[str], int]], Estimate]


@dataclass(frozen=True)
class Maker:
    """Makes pipelines with `load` (id, **options), after `estimate` (id, options, budget of a device)."""

    load: Callable[..., Any]
    estimate: Estimator
    memory: int | float | None
    """The budget of each device: bytes, a share of what is free, or None, all of that."""

    def size(self, entry: Entry, budgets: Mapping[str, int]) -> tuple[Estimate, int]:
        """What a model will take, and the budget of its device; `budgets` are those that stand already."""
        told: dict[str, int] = {}

        def budget(device: str) -> int:
            if device not in told:
                told[device] = budgets.get(device) or budget_of(self.memory, _free(device), device)
            return told[device]

        if entry.memory is None:
            found = self.estimate(entry.id, entry.options, budget)
        else:
            found = Estimate(device_name(entry.options.get("device", "auto")), entry.memory)
        return found, budget(found.device)

    def make(self, entry: Entry, found: Estimate | None) -> Any:
        """The pipeline."""
        return self.load(entry.id, **{**entry.options, **(found.options if found else {})})


def _free(device: str) -> int | None:
    import torch

    from bestiary.placement import free_memory

    return free_memory(torch.device(device))
