"""What an AnyMoE model is made of, and the rows that its gates are trained on.

Fields and defaults are those of mistral.rs (mistralrs-core/src/amoe).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bestiary.config import read_json
from bestiary.errors import ConfigError, OptionError, shown
from bestiary.nearest import did_you_mean

MOST_EXPERTS = 64
MOST_ROWS = 100_000
MOST_CHARACTERS = 1 << 20
_MOST_EPOCHS, _MOST_BATCH, _MOST_LAYERS, _MOST_WIDTH = 1_000_000, 4096, 4096, 1 << 20


@dataclass(frozen=True)
class FineTuned:
    """Experts are the feed-forward blocks of other checkpoints of the same architecture."""


@dataclass(frozen=True)
class LoraExperts:
    """Experts are the model's own feed-forward blocks, each changed by a LoRA adapter."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    """Names of linear layers of the block; what else an adapter changes is left out."""

    def __post_init__(self) -> None:
        _count("rank", self.rank, 1 << 20)
        _number("alpha", self.alpha, -1e9, 1e9)
        _names("target_modules", self.target_modules)


@dataclass(frozen=True)
class AnyMoeConfig:
    """Raises OptionError for a value out of its bounds, before anything is loaded."""

    hidden_size: int
    dataset_json: str | None
    """The rows of the training; None where `training` is False."""
    prefix: str
    """What the names of the checkpoint's layers begin with: model.layers"""
    mlp: str
    """What they call the block: mlp"""
    model_ids: tuple[str, ...]
    """Expert 0 is the model's own block; these are expert 1 and so on."""
    expert_type: FineTuned | LoraExperts
    layers: tuple[int, ...] = ()
    """Empty: all."""
    lr: float = 1e-3
    epochs: int = 100
    batch_size: int = 4
    gate_model_id: str | None = None
    """Where trained gates are saved, and where they come from without training."""
    training: bool = True
    loss_csv_path: str | None = None

    def __post_init__(self) -> None:
        _count("hidden_size", self.hidden_size, _MOST_WIDTH)
        _names("model_ids", self.model_ids)
        if len(self.model_ids) >= MOST_EXPERTS:
            raise OptionError(f"{len(self.model_ids)} model_ids are given; {MOST_EXPERTS - 1} are the most.")
        _names("prefix, mlp", (self.prefix, self.mlp))
        if not isinstance(self.expert_type, FineTuned | LoraExperts):
            raise OptionError(f"expert_type is {shown(self.expert_type)}; FineTuned or LoraExperts is due.")
        if not isinstance(self.layers, tuple) or len(set(self.layers)) < len(self.layers):
            raise OptionError(f"layers is {shown(self.layers)}; numbers of layers are due, each once.")
        for layer in self.layers:
            _count("layers", layer, _MOST_LAYERS, least=0)
        _number("lr", self.lr, 0, 1e3)
        _count("epochs", self.epochs, _MOST_EPOCHS)
        _count("batch_size", self.batch_size, _MOST_BATCH)
        if not isinstance(self.training, bool):
            raise OptionError(f"training is {shown(self.training)}; True or False is due.")
        if self.training and self.dataset_json is None:
            raise OptionError("Gates are to be trained, and there is no dataset_json.")
        if not self.training and self.gate_model_id is None:
            raise OptionError("Gates are not to be trained, and there is no gate_model_id that has them.")
        if self.loss_csv_path is not None and Path(self.loss_csv_path).suffix != ".csv":
            raise OptionError(f"loss_csv_path is {shown(self.loss_csv_path)}; a name that ends in .csv is due.")


@dataclass(frozen=True)
class Row:
    """A prompt, and the expert that should answer it."""

    prompt: str
    expert: int


def read_rows(path: Path, experts: int) -> tuple[Row, ...]:
    """The rows of a dataset for so many experts, as mistral.rs has it: {"rows": [{"prompt": ..., "expert": ...}]}.

    Raises ConfigError, with the number of the row.
    """
    try:
        raw = read_json(path)
    except OSError as error:
        raise ConfigError(f"The dataset cannot be read: {error.strerror}.", where=path) from error
    rows = raw.get("rows")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f'The dataset has {shown(rows)} for "rows"; a list of rows is due.', where=path)
    if len(rows) > MOST_ROWS:
        raise ConfigError(f"The dataset has {len(rows)} rows; {MOST_ROWS} are the most.", where=path)
    return tuple(_row(row, experts, f"{path}, row {number}") for number, row in enumerate(rows))


def _row(row: object, experts: int, where: str) -> Row:
    if not isinstance(row, dict):
        raise ConfigError(f"A row is {shown(row)}; an object is due.", where=where)
    for key in row:
        if key not in ("prompt", "expert", "image_urls"):
            raise ConfigError(
                f"The row has {shown(key)}, which means nothing.",
                where=where,
                fix=did_you_mean(key, ("prompt", "expert")),
            )
    if row.get("image_urls"):
        raise ConfigError("The row has images; gates are trained on text.", where=where, fix="leave image_urls out")
    prompt, expert = row.get("prompt"), row.get("expert")
    if not isinstance(prompt, str) or not 0 < len(prompt) <= MOST_CHARACTERS:
        raise ConfigError(
            f'"prompt" is {shown(prompt)}; a text of at most {MOST_CHARACTERS} characters is due.', where=where
        )
    if isinstance(expert, bool) or not isinstance(expert, int) or not 0 <= expert < experts:
        raise ConfigError(
            f'"expert" is {shown(expert)}; there are experts 0 to {experts - 1}.',
            where=where,
            fix="expert 0 is the model itself, expert 1 the first of model_ids",
        )
    return Row(prompt, expert)


def _count(name: str, value: object, most: int, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise OptionError(f"{name} is {shown(value)}; a whole number from {least} to {most} is due.")


def _number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise OptionError(f"{name} is {shown(value)}; a number from {least:g} to {most:g} is due.")


def _names(name: str, values: Sequence[object]) -> None:
    if not isinstance(values, tuple) or not values or not all(isinstance(value, str) and value for value in values):
        raise OptionError(f"{name} is {shown(values)}; names are due.")
