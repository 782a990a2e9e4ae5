"""A training of one small layer with the states of a whole one: model, optimizer, EMA, schedule."""

from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from musepose.training.checkpoints import Checkpoints
from musepose.training.state_files import StateParts


class TinyTraining:
    """Deterministic steps on a linear layer; `states` are its checkpoints in `folder`."""

    def __init__(self, folder: Path, keep: int = 9):
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True)
        self.layer = nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(self.layer.parameters(), 0.1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        self.ema = EMAModel(self.layer.parameters(), decay=0.5)
        self.model, self.optimizer = self.accelerator.prepare(self.layer, optimizer)
        parts = StateParts([self.model], [self.optimizer], [self.ema, self.schedule])
        self.states = Checkpoints(self.accelerator, folder, keep, parts)

    def step(self) -> None:
        self.model(torch.ones(2, 4) * (1 + self.schedule.last_epoch)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.step(self.layer.parameters())

    def train(self, steps: int, first: int = 1) -> "TinyTraining":
        """Steps `first` to `steps`, each with a checkpoint."""
        for step in range(first, steps + 1):
            self.step()
            self.states.save(step)
        return self

    def numbers(self) -> list[Tensor]:
        """All that decides how the training goes on."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.layer.parameters(), *self.ema.shadow_params, *moments]
        tensors.append(torch.tensor([*self.schedule.get_last_lr(), self.schedule.last_epoch]))
        return [tensor.detach().clone() for tensor in tensors]
