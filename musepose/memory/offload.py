"""Model offloading to the CPU, and out-of-memory recovery with the next smaller memory plan."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from musepose.memory.plan import HIGH, MemoryPlan, smaller
from musepose.utils.errors import is_out_of_memory

Result = TypeVar("Result")


class ModelOffloader:
    """Moves models to the device when they are used, and offloads the others if the memory plan says so.

    `models` returns the models by name; it is called on each use, so that replaced models count. `offloads`: False
    during training, where models must stay on the device.
    """

    def __init__(
        self,
        models: Callable[[], Mapping[str, nn.Module]],
        device: torch.device | None = None,
        plan: MemoryPlan = HIGH,
        offloads: bool = True,
    ):
        self.plan, self.offloads = plan, offloads
        self.models = models
        self._device = device  # None: the models' current device
        self._in_use: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        return self._device or next(next(iter(self.models().values())).parameters()).device

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Afterwards the models that are in use now are in use again: for a look at the result in between."""
        names = self._in_use
        yield
        self.use(*names)

    def use(self, *names: str) -> None:
        """Move these models to the device; if the plan offloads, first move the others to the CPU."""
        self._in_use = names
        if self._device is None:
            if not self.plan.offload:
                return
            self._device = self.device  # remembered, as models may be offloaded from now on
        device, models = self._device, self.models()
        if self.plan.offload:
            for name, model in models.items():
                if name not in names:
                    nn.Module.to(model, "cpu")
        for name in names:
            # nn.Module's `to`: diffusers' own warns about offloaded models.
            nn.Module.to(models[name], device)

    def within_memory(self, run: Callable[[], Result]) -> Result:
        """Call `run`; out of memory, switch to the next smaller plan, print that, and try again.

        Raises the exceptions of `run`, out-of-memory errors only with the smallest plan.
        """
        again = False
        while True:
            try:
                if again:
                    self.use(*self._in_use)
                return run()
            except (RuntimeError, MemoryError) as error:
                plan = smaller(self.plan, self.device)
                if not is_out_of_memory(error) or plan is None:
                    raise
            # Outside the handler, as the exception keeps all intermediate tensors alive.
            print(f"out of memory: continuing with the smaller plan {plan}", file=sys.stderr, flush=True)
            self.plan = plan if self.offloads else replace(plan, offload=False)
            again = True
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
