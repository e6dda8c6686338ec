"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bestiary.asking import check_number, check_whole
from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean

if TYPE_CHECKING:
    from bestiary.generation.penalties import Processor


@dataclass(frozen=True)
class Sampling:
    """The settings of one request.  Raises OptionError for a value out of its bounds."""

    max_tokens: int | None = None
    """New tokens at most; None: up to the end of the context."""
    temperature: float = 0.0
    """0 takes the most probable token."""
    top_k: int | None = None
    """Only the k most probable tokens; None or 0: all."""
    top_p: float = 1.0
    """Only the most probable tokens that together reach this probability."""
    min_p: float = 0.0
    """Only tokens at least this probable, relative to the most probable one."""
    seed: int | None = None
    """The same seed gives the same text; None: a new one for each request."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""
    stop_tokens: tuple[int, ...] = ()
    """Token ids that end the answer, besides the model's own."""
    ignore_eos: bool = False
    """Go on after the model's own end-of-text tokens."""
    min_tokens: int = 0
    """The model's own end-of-text tokens are held back until so many tokens are made."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that the answer has it (as in OpenAI's API)."""
    presence_penalty: float = 0.0
    """Taken once from the logit of every token that the answer has."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens in prompt or answer (Keskar et al. 2019)."""
    dry_multiplier: float = 0.0
    """The strength of the DRY penalty against repeated passages; 0 switches it off."""
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    """Repetitions shorter than this are free."""
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    """Texts over whose last token DRY does not look back."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of token ids."""
    processors: tuple[Processor, ...] = ()
    """Functions (logits [V], all tokens so far) -> logits, called after the penalties and the bias."""
    logprobs: int | None = None
    """Return log-probabilities, with this many of the most probable tokens (0 to 20) for each step."""
    prompt_logprobs: int | None = None
    """Return those of the prompt's tokens too, with this many of the most probable ones (0 to 20)."""
    echo: bool = False
    """Begin the answer with the prompt's text."""
    n: int = 1
    """How many answers to return."""
    best_of: int | None = None
    """How many to make, of which the `n` most probable are returned; None: as many as are returned."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", _several("stop", self.stop, 64))
        object.__setattr__(self, "stop_tokens", _several("stop_tokens", self.stop_tokens, 1024))
        check_whole("max_tokens", self.max_tokens, 1, 1 << 31, optional=True)
        check_number("temperature", self.temperature, 0.0, 100.0)
        check_whole("top_k", self.top_k, 0, 1 << 31, optional=True)
        check_number("top_p", self.top_p, 0.0, 1.0)
        check_number("min_p", self.min_p, 0.0, 1.0)
        check_whole("seed", self.seed, -(1 << 63), (1 << 63) - 1, optional=True)
        check_whole("logprobs", self.logprobs, 0, 20, optional=True)
        check_whole("prompt_logprobs", self.prompt_logprobs, 0, 20, optional=True)
        check_whole("n", self.n, 1, 128)
        check_whole("best_of", self.best_of, self.n, 128, optional=True)
        if any(not isinstance(text, str) or not 0 < len(text) <= 1024 for text in self.stop):
            raise OptionError("stop takes texts of 1 to 1024 characters.")
        for token in self.stop_tokens:
            check_whole("stop_tokens", token, 0, 1 << 31)
        check_whole("min_tokens", self.min_tokens, 0, 1 << 31)
        check_number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        check_number("dry_multiplier", self.dry_multiplier, 0.0, 100.0)
        check_number("dry_base", self.dry_base, 1.0, 10.0)
        check_whole("dry_allowed_length", self.dry_allowed_length, 1, 1 << 16)
        object.__setattr__(
            self, "dry_sequence_breakers", _several("dry_sequence_breakers", self.dry_sequence_breakers, 64)
        )
        if any(not isinstance(text, str) or not 0 < len(text) <= 128 for text in self.dry_sequence_breakers):
            raise OptionError("dry_sequence_breakers takes texts of 1 to 128 characters.")
        object.__setattr__(self, "processors", _several("processors", self.processors, 16))
        if not all(callable(processor) for processor in self.processors):
            raise OptionError("processors takes functions (logits, tokens) -> logits.")
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        for name in ("ignore_eos", "echo"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} is {shown(getattr(self, name))}; True or False is due.")


def merged(defaults: Sampling, options: Mapping[str, Any]) -> Sampling:
    """`defaults` with a request's own options.  Raises OptionError for an unknown one, with the nearest name."""
    known = {field.name for field in fields(Sampling)}
    for name in options:
        if name not in known:
            fix = did_you_mean(name, known) or f"the options are {', '.join(sorted(known))}"
            raise OptionError(f'There is no sampling option "{name}".', fix=fix)
    return replace(defaults, **options)


def defaults_from(generation_config: Mapping[str, Any]) -> Sampling:
    """The settings that a model's authors recommend in generation_config.json; greedy where it does not sample."""
    values: dict[str, Any] = {}
    if isinstance(generation_config.get("max_new_tokens"), int):
        values["max_tokens"] = generation_config["max_new_tokens"]
    if generation_config.get("do_sample"):
        values["temperature"] = 1.0
        for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
            if generation_config.get(name) is not None:
                values[name] = generation_config[name]
    try:
        return Sampling(**values)
    except OptionError as error:
        raise OptionError(error.what, where="generation_config.json") from error


def _biases(values: Any) -> Mapping[int, float]:
    if not isinstance(values, Mapping) or len(values) > 1024:
        raise OptionError("logit_bias is a mapping of up to 1024 token ids to numbers.")
    for token, bias in values.items():
        check_whole("a token id of logit_bias", token, 0, 1 << 31)
        check_number("a value of logit_bias", bias, -100.0, 100.0)
    return MappingProxyType(dict(values))


def _several(name: str, values: Any, most: int) -> tuple[Any, ...]:
    if values is None:
        return ()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise OptionError(f"{name} is {shown(values)}; a list is due.")
    made = tuple(values)
    if len(made) > most:
        raise OptionError(f"{name} has {len(made)} members; at most {most} are taken.")
    return made
