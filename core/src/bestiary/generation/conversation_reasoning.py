"""Whether and how much a model should reason, as variables of its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestiary.errors import OptionError, shown
from bestiary.nearest import nearest

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
"""The values of reasoning_effort in the OpenAI API."""
SWITCHES = ("enable_thinking", "thinking")
"""The variables by which templates switch reasoning: of Qwen 3 and others, and of DeepSeek V3.1 and Granite 3.3."""
_EFFORT, _BUDGET = "reasoning_effort", "thinking_budget"
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 4096, "high": 16384, "xhigh": -1}
"""Tokens; Seed-OSS knows multiples of 512, none at all, and -1 for no bound (its model card)."""


def reasoning_variables(known: frozenset[str], enable_thinking: Any, reasoning_effort: Any) -> Mapping[str, Any]:
    """The variables for a template that takes the names `known`; None stands for an option that was not given.

    An effort goes to `reasoning_effort` as it is; a template with nothing but a switch or a budget is told whether it
    is "none", or so many tokens.  OptionError for other values, for two that contradict each other, and where the
    template knows no variable for an option.
    """
    if enable_thinking is not None and not isinstance(enable_thinking, bool):
        raise OptionError(f"enable_thinking is {shown(enable_thinking)}; True or False is due.")
    if reasoning_effort is not None and reasoning_effort not in EFFORTS:
        near = nearest(reasoning_effort, EFFORTS, 1) if isinstance(reasoning_effort, str) else ()
        fix = f"use {near[0]!r}" if near else f"use one of {', '.join(EFFORTS)}"
        raise OptionError(f"There is no reasoning_effort {shown(reasoning_effort)}.", fix=fix)
    if enable_thinking is not None and reasoning_effort is not None and enable_thinking == (reasoning_effort == "none"):
        raise OptionError(f"enable_thinking={enable_thinking} contradicts reasoning_effort={reasoning_effort!r}.")
    variables: dict[str, Any] = {}
    if reasoning_effort is not None:
        if _EFFORT in known:
            variables[_EFFORT] = reasoning_effort
        if _BUDGET in known:
            variables[_BUDGET] = _BUDGETS[reasoning_effort]
        variables |= dict.fromkeys(known.intersection(SWITCHES), reasoning_effort != "none")
        if not variables:
            raise _unknown(_EFFORT, known)
    if enable_thinking is not None:
        switched: dict[str, Any] = dict.fromkeys(known.intersection(SWITCHES), enable_thinking)
        if _BUDGET in known and reasoning_effort is None:
            switched[_BUDGET] = _BUDGETS["xhigh" if enable_thinking else "none"]
        if not switched:
            raise _unknown("enable_thinking", known)
        variables |= switched
    return variables


def _unknown(option: str, known: frozenset[str]) -> OptionError:
    near = sorted(name for name in known if any(part in name for part in ("think", "reason", "effort")))
    return OptionError(
        f"The model's chat template knows nothing of {option}.",
        where=f"its variables of that kind: {', '.join(near) or 'none'}",
        fix="give one of them in template_variables" if near else "leave it out",
    )
