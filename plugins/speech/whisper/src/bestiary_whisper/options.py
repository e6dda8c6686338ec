"""What a request may say of its transcription."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bestiary.asking import check_number, check_whole
from bestiary.errors import OptionError, shown


@dataclass(frozen=True)
class Options:
    """The defaults are those of openai/whisper.  Raises OptionError for a value out of its bounds."""

    language: str | None = None
    """A code or a name; None: what the first window sounds like."""
    task: str = "transcribe"
    """Or "translate", to English."""
    timestamps: bool = True
    """Whether the model says when each phrase begins and ends; without, a segment is a whole window."""
    prompt: str | None = None
    """A text that could have come before: names and spellings in it are taken up."""
    condition_on_previous_text: bool = True
    """Whether a window is told what the one before it said."""
    temperature: float | tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """The next one is tried where an answer repeats itself or is improbable."""
    beam_size: int | None = None
    """Answers that are written side by side at temperature 0; None or 1: the most probable token each time."""
    best_of: int = 5
    """Answers at other temperatures, of which the most probable is taken."""
    length_penalty: float = 1.0
    """Power of the length by which the score of a beam's answer is divided."""
    compression_ratio_threshold: float | None = 2.4
    """An answer with more repeats itself.  None: it may."""
    logprob_threshold: float | None = -1.0
    """An answer with a lower mean log-probability is improbable.  None: it may be."""
    no_speech_threshold: float | None = 0.6
    """An improbable answer to a window that more probably has no speech than this is none.  None: it is one."""
    seed: int = 0
    """The same gives the same text at every temperature."""

    def __post_init__(self) -> None:
        for name in ("timestamps", "condition_on_previous_text"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} is {shown(getattr(self, name))}; True or False is due.")
        for name in ("language", "task", "prompt"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "task"):
                raise OptionError(f"{name} is {shown(value)}; a text is due.")
        if not self.temperatures:
            raise OptionError("temperature is empty; a number or several are due.")
        for temperature in self.temperatures:
            check_number("temperature", temperature, 0.0, 100.0)
        check_whole("beam_size", self.beam_size, 1, 64, optional=True)
        check_whole("best_of", self.best_of, 1, 64)
        check_whole("seed", self.seed, -(1 << 63), (1 << 63) - 1)
        check_number("length_penalty", self.length_penalty, -10.0, 10.0)
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            check_number(name, getattr(self, name), -1e9, 1e9, optional=True)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """In the order in which they are tried."""
        value: Any = self.temperature
        return tuple(value) if isinstance(value, list | tuple) else (value,)

    @property
    def answers(self) -> int:
        """That are written side by side at most."""
        drawn = self.best_of if any(temperature > 0 for temperature in self.temperatures) else 1
        return max(drawn, self.beam_size or 1)
