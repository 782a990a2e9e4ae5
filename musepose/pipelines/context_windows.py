"""Context windows: which frames are denoised together, and how much each window counts. Needs no torch.

The motion modules see a window of `context_frames` (S) at a time. Windows overlap by `context_overlap` (O) frames, and
where they do, their predictions are averaged.
"""

from collections.abc import Iterator

BLENDS = ("flat", "triangle")


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


def context_windows(frames: int, context_frames: int, context_overlap: int, shift: int = 0) -> Iterator[range]:
    """[0, S), [S-O, 2S-O), … A video shorter than S is one window; the last window always ends with the video.

    shift: all windows but the first start so many frames later, modulo S - O. One window more is needed then; the first
    and the last are cut to what the others leave, but not below S/2.
    """
    check_windows(context_frames, context_overlap)
    stride = context_frames - context_overlap
    start = shift % stride if frames > context_frames else 0
    shortest = context_frames
    if start:
        shortest = -(-context_frames // 2)
        yield range(0, max(shortest, start + context_overlap))
    while start + context_frames < frames:
        yield range(start, start + context_frames)
        start += stride
    yield range(max(0, min(start, frames - shortest)), frames)


def blend_weights(length: int, blend: str) -> list[int]:
    """Weights of a window's predictions before they are averaged.

    "flat", as published: all the same. "triangle": they fall towards the window's ends, so that overlapping windows
    fade into each other.
    """
    return [1 if blend == "flat" else min(frame + 1, length - frame) for frame in range(length)]
