"""Context windows: which frames are denoised together. Needs no torch.

The motion modules see a window of `context_frames` (S) at a time. Windows overlap by `context_overlap` (O) frames, and
where they do, their predictions are averaged.
"""

from collections.abc import Iterator


def check_windows(context_frames: int, context_overlap: int) -> None:
    """Raises ValueError unless 0 ≤ O < S."""
    if not 0 <= context_overlap < context_frames:
        raise ValueError(
            f"context_overlap is {context_overlap}, context_frames {context_frames}: 0 <= overlap < frames is needed"
        )


def padded_length(frames: int, context_frames: int, context_overlap: int) -> int:
    """The smallest length ≥ frames that is ≡ S modulo (S - O), so that windows S - O apart end at the last frame."""
    check_windows(context_frames, context_overlap)
    return frames + (context_frames - frames) % (context_frames - context_overlap)


def context_windows(frames: int, context_frames: int, context_overlap: int) -> Iterator[range]:
    """[0, S), [S-O, 2S-O), … A video shorter than S is one window; the last window always ends with the video."""
    check_windows(context_frames, context_overlap)
    start = 0
    while start + context_frames < frames:
        yield range(start, start + context_frames)
        start += context_frames - context_overlap
    yield range(max(0, min(start, frames - context_frames)), frames)
