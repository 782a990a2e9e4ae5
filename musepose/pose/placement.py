"""Where in the picture the aligned dance takes place: one shift for the whole video, so that jumps stay jumps."""

import numpy as np

from musepose.pose.types import NECK

HIPS, ANKLES = [8, 11], [10, 13]
GROUND = (
    70  # percentile over the frames of the lower foot: the ground, neither jumps nor the nearest steps to the camera
)
WHOLE = 0.5  # share of the frames that must show hips and feet


def place(
    picture: np.ndarray,  # (18, 2) joints in picture heights, NaN where not visible
    dance: np.ndarray,  # (n, 18, 2) the scaled dance's
) -> tuple[np.ndarray, str]:  # (2,) heights; "feet", "neck" or "joints"
    """The shift from the dance to the picture, and by what it was found.

    Where both show the whole body, the ground is the same and the hips lie above one another in the middle of the
    dance. Else the neck's middle place is the picture's; where one shows none, that of all joints which both show.
    """
    feet, hips = np.fmax.reduce(dance[:, ANKLES, 1], axis=1), dance[:, HIPS, 0].mean(axis=1)
    whole = [~np.isnan(feet) & ~np.isnan(hips)]
    pictured = np.fmax.reduce(picture[ANKLES, 1]), picture[HIPS, 0].mean()
    if np.mean(whole) >= WHOLE and not np.isnan(pictured).any():
        across = pictured[1] - np.nanmedian(hips)
        return np.array([across, pictured[0] - np.nanpercentile(feet, GROUND)]), "feet"
    for joints, name in (([NECK], "neck"), (list(range(18)), "joints")):
        offsets = picture[joints] - _median(dance[:, joints])
        if not np.isnan(offsets).all():
            return np.nanmean(offsets, axis=0), name
    return np.zeros(2), "joints"


def outside(points: np.ndarray, aspect: float) -> tuple[int, int]:
    """In how many frames some visible joint, (n, 18, 2) in heights, is outside the picture; and in how many all are."""
    seen = ~np.isnan(points).any(axis=-1)
    inside = ((points >= 0) & (points <= (aspect, 1))).all(axis=-1) & seen
    return int((seen & ~inside).any(axis=1).sum()), int((seen.any(axis=1) & ~inside.any(axis=1)).sum())


def _median(points: np.ndarray) -> np.ndarray:
    """(n, j, 2) to (j, 2), of the frames in which a joint is visible; NaN where it never is."""
    return np.ma.median(np.ma.masked_invalid(points), axis=0).filled(np.nan)
