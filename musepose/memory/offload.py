"""Offloading: models wait on the CPU for their turn; out of memory, the next smaller memory plan is tried."""

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from musepose.memory.plan import HIGH, MemoryPlan, smaller
from musepose.utils.errors import is_out_of_memory

Result = TypeVar("Result")


class ModelOffloader:
    """Brings models to the computing device when they are used, and follows a memory plan.

    `models` gives the models by name; it is asked each time, so that a model that was replaced counts. `offloads`:
    whether models may be offloaded to the CPU; not while they are being trained.
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
        self._device = device  # None: wherever the models are
        self._in_use: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        return self._device or next(next(iter(self.models().values())).parameters()).device

    def use(self, *names: str) -> None:
        """Bring these models to the computing device; where the plan offloads, the others go to the CPU first."""
        self._in_use = names
        if self._device is None:
            if not self.plan.offload:
                return
            self._device = self.device  # from now on models may be elsewhere
        device, models = self._device, self.models()
        if self.plan.offload:
            for name, model in models.items():
                if name not in names:
                    nn.Module.to(model, "cpu")
        for name in names:
            # Not diffusers' own `to`, which warns of offloaded models.
            nn.Module.to(models[name], device)

    def within_memory(self, run: Callable[[], Result]) -> Result:
        """Run; where the memory does not suffice, say so, and run again with the next smaller plan.

        Raises what `run` raises, out-of-memory errors only below the smallest plan.
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
            # Outside of the handler, whose error holds on to everything that was being computed.
            print(f"out of memory: continuing with the smaller plan {plan}", file=sys.stderr, flush=True)
            self.plan = plan if self.offloads else replace(plan, offload=False)
            again = True
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
