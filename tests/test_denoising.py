"""One denoising step: the predictions of each process, and the average of overlapping windows."""

import pytest
import torch

from musepose.memory.offload import ModelOffloader
from musepose.pipelines.context_windows import context_windows
from musepose.pipelines.denoising import Denoiser, frames_of, guide, parts_of_step
from musepose.utils.distributed import ProcessGroup


def first_latent(sample, timestep, context, features, frames, chunks):
    """In place of the UNet: predicts the first frame's latents for every frame of a window."""
    return sample.unflatten(0, (-1, frames))[:, :1].expand(-1, frames, -1, -1, -1).flatten(0, 1)


@pytest.mark.parametrize("branches", [1, 2])
def test_overlap_is_averaged(branches):
    windows = [range(0, 3), range(2, 5)]
    latents = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 4, 2, 2)
    parts = parts_of_step(windows, branches, ProcessGroup())
    offloader = ModelOffloader(dict)
    denoiser = Denoiser(first_latent, [[]] * branches, lambda window: None, windows, parts, offloader, ProcessGroup())
    predictions = denoiser(latents, 0.0)
    assert predictions.shape == (branches, *latents.shape)
    for prediction in predictions:
        assert prediction[:, 0, 0, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 2.0]


def test_the_shares_of_several_processes_add_up():
    windows = list(context_windows(10, 4, 1))
    latents = torch.arange(10.0).view(10, 1, 1, 1)

    def predict(group: ProcessGroup) -> torch.Tensor:
        parts = parts_of_step(windows, 2, group)
        group.count = 1  # no peer to reduce with
        args = (first_latent, [[], []], lambda window: None, windows, parts, ModelOffloader(dict), group)
        return Denoiser(*args)(latents, 0.0)

    alone = predict(ProcessGroup())
    for count in (2, 3, 5):
        shares = sum(predict(ProcessGroup(rank, count)) for rank in range(count))
        # Sums of at most two small integers, halved: exact.
        assert torch.equal(shares, alone)


def test_guidance():
    predictions = torch.stack([torch.full((2, 1, 1, 1), 1.0), torch.full((2, 1, 1, 1), 3.0)])
    assert guide(predictions.clone(), 3.5).flatten().tolist() == [8.0, 8.0]
    assert torch.equal(guide(predictions[1:], 3.5), predictions[1])


def test_parts_of_a_step():
    """One process: windows with both branches. Several processes: contiguous parts, as equal as possible."""
    windows = a, b, c = [range(0, 4), range(3, 7), range(6, 10)]
    both, unconditional, conditional = range(0, 2), range(0, 1), range(1, 2)
    assert parts_of_step(windows, 2, ProcessGroup()) == [(a, both), (b, both), (c, both)]
    assert parts_of_step(windows, 2, ProcessGroup(0, 2)) == [(a, both), (b, unconditional)]
    assert parts_of_step(windows, 2, ProcessGroup(1, 2)) == [(b, conditional), (c, both)]
    assert parts_of_step(windows, 1, ProcessGroup(1, 2)) == [(b, unconditional), (c, unconditional)]
    assert parts_of_step(windows[:1], 2, ProcessGroup(1, 4)) == [(a, unconditional)]
    assert parts_of_step(windows[:1], 2, ProcessGroup(2, 4)) == []


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("branches", [1, 2])
def test_parts_cover_each_window_and_branch_once(count, branches):
    windows = list(context_windows(30, 4, 1))
    shares = [parts_of_step(windows, branches, ProcessGroup(rank, count)) for rank in range(count)]
    pairs = [[(window, branch) for window, some in share for branch in some] for share in shares]
    assert sum(pairs, []) == [(window, branch) for window in windows for branch in range(branches)]
    assert max(map(len, pairs)) - min(map(len, pairs)) <= 1


def test_frames_that_a_process_looks_at():
    """Only the middle window is processed by both, each for one branch."""
    windows = list(context_windows(10, 4, 1))
    frames = [frames_of(parts_of_step(windows, 2, ProcessGroup(rank, 2))) for rank in range(2)]
    assert frames == [set(range(7)), set(range(3, 10))]
