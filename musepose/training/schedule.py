"""The learning rate: its schedule, and what a resumed training takes from its settings rather than from its state."""

from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch.optim.lr_scheduler import LambdaLR

from musepose.training.config import Solver
from musepose.utils.errors import UserError

TOLERANCE = 1e-6  # of learning rate factors, which are float64 sums
NAMES = {"initial_lr": "learning_rate", "betas": "adam_beta1 and adam_beta2", "eps": "adam_epsilon"}
NAMES |= {"weight_decay": "adam_weight_decay"}  # PyTorch's names → keys of `solver`


def make_schedule(optimizer: torch.optim.Optimizer, solver: Solver) -> LambdaLR:
    """The schedule `solver.lr_scheduler`; with `lr_decay_steps` it ends in a linear decay to 0.

    The trapezoidal schedule (Hägele et al. 2024) can be prolonged, as the length of the plateau is not part of it.
    """
    steps = {"num_warmup_steps": solver.lr_warmup_steps, "num_training_steps": solver.max_train_steps}
    schedule = get_scheduler(solver.lr_scheduler, optimizer, **steps)
    if not solver.lr_decay_steps:
        return schedule
    whole, total, decay = schedule.lr_lambdas[0], solver.max_train_steps, solver.lr_decay_steps
    return LambdaLR(optimizer, lambda step: whole(step) * min(1.0, max(total - step, 0) / decay))


class Continuation:
    """Keeps the optimizer's settings over the loading of a state, which brings those that it was written with."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: LambdaLR):
        self.optimizer, self.schedule = optimizer, schedule
        self.settings = [_settings(group) for group in optimizer.param_groups]

    def restore(self) -> list[str]:
        """Continue the loaded state with the settings. → a line for each setting that differs from the state's.

        Raises UserError: the learning rate would jump, as another schedule or number of steps would make it do.
        """
        schedule, step = self.schedule, self.schedule.last_epoch
        lines: list[str] = []
        for index, (group, own) in enumerate(zip(self.optimizer.param_groups, self.settings, strict=True)):
            before, after = group["lr"] / group["initial_lr"], schedule.lr_lambdas[index](step)
            if abs(after - before) > TOLERANCE:
                raise UserError(
                    f"the state of step {step} has {before:.3g} of the peak learning rate, these settings go on with "
                    f"{after:.3g} of it: give the solver.max_train_steps and solver.lr_* of its training, or start a "
                    "new one from its models with start_from"
                )
            lines += [
                f"solver.{key}: {own[name]} from here on, the state has {group.get(name)}"
                for name, key in NAMES.items()
                if group.get(name) != own[name]
            ]
            group.update(own, lr=own["initial_lr"] * after)
        schedule.base_lrs = [own["initial_lr"] for own in self.settings]
        schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        return list(dict.fromkeys(lines))


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("params", "lr")}
