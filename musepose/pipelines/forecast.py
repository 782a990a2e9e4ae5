"""Linear forecast of what changes slowly from step to step, from its values in two earlier steps."""

import torch
from torch import Tensor

from musepose.memory.offload import ModelOffloader
from musepose.models.unet import DeepFeatures
from musepose.pipelines.steps import Step

KEPT_STEPS = 2  # of which a forecast is made
TREND = 0.8  # share of the linear trend that a forecast follows: the whole of it overshoots, see docs/speed.md


class History:
    """The last two values of a tensor, by step; `at` forecasts almost linearly (Liu et al. 2025, "TaylorSeer").

    The first step sees pure noise: the next values are unlike its own, and their difference says nothing.
    """

    def __init__(self) -> None:
        self.values: list[tuple[int, Tensor]] = []

    def add(self, step: int, value: Tensor) -> None:
        self.drop_oldest()
        self.values.append((step, value))

    def drop_oldest(self) -> None:
        """Before a new value is computed: it replaces the oldest one."""
        self.values = [(step, value) for step, value in self.values[-1:] if step > 0]

    def at(self, step: int, device: torch.device) -> Tensor:
        """The value at `step`: forecast, or with a single known value that one."""
        (last, value), known = self.values[-1], len(self.values)
        value = value.to(device)
        if known == 1:
            return value
        before, older = self.values[0]
        return value.add(value - older.to(device), alpha=TREND * (step - last) / (last - before))


class DeepCache:
    """Features of the UNet's deeper layers (Ma et al. 2023, "DeepCache"), by window and CFG branch."""

    def __init__(self, layers: int, offloader: ModelOffloader):
        self._layers, self._offloader = layers, offloader
        self.kept: dict[tuple[range, int], History] = {}

    def begin(self, step: Step) -> None:
        """Forget what step `step` and later ones do not use."""
        if step.forget:
            self.kept = {key: history for key, history in self.kept.items() if key[0] in step.windows}

    def features(self, window: range, branches: range, step: Step) -> DeepFeatures | None:
        """For a pass through the UNet: empty if it is to run whole; None without a cache."""
        if not self._layers:
            return None
        histories = [self.kept.setdefault((window, branch), History()) for branch in branches]
        if step.refresh[branches.start]:
            for history in histories:
                history.drop_oldest()
            return DeepFeatures(self._layers)
        values = [history.at(step.number, self._offloader.device) for history in histories]
        return DeepFeatures(self._layers, values[0] if len(values) == 1 else torch.cat(values))

    def keep(self, deep: DeepFeatures | None, window: range, branches: range, step: Step) -> None:
        """Keep what a whole pass has set, on the CPU if the memory plan offloads."""
        if deep is None or not step.refresh[branches.start]:
            return
        for branch, value in zip(branches, deep.value.chunk(len(branches)), strict=True):
            self.kept[window, branch].add(step.number, value.to("cpu") if self._offloader.plan.offload else value)
