"""One denoising step over a whole video: every window's prediction by every CFG branch, averaged over the windows."""

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

GUIDED_TOGETHER = 8  # frames whose pose features are computed at once, at the pictures' full size

Part = tuple[range, range]  # frames of a window, and the CFG branches that predict them


def parts_of_step(windows: Sequence[range], branches: int, group: ProcessGroup) -> list[Part]:
    """This process's share of a step: a contiguous stretch of all (window, branch) pairs, in the order of the windows.

    The shares differ by at most one pair. Both branches of a window go together where they fall into one share.
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
    """The frames that these parts look at."""
    return {frame for window, _ in parts for frame in window}


class PoseFeatures:
    """The pose features of a window, kept from step to step where the memory plan has room for the whole video's."""

    def __init__(self, guider: PoseGuider, poses: PoseFrames, windows: Sequence[range], offloader: ModelOffloader):
        self._guider, self._poses, self._offloader = guider, poses, offloader
        self._frames = sum(map(len, windows))  # more than the video has, as windows overlap
        self.kept: dict[range, Tensor] = {}

    def __call__(self, window: range) -> Tensor:
        """→ f c h w."""
        room = self._offloader.plan.keep_pose_features
        if not room:
            self.kept.clear()  # of a larger plan, which took too much
        if window in self.kept:
            return self.kept[window]
        pictures = self._poses.read(window)

        def piece(frames: slice) -> Tensor:
            # Bytes cross to the device, and are converted to numbers there.
            return self._guider((pictures[frames].to(self._guider.device).float() / 255).to(self._guider.dtype))

        features = in_chunks(piece, len(window), GUIDED_TOGETHER)
        if self._frames * features[0].nbytes <= room:
            self.kept[window] = features
        return features


class Denoiser:
    """Predictions for a video, by one process or by several.

    contexts: what each CFG branch knows, the unconditional one first, from `UNet.prepare`.
    windows: the whole video's; parts: those that this process predicts, see `parts_of_step`.
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
        self._counts = torch.zeros(max(window.stop for window in windows), 1, 1, 1)  # windows that see each frame
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
            # Under autocast, as in validation, the prediction comes in another type than the latents.
            return prediction.to(sample.dtype).unflatten(0, (len(branches), -1))

        def attempt() -> Tensor:
            features = self._features(window)
            if self._offloader.plan.joint:
                return run(branches, features)
            return torch.cat([run(branches[i : i + 1], features) for i in range(len(branches))])

        return self._offloader.within_memory(attempt)


def guide(predictions: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): predictions b f c h w → f c h w; overwrites `predictions`.

    One branch alone is the prediction itself.
    """
    if len(predictions) == 1:
        return predictions[0]
    unconditional, conditional = predictions
    return conditional.sub_(unconditional).mul_(scale).add_(unconditional)
