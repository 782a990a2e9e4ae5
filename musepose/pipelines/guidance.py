"""Classifier-free guidance (Ho & Salimans 2022): in every step, or with the branches' difference of an earlier step."""

from torch import Tensor

from musepose.pipelines.forecast import History
from musepose.pipelines.steps import Step


def guide(predictions: Tensor, scale: float) -> Tensor:
    """Predictions b f c h w → f c h w; overwrites `predictions`. With one branch, that is the prediction itself."""
    if len(predictions) == 1:
        return predictions[0]
    unconditional, conditional = predictions
    return conditional.sub_(unconditional).mul_(scale).add_(unconditional)


class Guide:
    """`guide` over the steps of a sampling; keeps the branches' difference where later steps reuse it.

    The difference changes slowly from step to step (Lv et al. 2024, "FasterCache").
    """

    def __init__(self, scale: float, keeps: bool):
        self._scale = scale
        self._difference = History() if keeps else None

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """Predictions of the step's branches, b f c h w → f c h w; overwrites `predictions`."""
        if step.guidance == "reuse":
            difference = self._difference.at(step.number, predictions.device)
            return predictions[0].add_(difference, alpha=self._scale - 1)
        if step.guidance == "compute" and self._difference is not None:
            self._difference.add(step.number, predictions[1] - predictions[0])
        return guide(predictions, self._scale)
