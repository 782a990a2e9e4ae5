"""Selects people among a detector's boxes: score threshold and non-maximum suppression."""

import numpy as np

PERSON_LABEL = 0  # of the 80 COCO classes
PERSON_SCORE = 0.5
PERSON_IOU = 0.7


def select_people(
    boxes: np.ndarray,  # (n, 4) x0 y0 x1 y1
    scores: np.ndarray,  # (n,)
    labels: np.ndarray,  # (n,)
) -> np.ndarray:
    """Indices of the people among a detector's boxes, highest score first.

    People have a score above 0.5. Of two boxes with an IoU above 0.7 the one with the higher score is kept; IoU is in
    whole pixels, hence the + 1, as in mmpose's `nms`.
    """
    remaining = np.flatnonzero((labels == PERSON_LABEL) & (scores > PERSON_SCORE) & np.isfinite(boxes).all(axis=1))
    remaining = remaining[np.argsort(-scores[remaining], kind="stable")]
    boxes = boxes.astype(np.float64)
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    kept = []
    while len(remaining):
        best, rest = remaining[0], remaining[1:]
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2]) + 1
        shared = np.maximum(sides, 0).prod(axis=1)
        remaining = rest[shared <= PERSON_IOU * (area[best] + area[rest] - shared)]
        kept.append(best)
    return np.array(kept, dtype=int)
