"""Optimizers: AdamW, and Muon for training from scratch."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from musepose.training.config import Solver

FIRST_AND_LAST = ("conv_in.weight", "conv_out.weight")  # layers that Muon's author trains with AdamW
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
ITERATIONS = 5
BATCH = 2**22  # elements that are orthogonalised together


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
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        for group in groups:
            for parameters in alike(p for p in group["params"] if p in gradients):
                self._orthogonal_step(parameters, group["lr"], group["weight_decay"])
        return loss

    def _orthogonal_step(self, parameters: list[nn.Parameter], rate: float, weight_decay: float) -> None:
        """One update of parameters of the same shape."""
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
                state["step"] = torch.tensor(0.0)  # AdamW expects it in every loaded state
            state["step"] += 1
        gradients = [parameter.grad for parameter in parameters]
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        matrices = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).flatten(2)
        directions = orthogonalise(matrices).view(-1, *parameters[0].shape).unbind()
        scale = 0.2 * max(matrices.shape[1:]) ** 0.5
        torch._foreach_mul_(parameters, 1 - rate * weight_decay)
        torch._foreach_add_(parameters, directions, alpha=-rate * scale)


def alike(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Group parameters of the same shape, type and device, up to BATCH elements: small matrices are faster together."""
    groups: dict[tuple, list[nn.Parameter]] = {}
    for parameter in parameters:
        group = groups.setdefault((parameter.shape, parameter.dtype, parameter.device), [])
        if group and (len(group) + 1) * parameter.numel() > BATCH:
            yield group[:]
            group.clear()
        group.append(parameter)
    yield from groups.values()


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices (singular values 0.7 to 1.2), by Newton-Schulz iterations in bfloat16.

    matrices: n r c; the iterations are per matrix.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)
