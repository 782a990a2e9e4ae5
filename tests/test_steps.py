"""The plan of the denoising steps: guidance in some of them, deeper layers in some of them, windows that shift."""

from dataclasses import replace

import pytest
import torch
from tolerance import rounding

from musepose.pipelines.forecast import TREND, History
from musepose.pipelines.guidance import Guide, guide
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.steps import plan_steps

WINDOWS = {"context_frames": 4, "context_overlap": 1}


def steps(count: int = 10, frames: int = 10, processes: int = 1, **changes):
    options = SamplingOptions(num_inference_steps=count, **{**WINDOWS, **changes})
    return plan_steps(options, frames, processes)


def test_by_default_every_step_computes_everything():
    plan = steps()
    assert [step.number for step in plan] == list(range(10))
    assert len({replace(step, number=0) for step in plan}) == 1
    assert plan[0].guidance == "compute" and plan[0].branches == range(2) and all(plan[0].refresh)
    assert [step.guidance for step in steps(2, guidance_scale=1.0)] == ["none", "none"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"guidance_start": 0.2, "guidance_stop": 0.8}, "--cccccc--"),
        ({"guidance_stop": 0.0}, "----------"),
        ({"guidance_every": 3}, "ccrrcrrcrr"),
        ({"guidance_every": 2, "guidance_start": 0.3}, "---crcrcrc"),
        ({"guidance_every": 20}, "ccrrrrrrrr"),
    ],
)
def test_guidance_by_step(changes, expected):
    plan = steps(**changes)
    assert "".join({"none": "-", "compute": "c", "reuse": "r"}[step.guidance] for step in plan) == expected
    for step in plan:  # without the unconditional branch, a step predicts the conditional one alone
        assert step.branches == (range(2) if step.guidance == "compute" else range(1, 2))
        assert {branch for _, branches in step.shares[0] for branch in branches} == set(step.branches)


def test_a_branch_without_features_of_its_own_runs_whole():
    """The unconditional branch has run in step 1; step 3 forgets that, and step 4 is its next."""
    plan = steps(6, guidance_every=3, cache_interval=2)
    fresh = [{branch: step.refresh[branch] for branch in step.branches} for step in plan]
    assert fresh == [{0: True, 1: True}, {0: True, 1: True}, {1: False}, {1: True}, {0: True, 1: False}, {1: False}]
    assert [step.forget for step in plan] == [True, True, False, True, False, False]


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
def test_each_process_has_the_features_that_it_reuses(processes):
    changes = {"guidance_every": 3, "cache_interval": 2, "shift": 2, "guidance_stop": 0.7}
    plan = steps(processes=processes, frames=16, **changes)
    for rank in range(processes):
        kept = set()
        for step in plan:
            kept = set() if step.forget else kept
            own = {(window, branch) for window, branches in step.shares[rank] for branch in branches}
            assert {pair for pair in own if not step.refresh[pair[1]]} <= kept
            kept |= own
    for step in plan:
        pairs = [(window, branch) for parts in step.shares for window, branches in parts for branch in branches]
        assert len(pairs) == len(set(pairs)) == len(step.windows) * len(step.branches), step.number


def test_windows_shift_from_step_to_step_but_not_between_refreshes():
    assert [step.windows[1].start for step in steps(4, shift=2)] == [3, 2, 1, 3]
    assert [step.windows[1].start for step in steps(5, shift=2, cache_interval=2)] == [3, 2, 2, 1, 1]


def test_the_branches_difference_is_reused():
    """Predictions 1 and 3 with scale 3.5 give 8; 10 with their difference of 2 gives 10 + 2.5 * 2."""
    _, first, second = steps(3, guidance_every=2)
    apart = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    run = Guide(3.5, keeps=True)
    assert run(apart.clone(), first).item() == guide(apart.clone(), 3.5).item() == 8
    assert run(torch.full((1, 1, 1, 1, 1), 10.0), second).item() == pytest.approx(15, abs=rounding(3, 15))


def test_forecasts_follow_most_of_the_trend_of_two_steps_after_the_first():
    history, device = History(), torch.device("cpu")
    values = []
    for step, value in [(0, 7.0), (2, 1.0), (4, 2.0), (8, 6.0)]:
        history.add(step, torch.tensor(value))
        values.append([history.at(step + later, device).item() for later in (0, 1, 2)])
    trends = [0, 0, 0.5 * TREND, TREND]  # per step
    for found, value, trend in zip(values, (7, 1, 2, 6), trends, strict=True):
        assert found == pytest.approx([value + later * trend for later in (0, 1, 2)], abs=rounding(3, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_start": 0.6, "guidance_stop": 0.5}, "0 <= start <= stop <= 1"),
        ({"guidance_stop": 1.5}, "0 <= start <= stop <= 1"),
        ({"guidance_every": 0}, "guidance_every is 0: at least 1"),
        ({"cache_interval": 0}, "cache_interval is 0: at least 1"),
        ({"cache_branch": -1}, "cache_branch is -1: at least 0"),
        ({"shift": -1}, "shift is -1: at least 0"),
        ({"blend": "round"}, "blend is 'round': flat, triangle"),
    ],
)
def test_options_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**changes)
