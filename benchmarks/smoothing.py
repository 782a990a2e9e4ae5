"""What `--smooth` does to jitter and to fast moves of real dancers.

    python -m benchmarks.smoothing FOLDER

FOLDER holds keypoints of dancers as in benchmarks/alignment.py, taken to be of 30 frames a second.
"""

from pathlib import Path

import numpy as np

from benchmarks.alignment import keypoint_files
from musepose.cli.entry import Parser, run_script
from musepose.pose.keypoint_file import Keypoints
from musepose.pose.smooth import smooth_keypoints, torso_length
from musepose.pose.types import BODY, HANDS, VISIBLE_SCORE

RATE = 30
SPAN = 4  # frames; a movement over so many is no jitter
FAST = 95  # percentile of the movements


def measure(
    points: np.ndarray,  # (n, 133, 2) as found, fractions
    scores: np.ndarray,  # (n, 133)
    aspect: float,
) -> dict[str, tuple[float, float]]:
    """Body and hands → jitter that remains, and length of the fast movements that remains, as shares."""
    found = Keypoints(points.astype(np.float32), scores.astype(np.float32))
    smooth = smooth_keypoints(found, aspect, RATE)
    visible, shares = scores > VISIBLE_SCORE, {}
    torso = torso_length(points * (aspect, 1), visible)
    for name, part in (("body", BODY), ("hands", HANDS)):
        paths = [some.points[:, part] * (aspect, 1) / torso for some in (found, smooth)]
        seen = visible[:, part]
        jitter = [np.linalg.norm(np.diff(path, n=2, axis=0), axis=-1) for path in paths]
        jitter = [float(np.median(some[seen[2:] & seen[1:-1] & seen[:-2]])) for some in jitter]
        moves = [np.linalg.norm(path[SPAN:] - path[:-SPAN], axis=-1)[seen[SPAN:] & seen[:-SPAN]] for path in paths]
        fast = moves[0] > np.percentile(moves[0], FAST)
        shares[name] = jitter[1] / jitter[0], float(moves[1][fast].mean() / moves[0][fast].mean())
    return shares


def main() -> None:
    parser = Parser(prog="-m benchmarks.smoothing", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="with dancers' keypoints, .npz")
    print("| dancer | body: jitter | fast moves | hands: jitter | fast moves |\n| --- | ---: | ---: | ---: | ---: |")
    for name, entries in keypoint_files(parser.parse_args().folder).items():
        width, height = entries["size"]
        shares = measure(entries["points"], entries["scores"], float(width / height))
        cells = [f"{100 * share:.0f} %" for pair in shares.values() for share in pair]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_script(main)
