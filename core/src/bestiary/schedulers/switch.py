"""The configuration of one scheduler as that of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestiary.errors import OptionError

_FLOW = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
_EITHER = frozenset({"DPMSolverMultistepScheduler", "UniPCMultistepScheduler"})

_OWN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "DPMSolverMultistepScheduler": {
        "solver_type": ("midpoint", "heun"),
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
        "variance_type": (),
    },
    "UniPCMultistepScheduler": {"solver_type": ("bh1", "bh2")},
    "DDPMScheduler": {"variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned_range")},
}
"""Keys that several classes have with values of their own; those of another class say nothing."""


def switched(stated: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keys of a configuration for the class `name`, which may be another than its own.

    A model of flow matching stays one: its shift goes along under the name that it has there.  Raises OptionError for a
    scheduler that is not made for what the model predicts; diffusers would make noise of it.
    """
    old = stated.get("_class_name")
    made = {key: value for key, value in stated.items() if not (isinstance(key, str) and key.startswith("_"))}
    if old == name:
        return made
    for key, values in _OWN.get(name, {}).items():
        if made.get(key) not in values:
            made.pop(key, None)
    by_flow = isinstance(old, str) and old.startswith("FlowMatch")
    flows = by_flow or made.get("use_flow_sigmas") is True or made.get("prediction_type") == "flow_prediction"
    if flows and name not in _FLOW | _EITHER:
        raise OptionError(
            f"{name} is for models that predict noise; this one predicts flow.",
            fix="choose flow_match_euler, flow_match_heun, dpmpp_2m or unipc",
        )
    if not flows and name in _FLOW and old is not None:
        raise OptionError(
            f"{name} is for models that predict flow; this one predicts noise.",
            fix="choose euler, dpmpp_2m, unipc or ddim",
        )
    if by_flow and name in _EITHER:
        made |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        if "shift" in made:
            made["flow_shift"] = made.pop("shift")
    elif flows and name in _FLOW and "flow_shift" in made:
        made["shift"] = made.pop("flow_shift")
    return made
