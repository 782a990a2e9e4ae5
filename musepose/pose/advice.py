"""What is said before the long work: which frame suits the picture, which limbs look wrong, what leaves it."""

from collections.abc import Container, Sequence

import numpy as np

from musepose.pose.measure import SEGMENTS, posture_apart, segment_lengths, sides_apart, tilt
from musepose.pose.placement import HIPS, outside
from musepose.pose.types import NECK

ODD = 1.4  # a limb is odd whose factor is so many times the others', or as many times less
ODD_FACE = 1.7  # heads differ more, and turn
MAX_LISTED_RANGES = 8  # ranges of empty frames that the report lists
_ALIKE = 1.5  # sides up to so many times as long as one another, and ...
_UPRIGHT = 30.0  # ... degrees of the trunk up to which One-to-All (2025) takes a frame
_COMPARED = [limb for limb, _, _ in SEGMENTS if limb not in ("face", "neck")]


def choose_align_frame(
    picture: np.ndarray,  # (18, 2) joints in picture heights, NaN where not visible
    dance: np.ndarray,  # (n, 18, 2) of all frames, NaN where nobody is
) -> tuple[int, str]:
    """The frame most like the picture, and why.

    Frames whose two sides are within 1.5 times of one another and whose trunk is within 30 degrees of upright come
    first, among them those which show most of the joints that the picture shows, among them the one whose limbs point
    most nearly where the picture's do.
    """
    seen, wanted = ~np.isnan(dance[..., 0]), ~np.isnan(picture[:, 0])
    shown = (seen & wanted).sum(axis=1)
    lengths = segment_lengths(dance)
    apart = 2 ** np.array(
        [np.nanmax([sides_apart(row, limb) for limb in set(_COMPARED) if _paired(limb)] + [0]) for row in lengths]
    )
    leaning = np.array([tilt(frame[NECK], frame[HIPS].mean(axis=0), axis=1) for frame in dance])
    posture = posture_apart(picture, dance)
    unlike = (apart > _ALIKE).astype(int) + ~(leaning <= _UPRIGHT)
    best = int(np.lexsort((np.nan_to_num(posture, nan=4), -shown, unlike))[0])
    degrees = np.degrees(2 * np.arcsin(min(np.sqrt(posture[best]) / 2, 1)))
    reasons = [f"shows {shown[best]} of the picture's {wanted.sum()} joints"]
    if not np.isnan(degrees):
        reasons.append(f"limbs {degrees:.0f} degrees from the picture's on the average")
    if not np.isnan(leaning[best]):
        reasons.append(f"trunk {leaning[best]:.0f} degrees from upright")
    reasons.append(f"sides within {apart[best]:.2f} of one another")
    return best, ", ".join(reasons)


def odd_limbs(scales: dict[str, float], given: Container[str] = ()) -> list[str]:
    """A line for each limb whose factor is far from the others': what, by how much, and the flag that changes it.

    Not for those in `given`, which were meant to be so.
    """
    middle = float(np.median([scale for limb, scale in scales.items() if limb != "hands"]))
    lines = []
    for limb, scale in scales.items():
        more, odd = scale / middle, ODD_FACE if limb == "face" else ODD
        if limb == "hands" or limb in given or 1 / odd < more < odd:
            continue
        told = f"{more:.2f} times as long" if more > 1 else f"{1 / more:.2f} times as short"
        flag = f"--limb_scale {limb.replace(' ', '_')}={middle:.2f}"
        lines.append(f"{limb} become {told}, relative to the other limbs: if the person's are not so, give {flag}")
    return lines


def what_leaves(
    points: np.ndarray,  # (n, 18, 2) aligned joints in picture heights, NaN where not visible
    aspect: float,  # width / height of the picture
    total: int,  # frames, n or more; the others show nobody, see `without_person`
    shown: np.ndarray | None = None,  # (18,) bool, joints that the picture shows; default: all
) -> list[str]:
    """Lines on frames with joints outside the picture, of those that it shows, and on frames with none inside."""
    none = outside(points, aspect)[1]
    some = outside(points if shown is None else points[:, shown], aspect)[0]
    told = (
        (some, "have joints outside the picture: a picture with more room around the person shows more of them"),
        (none, "show nobody inside the picture"),
    )
    return [f"{count} of {total} frames {what}" for count, what in told if count]


def without_person(missing: Sequence[bool], first: int) -> list[str]:
    """A line that counts and names the frames without a person, of those from the frame `first` on; or none."""
    empty = [first + frame for frame in np.flatnonzero(missing).tolist()]
    if not empty:
        return []
    runs: list[list[int]] = []
    for frame in empty:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    names = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:MAX_LISTED_RANGES]]
    more = ", ..." if len(runs) > MAX_LISTED_RANGES else ""
    told = f"the dancer was not found in {len(empty)} of {len(missing)} frames, drawn empty"
    return [f"{told}: {', '.join(names)}{more}"]


def _paired(limb: str) -> bool:
    return sum(name == limb for name, _, _ in SEGMENTS) == 2
