"""Stops a training whose loss, gradients or weights are no longer finite, before it saves them."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from musepose.utils.errors import UserError

OVERFLOWS = 50  # skipped steps in a row; float16's loss scale starts at 2^16 and halves with each
REMEDY = "lower the learning rate, or train in bf16 or without mixed precision; earlier states and models are kept"


class FiniteCheck:
    """Checks of one training. Every process must call each of them; all processes raise together.

    Steps are counted from 1. All methods raise UserError, which names the step.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.overflows = accelerator, 0

    def check_loss(self, loss: Tensor, step: int) -> None:
        """Check a loss, before its backward pass: DeepSpeed's backward pass changes the weights."""
        if self._anywhere(not loss.isfinite().all()):
            raise UserError(f"the loss of step {step} is not finite: {REMEDY}")

    def check_gradients(self, norm: Tensor | float | None, step: int) -> None:
        """Check the gradients' norm, before the optimizer's step. None: DeepSpeed clips, and checks, by itself.

        With float16 an infinite norm is normal now and then: the step is skipped, and the loss scale halves.
        """
        is_finite = norm is None or bool(torch.as_tensor(norm).isfinite())
        if not self._anywhere(not is_finite):
            self.overflows = 0
            return
        self.overflows += 1
        if self.accelerator.mixed_precision != "fp16":
            raise UserError(f"the gradients of step {step} are not finite: {REMEDY}")
        if self.overflows == OVERFLOWS:
            raise UserError(f"the gradients have overflowed float16 for {OVERFLOWS} steps, up to step {step}: {REMEDY}")

    def check_weights(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        """Check the weights after `step` steps, before they are saved."""
        flags = [parameter.detach().isfinite().all() for parameter in parameters]
        if self._anywhere(bool(flags) and not torch.stack(flags).all()):
            raise UserError(f"the weights are not finite after step {step}: {REMEDY}")

    def _anywhere(self, is_wrong: bool | Tensor) -> bool:
        """Whether something is wrong in any process."""
        if self.accelerator.num_processes == 1:
            return bool(is_wrong)
        flag = torch.tensor(float(is_wrong), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag) > 0)
