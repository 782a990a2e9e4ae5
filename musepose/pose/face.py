"""Face points that go with the aligned head."""

from dataclasses import replace

import numpy as np

from musepose.pose.types import NOSE, Pose

_HEAD = [14, 15, 16, 17]  # eyes and ears, which the alignment scales about the nose


def carry_face(
    pose: Pose,
    aligned: Pose,
    frame_aspect: float,  # width / height of the video, to which `pose` is normalised
    image_aspect: float,  # and of the reference image, to which `aligned` is
) -> Pose:
    """`aligned` with the face points of `pose` at its nose, in the size of its head.

    The published alignment leaves the face points where they were, as it draws none. The scale is that of the distances
    from the nose to eyes and ears; the visible ones, where there are any.
    """
    to_heights, from_heights = np.array([frame_aspect, 1.0]), np.array([1 / image_aspect, 1.0])
    before = np.linalg.norm((pose.body[_HEAD] - pose.body[NOSE]) * to_heights, axis=1)
    after = np.linalg.norm((aligned.body[_HEAD] - aligned.body[NOSE]) / from_heights, axis=1)
    seen = pose.body_visible[_HEAD] & pose.body_visible[NOSE]
    if not seen.any():
        seen[:] = True
    scale = after[seen].sum() / before[seen].sum() if before[seen].any() else 1.0
    offsets = (pose.face - pose.body[NOSE]) * to_heights
    return replace(aligned, face=aligned.body[NOSE] + scale * offsets * from_heights)
