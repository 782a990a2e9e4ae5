"""Windows cover every frame, pad as published, and blend by averaging."""

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from musepose.denoising import WindowAverage
from musepose.windows import padded_length, windows

SIZES = {"frames": st.integers(1, 400), "context": st.integers(1, 128), "overlap": st.integers(0, 127)}


@settings(deadline=None)  # a busy machine is no fault
@given(**SIZES)
def test_windows_cover_every_frame(frames, context, overlap):
    assume(overlap < context)
    found = list(windows(frames, context, overlap))
    assert {index for window in found for index in window} == set(range(frames))
    assert all(len(window) == min(context, frames) for window in found)
    assert all(later.start - earlier.start <= context - overlap for earlier, later in pairwise(found))
    assert len({window.start for window in found}) == len(found)


@settings(deadline=None)  # a busy machine is no fault
@given(**SIZES)
def test_padding_is_the_least_that_makes_the_windows_fit(frames, context, overlap):
    assume(overlap < context)
    padded = padded_length(frames, context, overlap)
    stride = context - overlap
    assert 0 <= padded - frames < stride
    assert (padded - context) % stride == 0
    if padded >= context:
        starts = [window.start for window in windows(padded, context, overlap)]
        assert starts == list(range(0, padded - context + 1, stride))


@pytest.mark.parametrize(("frames", "padded"), [(48, 48), (20, 48), (49, 92), (92, 92), (93, 136), (300, 312)])
def test_published_windows(frames, padded):
    assert padded_length(frames, 48, 4) == padded


def test_overlap_is_averaged():
    average = WindowAverage(1, torch.zeros(5, 1, 2, 2))
    average.add(0, torch.full((1, 3, 1, 2, 2), 1.0))
    average.add(2, torch.full((1, 3, 1, 2, 2), 4.0))
    frames, mean = average.take(5)
    assert frames == range(5)
    assert mean[0, :, 0, 0, 0].tolist() == [1.0, 1.0, 2.5, 4.0, 4.0]


def test_frames_are_let_go_of_when_they_are_finished():
    average = WindowAverage(2, torch.zeros(1, 1, 1, 1))
    means = []
    for start in (0, 3, 6):
        average.add(start, torch.full((2, 4, 1, 1, 1), float(start)))
        frames, mean = average.take(start + 3)
        assert mean.shape == (2, len(frames), 1, 1, 1)
        means += mean[1].flatten().tolist()
        assert average._total.shape[1] == 1
    assert means == [0.0, 0.0, 0.0, 1.5, 3.0, 3.0, 4.5, 6.0, 6.0]


@pytest.mark.parametrize(("context", "overlap"), [(4, 4), (4, 9), (4, -1), (0, 0)])
def test_windows_that_never_move_on_are_refused(context, overlap):
    with pytest.raises(ValueError, match="overlap"):
        padded_length(10, context, overlap)
    with pytest.raises(ValueError, match="overlap"):
        list(windows(10, context, overlap))
