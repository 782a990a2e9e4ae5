"""One denoising step: the predictions of each process, and the average of overlapping windows."""

import pytest
import torch
from tolerance import rounding

from musepose.memory.offload import ModelOffloader
from musepose.pipelines.context_windows import context_windows
from musepose.pipelines.denoising import Denoiser
from musepose.pipelines.guidance import guide
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.steps import frames_of, plan_steps, share_step
from musepose.utils.distributed import ProcessGroup


def first_latent(sample, timestep, context, features, frames, chunks, deep):
    """In place of the UNet: predicts the first frame's latents for every frame of a window."""
    return sample.unflatten(0, (-1, frames))[:, :1].expand(-1, frames, -1, -1, -1).flatten(0, 1)


def options(**changes) -> SamplingOptions:
    return SamplingOptions(num_inference_steps=1, **changes)


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize(
    ("blend", "expected"),
    # The windows' own predictions are 0 and 2, their weights 1, 2, 3, 2, 1 with "triangle".
    [("flat", [0, 0, 0, 1, 1, 2, 2, 2]), ("triangle", [0, 0, 0, 2 * 1 / 3, 2 * 2 / 3, 2, 2, 2])],
)
def test_overlap_is_averaged(branches, blend, expected):
    frames = torch.tensor([0.0, 0, 0, 2, 2, 2, 2, 2])
    latents = frames.view(8, 1, 1, 1).expand(8, 4, 2, 2)
    (step,) = plan_steps(options(context_frames=5, context_overlap=2, guidance_scale=float(branches)), 8)
    assert step.windows == (range(0, 5), range(3, 8))
    arguments = ([[]] * branches, lambda window: None, ModelOffloader(dict), ProcessGroup())
    predictions = Denoiser(first_latent, *arguments, blend=blend)(latents, 0.0, step)
    assert predictions.shape == (branches, *latents.shape)
    for prediction in predictions:
        assert prediction[:, 0, 0, 0].tolist() == pytest.approx(expected, abs=rounding(4, 2))


class Peers(ProcessGroup):
    """Process `rank` of several, one after the other: each leaves what it sends in `sent`, by round."""

    def __init__(self, rank: int, count: int, sent: dict[tuple[int, int], torch.Tensor]):
        super().__init__(rank, count)
        self.sent, self.rounds, self.begun = sent, 0, 0

    def start_gather(self, tensor):
        assert self.begun == 0, "a round begins before the last one has ended"
        number, self.begun = self.rounds, 1
        self.rounds += 1
        self.sent[number, self.rank] = tensor

        def finish():
            self.begun = 0
            others = [self.sent.get((number, rank), torch.zeros_like(tensor)) for rank in range(self.count)]
            return torch.stack(others)

        return finish


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize("changes", [{}, {"blend": "triangle", "context_overlap": 3}, {"guidance_scale": 1.0}], ids=str)
def test_all_processes_have_the_same_sum(count, changes):
    """Also where some have fewer parts, or none. With at most two windows a frame, it is one process's exactly."""
    latents = torch.randn(10, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    asked = options(**{"context_frames": 4, "context_overlap": 1, "guidance_scale": 2.0} | changes)

    def predict(group: ProcessGroup) -> torch.Tensor:
        (step,) = plan_steps(asked, 10, group.count)
        arguments = ([[], []], lambda window: None, ModelOffloader(dict), group)
        return Denoiser(first_latent, *arguments, blend=asked.blend)(latents, 0.0, step)

    sent = {}
    for rank in range(count):
        predict(Peers(rank, count, sent))
    results = [predict(Peers(rank, count, sent)) for rank in range(count)]
    assert all(torch.equal(result, results[0]) for result in results)
    alone = predict(ProcessGroup())
    if asked.context_overlap == 1:
        assert torch.equal(results[0], alone)
    assert (results[0] - alone).abs().max() <= rounding(8, float(latents.abs().max()))


def test_guidance():
    predictions = torch.stack([torch.full((2, 1, 1, 1), 1.0), torch.full((2, 1, 1, 1), 3.0)])
    assert guide(predictions.clone(), 3.5).flatten().tolist() == [8.0, 8.0]
    assert torch.equal(guide(predictions[1:], 3.5), predictions[1])


def test_parts_of_a_step():
    """One process: windows with both branches. Several processes: contiguous parts, as equal as possible."""
    windows = a, b, c = [range(0, 4), range(3, 7), range(6, 10)]
    both, unconditional, conditional = range(0, 2), range(0, 1), range(1, 2)
    assert share_step(windows, 2) == (((a, both), (b, both), (c, both)),)
    assert share_step(windows, 2, 2) == (((a, both), (b, unconditional)), ((b, conditional), (c, both)))
    assert share_step(windows, 1, 2) == (((a, unconditional),), ((b, unconditional), (c, unconditional)))
    assert share_step(windows[:1], 2, 4) == ((), ((a, unconditional),), (), ((a, conditional),))


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("branches", [1, 2])
def test_parts_cover_each_window_and_branch_once(count, branches):
    windows = list(context_windows(30, 4, 1))
    shares = share_step(windows, branches, count)
    pairs = [[(window, branch) for window, some in share for branch in some] for share in shares]
    assert sum(pairs, []) == [(window, branch) for window in windows for branch in range(branches)]
    assert max(map(len, pairs)) - min(map(len, pairs)) <= 1


def test_frames_that_a_process_looks_at():
    """Only the middle window is processed by both, each for one branch."""
    windows = list(context_windows(10, 4, 1))
    frames = [frames_of(parts) for parts in share_step(windows, 2, 2)]
    assert frames == [set(range(7)), set(range(3, 10))]
