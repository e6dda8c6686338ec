"""Importance from whatever a network is asked, while it is asked it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from bestiary.errors import GenerationError, OptionError
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.calibration.taps import See, Taps, weights


@dataclass(frozen=True)
class CollectorStatus:
    """How far a collection is."""

    collecting: bool
    weights: int
    """That are watched."""
    seen: int
    """To which rows have come; of experts, to any of them."""
    least: int
    """Rows of the weight with the fewest."""
    most: int


class Squares:
    """The sums of the squares of rows, by column, in float64: of one matrix, or of each of several experts."""

    def __init__(self, columns: int, experts: int | None = None) -> None:
        self.columns, self.experts = columns, experts
        self.counts = [0] * (experts or 1)
        self._sums: torch.Tensor | None = None

    def add(self, x: torch.Tensor, expert: int | None = None) -> None:
        """x [T, in] of any float type."""
        if self._sums is None:
            where = "cpu" if x.device.type == "mps" else x.device  # which has no float64
            self._sums = torch.zeros((len(self.counts), self.columns), dtype=torch.float64, device=where)
        place = expert or 0
        self._sums[place].add_(x.float().square().sum(0).to(self._sums.device).double())
        self.counts[place] += len(x)

    def sums(self) -> torch.Tensor:
        """[in], or [experts, in], in memory of their own on the CPU."""
        made = torch.zeros((len(self.counts), self.columns), dtype=torch.float64)
        if self._sums is not None:
            made.copy_(self._sums)
        return made[0] if self.experts is None else made


class Collector:
    """Collects the importance of every linear layer, experts and head of a network that is being used.

    `start` and `stop` may be called while other threads run the network: a step that is under way is seen in part.
    Stopped, it costs nothing.  On a GPU, decoding steps that are replayed as CUDA graphs are not seen; prompts are.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] | None = None) -> None:
        """`names` of parameters limit what is watched.  Raises OptionError for one that is no weight of the network."""
        known = {name: (columns, experts) for name, _, columns, experts in weights(model)}
        chosen = known if names is None else list(names)
        if unknown := [name for name in chosen if name not in known]:
            raise OptionError(f"The network has no linear layer or experts {unknown[0]}.")
        if not chosen:
            raise OptionError("The network has no linear layers or experts whose inputs could be watched.")
        self._lock = threading.Lock()
        self._shapes = {name: known[name] for name in chosen}
        self._squares = self._empty()
        self._taps = Taps(model, {name: self._seer(name) for name in chosen})
        self._collecting = False

    def start(self) -> None:
        """Go on collecting."""
        with self._lock:
            self._collecting = True
            self._taps.open()

    def stop(self) -> None:
        """Keep what was collected and watch no longer."""
        with self._lock:
            self._taps.close()
            self._collecting = False

    def reset(self) -> None:
        """Forget what was collected."""
        with self._lock:
            self._squares = self._empty()

    def status(self) -> CollectorStatus:
        with self._lock:
            rows = [sum(squares.counts) for squares in self._squares.values()]
        return CollectorStatus(self._collecting, len(rows), sum(map(bool, rows)), min(rows), max(rows))

    def snapshot(self, chunks: int = 0, chunk_size: int = 512) -> Importance:
        """What was collected until now, of the weights to which any rows came.

        `chunks` of 0 are counted from the rows.  Raises GenerationError where inputs were not finite.
        """
        with self._lock:
            seen = {name: squares for name, squares in self._squares.items() if any(squares.counts)}
            values = {name: squares.sums() for name, squares in seen.items()}
            counts = {name: torch.tensor(squares.counts) for name, squares in seen.items()}
        for name, sums in values.items():
            if not bool(sums.isfinite().all()):
                raise GenerationError(
                    f"What {name} was multiplied with was not finite, so that there is no importance of it.",
                    fix="load the model in another type (dtype), and collect again",
                )
        most = max((int(count.max()) for count in counts.values()), default=0)
        return Importance(values, counts, chunks or -(-most // chunk_size), chunk_size)

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _empty(self) -> dict[str, Squares]:
        return {name: Squares(columns, experts) for name, (columns, experts) in self._shapes.items()}

    def _seer(self, name: str) -> See:
        def see(x: torch.Tensor, expert: int | None) -> None:
            with self._lock:
                if self._collecting:
                    self._squares[name].add(x, expert)

        return see
