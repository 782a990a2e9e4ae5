"""Evaluate a PoseDetector on held-out puppets: detection and keypoints.

python -m puppet.pose_score [--set_ups 50]
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from musepose.cli.entry import Parser, run_script
from musepose.pose.detectors.dwpose.detector import PoseDetector
from musepose.pose.types import VISIBLE_SCORE, People
from musepose.utils.errors import UserError
from puppet.pose_networks import BODY, FACE, HAND_WRISTS, HANDS, NEAR, OVERLAP, box_iou
from puppet.pose_pictures import Shot, make_shots
from puppet.pose_samples import LEAST_SHOWN
from puppet.world import HELD_OUT

SHORT_SIDE = 512  # pixels, typical for images and videos of people
PARTS = dict(joints=BODY, wrists=HAND_WRISTS, hands=HANDS, face=FACE)


def score_detector(detector: PoseDetector, numbers: Iterable[int]) -> dict[str, float]:
    """Evaluate a detector on the images of the set-ups `numbers` (see pose_pictures.py), with one or two figures.

    Numbers below HELD_OUT are training data. Figures with less than LEAST_SHOWN of their limbs visible are ignored.

    → `frames` and `people`, the numbers of images and figures; the others are per cent:
    - `found`, frames with all figures found (IoU above 0.5; none if the detector fell back to the whole image),
      `people_found`, and `surplus`, unmatched boxes per figure;
    - of the visible points of found figures, those within 5 % of the torso length (neck to mid-hip) of the ground
      truth: `joints` (17 of the body), `wrists` (of the hands), `hands`, `face`;
    - `reported`, visible points with a score above VISIBLE_SCORE, and `hidden`, hidden points with a lower score.
    """
    count = dict(frames=0, complete=0, people=0, found=0, boxes=0)
    near = {part: [] for part in PARTS}
    reported_visible, reported_hidden = [], []
    for number in numbers:
        shots = make_shots(number, SHORT_SIDE)
        for shot, people in zip(shots, detector.detect([s.image for s in shots]), strict=True):
            pairs = _pair(shot, people)
            expected = set(np.flatnonzero(shot.shown >= LEAST_SHOWN).tolist())
            count["frames"] += bool(expected)
            count["complete"] += bool(expected) and expected <= pairs.keys()
            count["people"] += len(expected)
            count["found"] += len(expected & pairs.keys())
            count["boxes"] += 0 if people.fallback else len(people.boxes) - len(pairs.keys() - expected)
            for figure in expected & pairs.keys():
                close, seen = _close(shot, figure, people.keypoints[pairs[figure]]), shot.visible[figure]
                for part, points in PARTS.items():
                    near[part].append(close[points][seen[points]])
                reported = people.scores[pairs[figure]] > VISIBLE_SCORE
                reported_visible.append(reported[seen])
                reported_hidden.append(~reported[~seen])
    return dict(
        frames=count["frames"],
        people=count["people"],
        found=_percent(count["complete"], count["frames"]),
        people_found=_percent(count["found"], count["people"]),
        surplus=_percent(count["boxes"] - count["found"], count["people"]),
        **{part: _share(flags) for part, flags in near.items()},
        reported=_share(reported_visible),
        hidden=_share(reported_hidden),
    )


def _pair(shot: Shot, people: People) -> dict[int, int]:
    """Figure → detected person, matched greedily by IoU."""
    if people.fallback or not len(people.boxes):
        return {}
    overlap = box_iou(torch.from_numpy(shot.boxes), torch.from_numpy(people.boxes)).numpy()
    pairs: dict[int, int] = {}
    for figure, found in zip(*np.unravel_index(np.argsort(-overlap, axis=None), overlap.shape), strict=True):
        if overlap[figure, found] > OVERLAP and figure not in pairs and found not in pairs.values():
            pairs[int(figure)] = int(found)
    return pairs


def _close(shot: Shot, figure: int, keypoints: np.ndarray) -> np.ndarray:
    """(133,) bool: keypoints (133, 2), fractions of the image, within NEAR of the torso length of the ground truth."""
    height, width = shot.image.shape[:2]
    truth = shot.keypoints[figure]
    torso = np.linalg.norm(truth[[5, 6]].mean(0) - truth[[11, 12]].mean(0))
    return np.linalg.norm(keypoints * (width, height) - truth, axis=1) < NEAR * torso


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else float("nan")


def _share(flags: list[np.ndarray]) -> float:
    joined = np.concatenate(flags) if flags else np.zeros(0)
    return _percent(float(joined.sum()), len(joined))


def main() -> None:
    folder = Path("pretrained_weights/puppet/dwpose")
    parser = Parser(prog="-m puppet.pose_score", description=__doc__.split("\n")[0])
    parser.add_argument("--yolox_config", type=Path, default=Path("configs/puppet/yolox.py"))
    parser.add_argument("--yolox_ckpt", type=Path, default=folder / "yolox.pth")
    parser.add_argument("--dwpose_config", type=Path, default=Path("configs/puppet/dwpose.py"))
    parser.add_argument("--dwpose_ckpt", type=Path, default=folder / "dwpose.pth")
    parser.add_argument("--set_ups", type=int, default=50, help="number of held-out set-ups, four images each")
    arguments = vars(parser.parse_args())
    set_ups = arguments.pop("set_ups")
    if set_ups < 1:
        raise UserError(f"--set_ups is {set_ups}: give at least 1")
    for name, value in score_detector(PoseDetector(**arguments), range(HELD_OUT, HELD_OUT + set_ups)).items():
        print(f"{name:13} {value:.0f}" if name in ("frames", "people") else f"{name:13} {value:.2f} %")


if __name__ == "__main__":
    run_script(main)
