"""One denoising step of a whole video: predictions of all context windows and CFG branches, averaged over windows."""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from musepose.memory.offload import ModelOffloader
from musepose.models.attention import BlockContext
from musepose.models.chunking import in_chunks
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.pipelines.context_windows import blend_weights
from musepose.pipelines.forecast import DeepCache
from musepose.pipelines.pose_frames import PoseFrames
from musepose.pipelines.steps import Part, Step
from musepose.utils.distributed import ProcessGroup

GUIDER_FRAMES = 8  # frames in a call of the pose guider, which works at the pictures' full size


class PoseFeatures:
    """Pose features of a window, cached between steps if the memory plan allows it for the whole video."""

    def __init__(self, guider: PoseGuider, poses: PoseFrames, windows: Iterable[range], offloader: ModelOffloader):
        self._guider, self._poses, self._offloader = guider, poses, offloader
        self._frames = sum(map(len, windows))  # more than the video has, as windows overlap, and may shift
        self.kept: dict[range, Tensor] = {}

    def __call__(self, window: range) -> Tensor:
        """→ f c h w."""
        limit = self._offloader.plan.keep_pose_features
        if not limit:
            self.kept.clear()  # cached under a larger plan, which ran out of memory
        if window in self.kept:
            return self.kept[window]
        pictures = self._poses.read(window)

        def guide_chunk(frames: slice) -> Tensor:
            # Transferred as bytes and converted to floating point on the device.
            return self._guider((pictures[frames].to(self._guider.device).float() / 255).to(self._guider.dtype))

        features = in_chunks(guide_chunk, len(window), GUIDER_FRAMES)
        if self._frames * features[0].nbytes <= limit:
            self.kept[window] = features
        return features


class _Total:
    """The sum of all processes' predictions in a step, b f c h w, the same to the last bit in every process.

    In round n the n-th parts of all processes are gathered, while the next ones are predicted.
    """

    def __init__(self, latents: Tensor, step: Step, group: ProcessGroup):
        self._sum = latents.new_zeros(len(step.branches), *latents.shape)
        self._first, self._group = step.branches.start, group
        self._rounds = list(zip_longest(*step.shares))
        self._begun = 0
        self._gather: Callable[[], Tensor] | None = None  # ends the round before the next one

    def add(self, prediction: Tensor | None) -> None:
        """Begin the next round with this process's part, b f c h w, or without one if it has no more."""
        self._end_round()
        rows = max(_rows(part) for part in self._rounds[self._begun])
        own = self._sum.new_empty(0, *self._sum.shape[2:]) if prediction is None else prediction.flatten(0, 1)
        if len(own) < rows:
            own = torch.cat([own, own.new_zeros(rows - len(own), *own.shape[1:])])
        self._gather = self._group.start_gather(own)
        self._begun += 1

    def finish(self) -> Tensor:
        """The sum, when all processes have finished."""
        while self._begun < len(self._rounds):
            self.add(None)
        self._end_round()
        return self._sum

    def _end_round(self) -> None:
        if self._gather is None:
            return
        for part, gathered in zip(self._rounds[self._begun - 1], self._gather(), strict=True):
            if part is not None:
                window, branches = part
                place = slice(branches.start - self._first, branches.stop - self._first)
                prediction = gathered[: _rows(part)].unflatten(0, (len(branches), len(window)))
                self._sum[place, window.start : window.stop] += prediction
        self._gather = None


def _rows(part: Part | None) -> int:
    return 0 if part is None else len(part[0]) * len(part[1])


class Denoiser:
    """Predictions for a whole video, by one or several processes.

    contexts: cross-attention and reference inputs of each CFG branch from `UNet.prepare`, the unconditional one first.
    blend: weights of a window's frames, see `blend_weights`.
    shallow: up layers of the UNet that run in every step, see `DeepFeatures`; 0: all of them do.
    """

    def __init__(
        self,
        unet: UNet,
        contexts: Sequence[Sequence[BlockContext]],
        features: PoseFeatures,
        offloader: ModelOffloader,
        group: ProcessGroup,
        blend: str = "flat",
        shallow: int = 0,
    ):
        self._unet, self._contexts, self._features = unet, contexts, features
        self._offloader, self._group, self._blend = offloader, group, blend
        self.deep = DeepCache(shallow, offloader)

    def __call__(self, latents: Tensor, timestep: float, step: Step) -> Tensor:
        """Latents f c h w → predictions of the step's CFG branches, b f c h w, averaged over the windows."""
        self.deep.begin(step)
        total = _Total(latents, step, self._group)
        for window, branches in step.shares[self._group.rank]:
            prediction = self._predict(latents[window.start : window.stop], window, timestep, branches, step)
            if self._blend != "flat":
                prediction = prediction * self._weights(window).to(prediction)
            total.add(prediction)
        weights = torch.zeros(len(latents), 1, 1, 1)  # of all windows together, by frame
        for window in step.windows:
            weights[window.start : window.stop] += self._weights(window)
        return total.finish().div_(weights.to(latents))

    def _weights(self, window: range) -> Tensor:
        return torch.tensor(blend_weights(len(window), self._blend), dtype=torch.float32).view(-1, 1, 1, 1)

    def _predict(self, sample: Tensor, window: range, timestep: float, branches: range, step: Step) -> Tensor:
        """One window's prediction by some CFG branches: b f c h w."""

        def run(branches: range, features: Tensor) -> Tensor:
            contexts = zip(*(self._contexts[branch] for branch in branches), strict=True)
            deep = self.deep.features(window, branches, step)
            prediction = self._unet(
                sample.repeat(len(branches), 1, 1, 1),
                timestep,
                [BlockContext.join(blocks) for blocks in contexts],
                features,
                frames=len(window),
                chunks=self._offloader.plan.chunks,
                deep=deep,
            )
            self.deep.keep(deep, window, branches, step)
            # Under autocast, as in validation, the prediction's type differs from the latents'.
            return prediction.to(sample.dtype).unflatten(0, (len(branches), -1))

        def attempt() -> Tensor:
            features = self._features(window)
            alike = len({step.refresh[branch] for branch in branches}) == 1
            if self._offloader.plan.joint and alike:
                return run(branches, features)
            return torch.cat([run(branches[i : i + 1], features) for i in range(len(branches))])

        return self._offloader.within_memory(attempt)
