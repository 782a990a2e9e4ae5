"""The optimisers of a training: AdamW, and Muon for those who train from nothing."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from musepose.training.config import Solver

ENDS = ("conv_in.weight", "conv_out.weight")  # first and last layers, which Muon's author leaves to AdamW
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
ITERATIONS = 5


def make_optimizer(named: Iterable[tuple[str, nn.Parameter]], solver: Solver) -> torch.optim.Optimizer:
    """For the parameters that are trained, as `solver.optimizer` says."""
    named = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    settings = {
        "lr": solver.learning_rate,
        "betas": (solver.adam_beta1, solver.adam_beta2),
        "eps": solver.adam_epsilon,
        "weight_decay": solver.adam_weight_decay,
    }
    if solver.optimizer == "adamw":
        return torch.optim.AdamW([parameter for _, parameter in named], **settings)
    hidden = [p for name, p in named if p.ndim > 1 and not name.endswith(ENDS)]
    chosen = set(map(id, hidden))
    others = [p for _, p in named if id(p) not in chosen]
    return Muon([{"params": others, "orthogonal": False}, {"params": hidden, "orthogonal": True}], **settings)


class Muon(torch.optim.AdamW):
    """Muon (Jordan 2024) for parameter groups with `orthogonal`, AdamW for the others.

    A matrix moves by its momentum with all singular values made equal, in steps as long as AdamW's (Liu et al. 2025,
    "Muon is scalable for LLM training"), so that one learning rate serves both. A convolution's kernel counts as the
    matrix from its inputs to its outputs, for which torch.optim.Muon has no room.
    """

    @torch.no_grad()
    def step(self, closure=None):
        groups = [group for group in self.param_groups if group["orthogonal"]]
        gradients = {p: p.grad for group in groups for p in group["params"] if p.grad is not None}
        for parameter in gradients:
            parameter.grad = None  # AdamW passes over what has none
        loss = super().step(closure)
        for group in groups:
            for parameter in group["params"]:
                if parameter in gradients:
                    parameter.grad = gradients[parameter]
                    self._turn(parameter, group["lr"], group["weight_decay"])
        return loss

    def _turn(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.tensor(0.0)  # AdamW looks for it in whatever it loads
        state["step"] += 1
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        direction = orthogonalise(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))
        length = 0.2 * max(direction.shape) ** 0.5
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(direction.view_as(parameter), alpha=-rate * length)


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are about 1 (0.7 to 1.2), by Newton-Schulz iterations in bfloat16."""
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if is_tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrix.dtype)
