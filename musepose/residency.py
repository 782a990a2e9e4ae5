"""Which models are on the computing device, and what happens when its memory does not suffice."""

import gc
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from musepose.memory import HIGH, MemoryPlan, is_out_of_memory, smaller

Result = TypeVar("Result")


class Residency:
    """Models by name, the device they compute on, and the memory plan that is followed."""

    def __init__(self, models: Mapping[str, nn.Module], device: torch.device | None = None, plan: MemoryPlan = HIGH):
        self.plan = plan
        self.models = models
        self._device = device  # None: wherever the models are
        self._in_use: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        return self._device or next(next(iter(self.models.values())).parameters()).device

    def use(self, *names: str) -> None:
        """Bring these models to the computing device; where the plan offloads, the others go to the CPU first."""
        self._in_use = names
        if self._device is None and not self.plan.offload:
            return
        device = self.device
        if self.plan.offload:
            for name, model in self.models.items():
                if name not in names:
                    nn.Module.to(model, "cpu")
        for name in names:
            # Not diffusers' own `to`, which warns of offloaded models.
            nn.Module.to(self.models[name], device)

    def within_memory(self, run: Callable[[], Result]) -> Result:
        """Run; where the memory does not suffice, say so, and run again with the next smaller plan.

        Raises what `run` raises, out-of-memory errors only below the smallest plan.
        """
        while True:
            try:
                return run()
            except (RuntimeError, MemoryError) as error:
                plan = smaller(self.plan, self.device)
                if not is_out_of_memory(error) or plan is None:
                    raise
            # Outside of the handler, whose error holds on to everything that was being computed.
            print(f"out of memory: going on with less at a time: {plan}", file=sys.stderr, flush=True)
            self.plan, self._device = plan, self.device  # from now on models may be elsewhere
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.use(*self._in_use)
