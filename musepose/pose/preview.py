"""A preview of an alignment: the picture with six frames' aligned skeletons, before the expensive step."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from musepose.pose.draw import draw_poses
from musepose.pose.types import Pose

SHOWN, ACROSS = 6, 3
PANEL_HEIGHT = 512  # pixels
OPACITY = 0.85
DIMMED = 0.55  # of the picture, so that the skeleton stands out
LABEL_SCALE, LABEL_COLOUR = 0.6, (255, 255, 255)


def choose_frames(poses: Sequence[Pose | None], align_frame: int, shown: int = SHOWN) -> list[int]:
    """The align frame and those that reach farthest out of the picture's middle, apart from one another, in order.

    `poses`: the aligned ones, normalised to the picture; None where a frame shows nobody.
    """
    reach = np.array([-np.inf if pose is None else _reach(pose) for pose in poses])
    chosen = [align_frame] if poses[align_frame] is not None else []
    apart = max(len(poses) // (2 * shown), 1)  # frames; neighbours show the same
    for frame in np.argsort(-reach, kind="stable").tolist():
        if len(chosen) < shown and reach[frame] > -np.inf and all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
    return sorted(chosen)


def draw_over(
    picture: Image.Image, pose: Pose | None, height: int = PANEL_HEIGHT, dimmed: float = DIMMED
) -> np.ndarray:
    """The dimmed picture with a skeleton, normalised to it: uint8 RGB, `height` pixels high."""
    width = max(round(height * picture.width / picture.height), 1)
    under = cv2.resize(np.asarray(picture.convert("RGB")), (width, height), interpolation=cv2.INTER_AREA)
    under = (under * dimmed).astype(np.uint8)
    if pose is None:
        return under
    skeleton = draw_poses([pose], height, width)
    mixed = cv2.addWeighted(skeleton, OPACITY, under, 1 - OPACITY, 0)
    return np.where(skeleton.any(axis=-1, keepdims=True), mixed, under)


def draw_preview(picture: Image.Image, poses: Sequence[Pose | None], align_frame: int) -> np.ndarray:
    """uint8 RGB: a panel of the picture for each of the frames chosen, with its number."""
    panels = []
    for frame in choose_frames(poses, align_frame):
        panel = draw_over(picture, poses[frame])
        label = f"frame {frame}" + (" (align frame)" if frame == align_frame else "")
        cv2.putText(panel, label, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, LABEL_SCALE, LABEL_COLOUR, 1, cv2.LINE_AA)
        panels.append(panel)
    panels = panels or [draw_over(picture, None)]
    across = min(ACROSS, len(panels))
    panels += [np.zeros_like(panels[0])] * (-len(panels) % across)
    return np.vstack([np.hstack(panels[row : row + across]) for row in range(0, len(panels), across)])


def _reach(pose: Pose) -> float:
    """The largest distance of a visible joint from the picture's middle, along either axis; 0.5 is the edge."""
    return float(np.abs(pose.body[pose.body_visible] - 0.5).max(initial=0))
