"""From BlazePose's landmarks to the 133 points of COCO-WholeBody."""

import numpy as np

from musepose.pose.detectors.blazepose.body import Body
from musepose.pose.detectors.blazepose.face import Face
from musepose.pose.detectors.blazepose.hands import Hand
from musepose.pose.types import KEYPOINTS, People

# For each of the first 23 points, body and feet, BlazePose's landmark. It has no small toe: the large one stands in.
BODY_LANDMARKS = (
    *(0, 2, 5, 7, 8),  # nose, eyes, ears; left before right, as everywhere here
    *(11, 12, 13, 14, 15, 16),  # shoulders, elbows, wrists
    *(23, 24, 25, 26, 27, 28),  # hips, knees, ankles
    *(31, 31, 29, 32, 32, 30),  # large toe, small toe, heel of either foot
)
# For each of the 68 face points the one of the mesh.
MESH_POINTS = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # the jaw, from his right ear
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # eyebrows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
    *(78, 82, 13, 312, 308, 317, 14, 87),  # and inside
)
FACE, HANDS = slice(23, 91), (slice(91, 112), slice(112, 133))
WRISTS = (15, 16)  # BlazePose's landmarks
NOSE, MESH_NOSE = 0, 4  # the tip: the body's landmark, and the mesh's
SURE = 0.5  # visibility from which a landmark counts for somebody's box


def whole_body(
    body: Body,
    hands: tuple[Hand | None, Hand | None],  # left, right
    face: Face | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(133, 3) x, y in pixels and depth on the same scale, from the hips, smaller is nearer; and (133,) scores.

    A body point's score is its visibility; those of the hands and the face are all the presence of the hand or face.
    What was not found is zero, its score too. Hands' depths start from the wrist's, the face's from the nose's.
    """
    points, scores = np.zeros((KEYPOINTS, 3)), np.zeros(KEYPOINTS)
    chosen = list(BODY_LANDMARKS)
    points[: len(chosen)], scores[: len(chosen)] = body.landmarks[chosen], body.visibility[chosen]
    for part, wrist, hand in zip(HANDS, WRISTS, hands, strict=True):
        if hand is not None:
            points[part], scores[part] = hand.landmarks, hand.presence
            points[part, 2] += body.landmarks[wrist, 2]
    if face is not None:
        points[FACE], scores[FACE] = face.landmarks[list(MESH_POINTS)], face.presence
        points[FACE, 2] += body.landmarks[NOSE, 2] - face.landmarks[MESH_NOSE, 2]
    return points, scores


def to_people(
    found: list[tuple[Body, tuple[Hand | None, Hand | None], Face | None]],
    size: tuple[int, int],  # width and height of the picture in pixels
) -> People:
    """Everybody in one picture, in the order given."""
    whole = [whole_body(*one) for one in found]
    chosen = list(BODY_LANDMARKS)
    points = np.array([one[0] for one in whole]).reshape(-1, KEYPOINTS, 3)
    return People(
        boxes=np.array([body_box(body) for body, _, _ in found]).reshape(-1, 4),
        box_scores=np.array([body.presence for body, _, _ in found]),
        keypoints=points[..., :2] / size,
        scores=np.array([one[1] for one in whole]).reshape(-1, KEYPOINTS),
        size=size,
        depth=points[..., 2] / size[0],
        metres=np.array([body.metres[chosen] for body, _, _ in found]).reshape(-1, len(chosen), 3),
    )


def body_box(body: Body) -> np.ndarray:
    """(4,) x0 y0 x1 y1 around the landmarks that are seen; around all where hardly any is."""
    seen = body.landmarks[body.visibility > SURE, :2]
    points = seen if len(seen) > 1 else body.landmarks[:, :2]
    return np.concatenate([points.min(axis=0), points.max(axis=0)])
