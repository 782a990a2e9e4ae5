"""Optimizers: AdamW, and Muon for training from scratch."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from musepose.training.config import Solver

FIRST_AND_LAST = ("conv_in.weight", "conv_out.weight")  # layers that Muon's author trains with AdamW
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
ITERATIONS = 5


def make_optimizer(named: Iterable[tuple[str, nn.Parameter]], solver: Solver) -> torch.optim.Optimizer:
    """The optimizer `solver.optimizer` for all parameters that require gradients."""
    named = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    settings = {
        "lr": solver.learning_rate,
        "betas": (solver.adam_beta1, solver.adam_beta2),
        "eps": solver.adam_epsilon,
        "weight_decay": solver.adam_weight_decay,
    }
    if solver.optimizer == "adamw":
        return torch.optim.AdamW([parameter for _, parameter in named], **settings)
    hidden = [p for name, p in named if p.ndim > 1 and not name.endswith(FIRST_AND_LAST)]
    chosen = set(map(id, hidden))
    others = [p for _, p in named if id(p) not in chosen]
    return Muon([{"params": others, "orthogonal": False}, {"params": hidden, "orthogonal": True}], **settings)


class Muon(torch.optim.AdamW):
    """Muon (Jordan 2024) for parameter groups with `orthogonal`, AdamW for the others.

    The update of a matrix is its orthogonalised momentum, scaled to the RMS of AdamW's updates (Liu et al. 2025, "Muon
    is scalable for LLM training"), so that both share one learning rate. A convolution kernel is flattened to an
    (outputs, inputs) matrix; torch.optim.Muon takes 2-D parameters only.
    """

    @torch.no_grad()
    def step(self, closure=None):
        groups = [group for group in self.param_groups if group["orthogonal"]]
        gradients = {p: p.grad for group in groups for p in group["params"] if p.grad is not None}
        for parameter in gradients:
            parameter.grad = None  # AdamW skips parameters without a gradient
        loss = super().step(closure)
        for group in groups:
            for parameter in group["params"]:
                if parameter in gradients:
                    parameter.grad = gradients[parameter]
                    self._orthogonal_step(parameter, group["lr"], group["weight_decay"])
        return loss

    def _orthogonal_step(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.tensor(0.0)  # AdamW expects it in every loaded state
        state["step"] += 1
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        direction = orthogonalise(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))
        scale = 0.2 * max(direction.shape) ** 0.5
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(direction.view_as(parameter), alpha=-rate * scale)


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix (singular values 0.7 to 1.2), by Newton-Schulz iterations in bfloat16."""
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if is_tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrix.dtype)
