"""Context windows cover every frame, and pad as published."""

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from musepose.pipelines.context_windows import context_windows, padded_length

SIZES = {"frames": st.integers(1, 400), "context": st.integers(1, 128), "overlap": st.integers(0, 127)}


@settings(deadline=None)  # deadlines fail on a busy machine
@given(**SIZES)
def test_windows_cover_every_frame(frames, context, overlap):
    assume(overlap < context)
    found = list(context_windows(frames, context, overlap))
    assert {index for window in found for index in window} == set(range(frames))
    assert all(len(window) == min(context, frames) for window in found)
    assert all(later.start - earlier.start <= context - overlap for earlier, later in pairwise(found))
    assert len({window.start for window in found}) == len(found)


@settings(deadline=None)  # deadlines fail on a busy machine
@given(shift=st.integers(0, 300), **SIZES)
def test_shifted_windows_cover_every_frame_with_one_window_more_at_most(frames, context, overlap, shift):
    assume(overlap < context)
    plain, found = (list(context_windows(frames, context, overlap, by)) for by in (0, shift))
    assert {index for window in found for index in window} == set(range(frames))
    assert len(found) <= len(plain) + 1
    assert all(min(frames, (context + 1) // 2) <= len(window) <= context for window in found)
    assert all(earlier.stop - later.start >= overlap for earlier, later in pairwise(found))
    assert len(set(found)) == len(found)


@settings(deadline=None)  # deadlines fail on a busy machine
@given(**SIZES)
def test_padding_is_the_least_that_makes_the_windows_fit(frames, context, overlap):
    assume(overlap < context)
    padded = padded_length(frames, context, overlap)
    stride = context - overlap
    assert 0 <= padded - frames < stride
    assert (padded - context) % stride == 0
    if padded >= context:
        starts = [window.start for window in context_windows(padded, context, overlap)]
        assert starts == list(range(0, padded - context + 1, stride))


@pytest.mark.parametrize(("frames", "padded"), [(48, 48), (20, 48), (49, 92), (92, 92), (93, 136), (300, 312)])
def test_published_windows(frames, padded):
    assert padded_length(frames, 48, 4) == padded


@pytest.mark.parametrize(("context", "overlap"), [(4, 4), (4, 9), (4, -1), (0, 0)])
def test_windows_that_never_advance_are_refused(context, overlap):
    with pytest.raises(ValueError, match="overlap"):
        padded_length(10, context, overlap)
    with pytest.raises(ValueError, match="overlap"):
        list(context_windows(10, context, overlap))
