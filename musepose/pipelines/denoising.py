"""One denoising step over a whole video: every window's prediction, averaged, by one process or by several."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from musepose.memory.offload import Residency
from musepose.models.attention import BlockContext
from musepose.models.chunking import in_pieces
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.pipelines.pose_frames import PoseFrames
from musepose.utils.distributed import Processes

GUIDED_TOGETHER = 8  # frames whose pose features are computed at once, at the pictures' full size


def parts_of_step(spans: Sequence[range], rows: int, processes: Processes) -> list[tuple[range, list[int]]]:
    """→ the parts of a step, which the processes take in turns: windows, and rows of the guidance.

    Alone, a process does all rows of a window at a time. Several do one row at a time, so that the work is shared more
    evenly, and all of them the same one: the row that sees the reference takes longer, and the others would wait.
    """
    if processes.count == 1:
        return [(window, list(range(rows))) for window in spans]
    groups = (spans[start : start + processes.count] for start in range(0, len(spans), processes.count))
    return [(window, [row]) for group in groups for row in range(rows) for window in group]


def frames_of(spans: Sequence[range], rows: int, processes: Processes) -> set[int]:
    """The frames that this process ever looks at."""
    mine = parts_of_step(spans, rows, processes)[processes.rank :: processes.count]
    return {frame for window, _ in mine for frame in window}


class PoseGuide:
    """The pose features of a window, kept from step to step where the memory plan has room for the whole video's."""

    def __init__(self, guider: PoseGuider, poses: PoseFrames, spans: Sequence[range], residency: Residency):
        self._guider, self._poses, self._residency = guider, poses, residency
        self._frames = sum(map(len, spans))  # more than the video has, as windows overlap
        self.kept: dict[range, Tensor] = {}

    def __call__(self, window: range) -> Tensor:
        """→ f c h w."""
        room = self._residency.plan.keep_pose_features
        if not room:
            self.kept.clear()  # of a larger plan, which took too much
        if window in self.kept:
            return self.kept[window]
        pictures = self._poses.read(window)

        def piece(frames: slice) -> Tensor:
            # Bytes cross over, numbers are made of them there.
            return self._guider((pictures[frames].to(self._guider.device).float() / 255).to(self._guider.dtype))

        features = in_pieces(piece, len(window), GUIDED_TOGETHER)
        if self._frames * features[0].nbytes <= room:
            self.kept[window] = features
        return features


class WindowAverage:
    """Running mean of predictions over overlapping windows, holding only frames that are not finished yet.

    Predictions come as (r f c h w), r the rows of the guidance; none may be for a frame that was taken.
    """

    def __init__(self, rows: int, like: Tensor):  # like: f c h w, of any number of frames
        self.start = 0  # the first frame that was not taken yet
        self._total = like.new_zeros(rows, 0, *like.shape[1:])
        self._count = like.new_zeros(rows, 0, 1, 1, 1)

    def add(self, start: int, total: Tensor, count: Tensor | int = 1) -> None:
        """Add sums of `count` predictions (r f 1 1 1, or one for all) for the frames from `start` on."""
        self._extend(start + total.shape[1])
        frames = slice(start - self.start, start - self.start + total.shape[1])
        self._total[:, frames] += total
        self._count[:, frames] += count

    def take(self, stop: int) -> tuple[range, Tensor]:
        """The frames before `stop`, to which no more will be added, and their means r f c h w; they are let go of."""
        taken = range(self.start, stop)
        total, self._total = self._total[:, : len(taken)], self._total[:, len(taken) :]
        count, self._count = self._count[:, : len(taken)], self._count[:, len(taken) :]
        self.start = stop
        return taken, total / count

    def _extend(self, stop: int) -> None:
        more = stop - self.start - self._total.shape[1]
        if more > 0:
            self._total, self._count = (
                torch.cat([x, x.new_zeros(x.shape[0], more, *x.shape[2:])], dim=1) for x in (self._total, self._count)
            )


class Denoiser:
    """Predictions for a video whose windows are `spans`, with a context for each row of the guidance."""

    def __init__(
        self,
        unet: UNet,
        contexts: Sequence[Sequence[BlockContext]],
        guide: PoseGuide,
        spans: Sequence[range],
        residency: Residency,
        processes: Processes,
    ):
        self._unet, self._contexts, self._guide = unet, contexts, guide
        self._residency, self._processes = residency, processes
        self._parts = parts_of_step(spans, len(contexts), processes)

    def __call__(self, latents: Tensor, timestep: float) -> Iterator[tuple[range, Tensor]]:
        """Latents f c h w → frames whose prediction is complete, and it: r f c h w, r the rows of the guidance.

        The latents of the frames given may be changed before the next ones are asked for, those of later frames not.
        """
        count, rows = self._processes.count, len(self._contexts)
        average = WindowAverage(rows, latents)
        for start in range(0, len(self._parts), count):
            together = self._parts[start : start + count]
            first, last = min(window.start for window, _ in together), max(window.stop for window, _ in together)
            total = latents.new_zeros(rows, last - first, *latents.shape[1:])
            added = latents.new_zeros(rows, last - first, 1, 1, 1)
            for rank, (window, part) in enumerate(together):
                place = slice(window.start - first, window.stop - first)
                added[part, place] += 1
                if rank == self._processes.rank:
                    total[part, place] = self._predict(latents, window, timestep, part)
            predicted = [row for _, part in together for row in part]
            self._processes.sum(total[min(predicted) : max(predicted) + 1])  # in place; no other row is sent
            average.add(first, total, added)
            done = min((window.start for window, _ in self._parts[start + count :]), default=last)
            if done > average.start:
                yield average.take(done)

    def _predict(self, latents: Tensor, window: range, timestep: float, rows: list[int]) -> Tensor:
        """One window's prediction for some rows of the guidance: r f c h w."""
        sample = latents[window.start : window.stop]

        def run(rows: list[int], features: Tensor) -> Tensor:
            context = [BlockContext.join(parts) for parts in zip(*(self._contexts[row] for row in rows), strict=True)]
            prediction = self._unet(
                sample.repeat(len(rows), 1, 1, 1),
                timestep,
                context,
                features,
                frames=len(window),
                chunks=self._residency.plan.chunks,
            )
            # Under autocast, as in a training's validation, it comes in another type than the latents have.
            return prediction.to(latents.dtype).unflatten(0, (len(rows), -1))

        def attempt() -> Tensor:
            features = self._guide(window)
            if self._residency.plan.joint:
                return run(rows, features)
            return torch.cat([run([row], features) for row in rows])

        return self._residency.within_memory(attempt)
