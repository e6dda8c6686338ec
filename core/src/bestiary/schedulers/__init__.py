"""Schedulers of diffusion and flow models: which noise is taken away in which step, in numpy alone.

    scheduler                        what a scheduler is: Schedule, Scheduler
    choice, switch                   one by its name or from a checkpoint's file; the file of one for another
    keys, request                    checks of settings, and of what is asked of a schedule
    betas, spacing, spread, shift    tables: noise by timestep, timesteps, sigmas, shifts (quantile: for one of them)
    prediction, clipping             picture and noise from what a model predicts
    flow_match, multistep            what several schedulers share (unipc_step: the arithmetic of one of them)

Each of the others is one method.
"""

from bestiary.schedulers.choice import make_scheduler
from bestiary.schedulers.scheduler import Schedule, Scheduler
from bestiary.schedulers.shift import calculate_shift, mu_for

__all__ = ["Schedule", "Scheduler", "calculate_shift", "make_scheduler", "mu_for"]
