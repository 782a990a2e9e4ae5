"""One denoising step of a whole video: predictions of all context windows and CFG branches, averaged over windows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from musepose.memory.offload import ModelOffloader
from musepose.models.attention import BlockContext
from musepose.models.chunking import in_chunks
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.pipelines.pose_frames import PoseFrames
from musepose.utils.distributed import ProcessGroup

GUIDER_FRAMES = 8  # frames in a call of the pose guider, which works at the pictures' full size

Part = tuple[range, range]  # frames of a window, and the CFG branches that predict them


def parts_of_step(windows: Sequence[range], branches: int, group: ProcessGroup) -> list[Part]:
    """This process's share of a step: a contiguous range of all (window, branch) pairs, ordered by window.

    Shares differ by at most one pair. Both branches of a window form one part if they fall into one share.
    """
    pairs = [(window, branch) for window in windows for branch in range(branches)]
    first, last = (len(pairs) * rank // group.count for rank in (group.rank, group.rank + 1))
    parts: list[Part] = []
    for window, branch in pairs[first:last]:
        if parts and parts[-1][0] == window:
            parts[-1] = (window, range(parts[-1][1].start, branch + 1))
        else:
            parts.append((window, range(branch, branch + 1)))
    return parts


def frames_of(parts: Sequence[Part]) -> set[int]:
    """The frames in these parts."""
    return {frame for window, _ in parts for frame in window}


class PoseFeatures:
    """Pose features of a window, cached between steps if the memory plan allows it for the whole video."""

    def __init__(self, guider: PoseGuider, poses: PoseFrames, windows: Sequence[range], offloader: ModelOffloader):
        self._guider, self._poses, self._offloader = guider, poses, offloader
        self._frames = sum(map(len, windows))  # more than the video has, as windows overlap
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


class Denoiser:
    """Predictions for a whole video, by one or several processes.

    contexts: cross-attention and reference inputs of each CFG branch from `UNet.prepare`, the unconditional one first.
    windows: all of the video; parts: those that this process predicts, see `parts_of_step`.
    """

    def __init__(
        self,
        unet: UNet,
        contexts: Sequence[Sequence[BlockContext]],
        features: PoseFeatures,
        windows: Sequence[range],
        parts: Sequence[Part],
        offloader: ModelOffloader,
        group: ProcessGroup,
    ):
        self._unet, self._contexts, self._features = unet, contexts, features
        self._parts, self._offloader, self._group = parts, offloader, group
        self._counts = torch.zeros(max(window.stop for window in windows), 1, 1, 1)  # number of windows with each frame
        for window in windows:
            self._counts[window.start : window.stop] += 1

    def __call__(self, latents: Tensor, timestep: float) -> Tensor:
        """Latents f c h w → predictions of all CFG branches, b f c h w, averaged over the windows."""
        total = latents.new_zeros(len(self._contexts), *latents.shape)
        for window, branches in self._parts:
            prediction = self._predict(latents[window.start : window.stop], window, timestep, branches)
            total[branches.start : branches.stop, window.start : window.stop] += prediction
        return self._group.all_reduce(total).div_(self._counts.to(total))

    def _predict(self, sample: Tensor, window: range, timestep: float, branches: range) -> Tensor:
        """One window's prediction by some CFG branches: b f c h w."""

        def run(branches: range, features: Tensor) -> Tensor:
            contexts = zip(*(self._contexts[branch] for branch in branches), strict=True)
            prediction = self._unet(
                sample.repeat(len(branches), 1, 1, 1),
                timestep,
                [BlockContext.join(blocks) for blocks in contexts],
                features,
                frames=len(window),
                chunks=self._offloader.plan.chunks,
            )
            # Under autocast, as in validation, the prediction's type differs from the latents'.
            return prediction.to(sample.dtype).unflatten(0, (len(branches), -1))

        def attempt() -> Tensor:
            features = self._features(window)
            if self._offloader.plan.joint:
                return run(branches, features)
            return torch.cat([run(branches[i : i + 1], features) for i in range(len(branches))])

        return self._offloader.within_memory(attempt)


def guide(predictions: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): predictions b f c h w → f c h w; overwrites `predictions`.

    With one branch, that is the prediction itself.
    """
    if len(predictions) == 1:
        return predictions[0]
    unconditional, conditional = predictions
    return conditional.sub_(unconditional).mul_(scale).add_(unconditional)
