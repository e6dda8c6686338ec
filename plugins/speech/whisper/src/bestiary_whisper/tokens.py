"""The tokens that steer Whisper: which language, which task, when; and those that it must not write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.errors import ConfigError, OptionError, shown
from bestiary.generation.tokenizer import Tokenizer
from bestiary.nearest import did_you_mean
from bestiary_whisper.languages import codes

SECONDS_PER_TIMESTAMP = 0.02
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_CONTROLS = ("<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>")
_MOST_SUPPRESSED = 1 << 20


@dataclass(frozen=True)
class Tokens:
    """Ids of one checkpoint."""

    start: int
    """Begins every transcript."""
    end: int
    languages: Mapping[str, int]
    """By code; empty: the model knows English only, and no tasks."""
    tasks: Mapping[str, int]
    no_timestamps: int
    previous: int | None
    """Begins the text that came before."""
    no_speech: int | None
    suppressed: tuple[int, ...]
    """Never to be written."""
    suppressed_first: tuple[int, ...]
    """Not to be written first."""
    latest_first: int | None
    """The latest timestamp that may come first, counted from zero; None: any."""

    @property
    def first_timestamp(self) -> int:
        """That of the beginning of a window; all later ids are timestamps."""
        return self.no_timestamps + 1

    def prompt(self, language: str | None, task: str, timestamps: bool) -> list[int]:
        """What a transcript begins with.  Raises OptionError for a task or language that the model does not know."""
        made = [self.start]
        if self.languages:
            if task not in self.tasks:
                raise OptionError(f"The model has no task {shown(task)}.", fix=f"choose one of {', '.join(self.tasks)}")
            made += [self.languages[self.code(language)], self.tasks[task]]
        elif task != "transcribe":
            raise OptionError(f"The model knows English only, and no task {shown(task)}.", fix='task="transcribe"')
        elif language is not None and codes().get(str(language).lower(), language) != "en":
            raise OptionError("The model knows English only.", fix="choose one that is not named .en")
        return made if timestamps else [*made, self.no_timestamps]

    def code(self, language: Any) -> str:
        """The code of a language, given as a code or a name.  Raises OptionError for one that the model lacks."""
        asked = language.lower() if isinstance(language, str) else ""
        found = asked if asked in self.languages else codes().get(asked, "")
        if found not in self.languages:
            known = [*self.languages, *(name for name, code in codes().items() if code in self.languages)]
            fix = did_you_mean(asked, known) or f"the model knows {', '.join(self.languages)}"
            raise OptionError(f"The model does not know the language {shown(language)}.", fix=fix)
        return found


def tokens_of(
    tokenizer: Tokenizer, config: Mapping[str, Any], generation: Mapping[str, Any], vocabulary: int
) -> Tokens:
    """What generation_config.json, config.json and, where these are silent, the tokenizer say.

    Raises ConfigError for ids that cannot be, and where the tokenizer has none of a token that is needed.
    """
    given = {**config, **{key: value for key, value in generation.items() if value is not None}}

    def one(key: str, text: str, *, needed: bool = True) -> int | None:
        value = given.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        value = tokenizer.id(text) if value is None else value
        if value is None and not needed:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocabulary:
            raise ConfigError(f'"{key}" is {shown(value)}; the id of {text} is due.', where=tokenizer.origin)
        return value

    def several(key: str, default: Sequence[int]) -> tuple[int, ...]:
        values = given.get(key)
        values = default if values is None else values
        right = isinstance(values, list | tuple) and len(values) <= _MOST_SUPPRESSED
        if not right or not all(isinstance(value, int) and -1 <= value < vocabulary for value in values):
            raise ConfigError(f'"{key}" is {shown(values)}; a list of ids is due.', where=tokenizer.origin)
        return tuple(sorted({value for value in values if value >= 0}))

    def named(key: str, found: Mapping[str, int]) -> dict[str, int]:
        values = given.get(key, found)
        right = isinstance(values, Mapping) and all(
            isinstance(name, str) and isinstance(value, int) and 0 <= value < vocabulary
            for name, value in values.items()
        )
        if not right:
            raise ConfigError(f'"{key}" is {shown(values)}; ids by name are due.', where=tokenizer.origin)
        return {name.strip("<|>"): value for name, value in values.items()}

    start, end = one("decoder_start_token_id", "<|startoftranscript|>"), one("eos_token_id", "<|endoftext|>")
    no_timestamps = one("no_timestamps_token_id", "<|notimestamps|>")
    assert start is not None and end is not None and no_timestamps is not None
    tasks = {name: tokenizer.id(f"<|{name}|>") for name in ("transcribe", "translate")}
    own = {name: place for name, place in tasks.items() if place is not None}
    several_languages = given.get("is_multilingual", tokenizer.id("<|en|>") is not None or "lang_to_id" in given)
    controls = [place for place in map(tokenizer.id, _CONTROLS) if place is not None and place < vocabulary]
    latest = given.get("max_initial_timestamp_index")
    if latest is not None and (isinstance(latest, bool) or not isinstance(latest, int) or latest < 0):
        what = f'"max_initial_timestamp_index" is {shown(latest)}; a whole number is due.'
        raise ConfigError(what, where=tokenizer.origin)
    return Tokens(
        start=start,
        end=end,
        languages=named("lang_to_id", _languages(tokenizer, start, no_timestamps)) if several_languages else {},
        tasks=named("task_to_id", own) if several_languages else {},
        no_timestamps=no_timestamps,
        previous=one("prev_sot_token_id", "<|startofprev|>", needed=False),
        no_speech=_first(tokenizer, vocabulary, "<|nospeech|>", "<|nocaptions|>"),
        suppressed=several("suppress_tokens", controls),
        suppressed_first=several("begin_suppress_tokens", ()),
        latest_first=latest,
    )


def _languages(tokenizer: Tokenizer, start: int, no_timestamps: int) -> dict[str, int]:
    found = {}
    for place in range(start + 1, min(no_timestamps, start + 1000)):
        match = _LANGUAGE.fullmatch(tokenizer.token(place))
        if match:
            found[match[1]] = place
    return found


def _first(tokenizer: Tokenizer, vocabulary: int, *texts: str) -> int | None:
    places = (tokenizer.id(text) for text in texts)
    return next((place for place in places if place is not None and place < vocabulary), None)
