"""A scheduler by its name, or from the configuration of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from bestiary.errors import ConfigError, OptionError, shown
from bestiary.nearest import did_you_mean, nearest
from bestiary.schedulers.ddim import DDIM
from bestiary.schedulers.ddpm import DDPM
from bestiary.schedulers.dpm_solver import DPMSolver
from bestiary.schedulers.euler import Euler
from bestiary.schedulers.euler_ancestral import EulerAncestral
from bestiary.schedulers.flow_match_euler import FlowMatchEuler
from bestiary.schedulers.flow_match_heun import FlowMatchHeun
from bestiary.schedulers.lcm import LCM
from bestiary.schedulers.scheduler import Scheduler
from bestiary.schedulers.switch import switched
from bestiary.schedulers.unipc import UniPC

log = logging.getLogger("bestiary.schedulers")

CLASSES: Mapping[str, Callable[..., Scheduler]] = {
    "FlowMatchEulerDiscreteScheduler": FlowMatchEuler,
    "FlowMatchHeunDiscreteScheduler": FlowMatchHeun,
    "EulerDiscreteScheduler": Euler,
    "EulerAncestralDiscreteScheduler": EulerAncestral,
    "DDIMScheduler": DDIM,
    "DDPMScheduler": DDPM,
    "DPMSolverMultistepScheduler": DPMSolver,
    "UniPCMultistepScheduler": UniPC,
    "LCMScheduler": LCM,
}
"""By their names in diffusers, which are `_class_name` of a configuration."""

_ODE, _SDE = ({"algorithm_type": kind, "solver_order": 2} for kind in ("dpmsolver++", "sde-dpmsolver++"))
NAMES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "flow_match_euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow_match_heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "flow_heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", _ODE),
    "dpmsolverpp": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", _SDE),
    "sde_dpmsolverpp": ("DPMSolverMultistepScheduler", _SDE),
    "unipc": ("UniPCMultistepScheduler", {}),
    "uni_pc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
"""Short names, with what they set.  "++" may stand for "pp"; "_karras" at the end sets use_karras_sigmas."""

_PLAIN: Mapping[str, Mapping[str, tuple[Any, ...] | None]] = {
    "LCMScheduler": dict.fromkeys(("steps_offset", "timestep_spacing", "set_alpha_to_one")),
    "DPMSolverMultistepScheduler": {"variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large")},
    "UniPCMultistepScheduler": {"predict_x0": (True,), "solver_p": (None,)},
}
"""Keys of diffusers' classes that have no field here, and the values at which they change nothing; None: any."""

_ELSEWHERE = frozenset(("skip_prk_steps", "predict_epsilon", "predict_x0", "solver_p", "use_noise_sampler"))
"""Keys of schedulers that are not here, which stay in files when a scheduler is exchanged."""


def make_scheduler(
    choice: str | Mapping[str, Any] | Scheduler, *, base: Mapping[str, Any] | None = None, **changes: Any
) -> Scheduler:
    """A scheduler by short name, by diffusers' class name, or from the object of a scheduler_config.json.

    `base` is the configuration of the checkpoint, of which a scheduler that is named keeps the keys that it knows; a
    configuration, or a scheduler that is made already, stands for itself.  `changes` are keys as in the file.  Raises
    ConfigError for a value of the file, OptionError for a name or a change.
    """
    if not isinstance(choice, str | Mapping):
        return cast(Scheduler, _changed(choice, changes)) if changes else choice
    implied: Mapping[str, Any] = {}
    if isinstance(choice, Mapping):
        stated, name = dict(choice), choice.get("_class_name")
        if not isinstance(name, str) or name not in CLASSES:
            raise ConfigError(
                f'"_class_name" is {shown(name)}, which is no scheduler here.',
                where="scheduler_config.json",
                fix=f"choose another on this configuration, one of {', '.join(sorted(NAMES))}",
            )
    else:
        name, implied = _found(choice)
        stated = dict(base or {})
    try:
        if isinstance(choice, str) and stated:
            stated = switched(stated, name)
        made = CLASSES[name](**_taken(name, stated))
    except ConfigError as error:
        raise ConfigError(error.what, where=error.where or "scheduler_config.json", fix=error.fix) from error
    changes = {**implied, **changes}
    return cast(Scheduler, _changed(made, changes)) if changes else made


def _found(choice: str) -> tuple[str, Mapping[str, Any]]:
    if choice in CLASSES:
        return choice, {}
    key = choice.lower().replace("++", "pp").replace("-", "_").replace(" ", "_")
    short, karras = key.removesuffix("_karras"), key.endswith("_karras")
    if short in NAMES:
        name, implied = NAMES[short]
        return name, {**implied, **({"use_karras_sigmas": True} if karras else {})}
    known = (*NAMES, *CLASSES)
    raise OptionError(
        f"There is no scheduler {shown(choice)}.",
        fix=did_you_mean(choice, known) or f"the schedulers are {', '.join(sorted(NAMES))}",
    )


def _taken(name: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a file that are fields; what has no place is told."""
    known = _fields(CLASSES[name])
    everywhere = set().union(*map(_fields, CLASSES.values()), *_PLAIN.values(), _ELSEWHERE)
    taken: dict[str, Any] = {}
    for key, value in stated.items():
        if not isinstance(key, str) or key.startswith("_"):
            continue
        if key in known:
            if value is not None:  # null means what the class takes for granted
                taken[key] = value
        elif key in _PLAIN.get(name, {}):
            _check_plain(name, key, value)
        elif key not in everywhere:
            near = nearest(key, known, 1)
            log.warning("%s has no key %r, which is ignored%s", name, key, f"; near is {near[0]!r}" if near else "")
        else:
            log.debug("%s has no use for %r", name, key)
    return taken


def _check_plain(name: str, key: str, value: Any) -> None:
    allowed = _PLAIN[name][key]
    if allowed is not None and not any(value is one or value == one for one in allowed):
        raise ConfigError(
            f'"{key}" is {shown(value)}, which {name} does not have here.', fix=f"set {key}={allowed[0]!r}"
        )


def _changed(made: Any, changes: Mapping[str, Any]) -> Any:
    """A record with a user's changes.  Raises OptionError."""
    name = type(made).__name__
    classes = {cls: key for key, cls in CLASSES.items()}
    plain = _PLAIN.get(classes.get(type(made), ""), {})
    known = _fields(type(made)) if is_dataclass(made) else frozenset()
    values = {}
    try:
        for key, value in changes.items():
            if key in known:
                values[key] = value
            elif key in plain:
                _check_plain(classes[type(made)], key, value)
            else:
                fix = did_you_mean(key, known) or f"the keys are {', '.join(sorted(known))}"
                raise OptionError(f'{name} has no key "{key}".', fix=fix)
        return replace(made, **values)
    except ConfigError as error:
        raise OptionError(error.what, fix=error.fix) from error


def _fields(cls: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(cls))
