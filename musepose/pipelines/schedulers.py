"""Schedulers by name, all for one noise schedule: `noise_scheduler_kwargs`."""

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from musepose.utils.errors import UserError

SCHEDULERS = {
    "ddim": DDIMScheduler,  # Song et al. 2020, as published
    "dpm++": DPMSolverMultistepScheduler,  # Lu et al. 2022, second order
    "unipc": UniPCMultistepScheduler,  # Zhao et al. 2023, second order
    "euler": EulerDiscreteScheduler,  # Karras et al. 2022, first order
}


def make_scheduler(
    config: Mapping[str, Any], name: str = "ddim", example: str = "configs/inference_v2.yaml"
) -> SchedulerMixin:
    """The scheduler `name` for the noise schedule `config`, given as DDIMScheduler's arguments.

    Raises UserError: DDIMScheduler does not have an argument, or refuses its value.
    """
    try:
        ddim = DDIMScheduler(**config)
        if ddim.config.prediction_type not in ("v_prediction", "epsilon"):
            raise ValueError(f"prediction_type is {ddim.config.prediction_type}, give v_prediction or epsilon")
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"noise_scheduler_kwargs: {reason}: compare it with {example}") from error
    kind = SCHEDULERS[name]
    return ddim if kind is DDIMScheduler else kind.from_config(ddim.config)


def predicted_original(
    scheduler: SchedulerMixin,
    prediction: Tensor,  # the model's, of any shape
    sample: Tensor,  # its input, after `scale_model_input`
    timestep: int,
) -> Tensor:
    """The latents without noise as the model predicts them in this step: for previews.

    From the definitions of the two predictions (Ho et al. 2020; Salimans & Ho 2022, appendix D).
    """
    signal = scheduler.alphas_cumprod[int(timestep)].to(sample) ** 0.5
    noise = (1 - signal**2).clamp(min=0) ** 0.5
    if scheduler.config.prediction_type == "v_prediction":
        return signal * sample - noise * prediction
    return (sample - noise * prediction) / signal


def timesteps_of(scheduler: SchedulerMixin, steps: int, spacing: float) -> list[int] | None:
    """Timesteps that lie denser at both ends; for a `spacing` of 1 None: the config's.

    Step u, from 0 to 1, has its timestep at (1 - u^p)^spacing of all: p above 1 shortens the first steps, which solvers
    begin without a history, `spacing` the last ones. Both found by trial, see docs/speed.md.
    Raises ValueError: more steps than timesteps, or a scheduler that takes no timesteps.
    """
    trained = most = scheduler.config.num_train_timesteps
    offset = scheduler.config.get("steps_offset", 0)
    if scheduler.config.get("timestep_spacing") == "leading" and (steps - 1) * (trained // steps) + offset >= trained:
        most = trained - offset  # the first timestep would lie behind the last trained one
    if steps > most:
        raise ValueError(f"{steps} steps: at most {most} are possible")
    if spacing == 1:
        return None
    if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise ValueError(f"spacing is {spacing:g}: {type(scheduler).__name__} has its own timesteps")
    start = 1 + 0.4 * (spacing - 1)
    timesteps = [max(0, round(most * (1 - (step / steps) ** start) ** spacing) - 1) for step in range(steps)]
    if len(set(timesteps)) < steps:
        raise ValueError(f"spacing is {spacing:g}: too much for {steps} different timesteps")
    return timesteps


def set_timesteps(scheduler: SchedulerMixin, steps: int, spacing: float = 1.0) -> None:
    """Start a sampling of `steps` steps. Raises ValueError as `timesteps_of` does."""
    timesteps = timesteps_of(scheduler, steps, spacing)
    scheduler.set_timesteps(steps) if timesteps is None else scheduler.set_timesteps(timesteps=timesteps)
