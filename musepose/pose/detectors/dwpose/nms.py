"""Which of a detector's boxes are persons: score threshold and non-maximum suppression."""

import numpy as np

PERSON_LABEL = 0  # of the 80 COCO classes
PERSON_SCORE = 0.5
PERSON_IOU = 0.7


def select_people(
    boxes: np.ndarray,  # (n, 4) x0 y0 x1 y1
    scores: np.ndarray,  # (n,)
    labels: np.ndarray,  # (n,)
) -> np.ndarray:
    """Indices of the persons among a detector's boxes, best first.

    Persons with a score above 0.5; of two whose IoU (in whole pixels, hence the + 1, as in mmpose's `nms`) is above
    0.7 the better one stays.
    """
    waiting = np.flatnonzero((labels == PERSON_LABEL) & (scores > PERSON_SCORE) & np.isfinite(boxes).all(axis=1))
    waiting = waiting[np.argsort(-scores[waiting], kind="stable")]
    boxes = boxes.astype(np.float64)
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    kept = []
    while len(waiting):
        best, rest = waiting[0], waiting[1:]
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2]) + 1
        shared = np.maximum(sides, 0).prod(axis=1)
        waiting = rest[shared <= PERSON_IOU * (area[best] + area[rest] - shared)]
        kept.append(best)
    return np.array(kept, dtype=int)
