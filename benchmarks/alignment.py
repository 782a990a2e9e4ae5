"""How well a dance is fitted to a picture's person, by two questions with known answers; no weights are needed.

self:  The picture is a frame of the dance itself; the frames near it are taken out of the dance. The right aligned
       dance is the dance, moved as a whole. What remains is the error, in torso lengths.
cross: The picture is a frame of another dancer's video. The right limb lengths are that dancer's own over her whole
       video. Errors are |log2(aligned / own)|, as they are and without each picture's median factor (`shape`).

    python -m benchmarks.alignment [FOLDER] [--align robust|published]

FOLDER holds keypoints of dancers, one .npz each: points (n, 133, 2) as fractions of the frame, scores (n, 133), size
(width, height). Without one, puppets dance: their true keypoints, with the errors of a real detector.
"""

import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from musepose.cli.entry import Parser, run_script
from musepose.pose.align import fit_alignment
from musepose.pose.measure import ROWS, TYPICAL, body_points, frontality, segment_lengths, sides_apart
from musepose.pose.robust_align import fit_robust_alignment
from musepose.pose.types import Pose, to_pose
from musepose.utils.errors import UserError

Rule = Callable[[Pose, float, Sequence[Pose], float], list[Pose]]
Dancers = dict[str, tuple[list[Pose], float]]  # name -> poses of the frames that show somebody, width / height

LIMBS = {
    "neck": ((0, 1),),
    "shoulders": ((2, 5),),
    "upper arms": ((2, 3), (5, 6)),
    "lower arms": ((3, 4), (6, 7)),
    "trunk": ((1, (8, 11)),),
    "hips": ((8, 11),),
    "upper legs": ((8, 9), (11, 12)),
    "lower legs": ((9, 10), (12, 13)),
}
HIDDEN = 12  # frames on either side of the picture
SELF_PICTURES, CROSS_PICTURES = 12, 3  # of each dancer; of each dancer for each other one's dance
FEWEST = 5  # lengths of a limb, or it is not compared
FRONTAL, FRONTAL_PICTURES, AGREED = 0.6, 3, 0.05
TORSO_IN_SHOULDERS = 1.4
NEAR = np.log2(1.1)
PUPPETS, PUPPET_FRAMES, PUPPET_RATE, SIDE = 6, 120, 15, 512
JITTER, DROPPED, LOST = 0.02, 0.03, 3  # of the torso; share of joints; frames for which a joint stays lost


def rule(reference: Pose, reference_aspect: float, dance: Sequence[Pose], dance_aspect: float) -> list[Pose]:
    """One picture's pose and a dance's, of those frames that show somebody -> the dance's aligned poses.

    Poses are normalised to their picture; the aligned ones to the reference picture.
    """
    alignment = fit_robust_alignment(reference, dance, reference_aspect, dance_aspect)
    return [alignment.apply(pose) for pose in dance]


def published(reference: Pose, reference_aspect: float, dance: Sequence[Pose], dance_aspect: float) -> list[Pose]:
    """The same as `rule` by the published alignment, to the dance's first frame."""
    alignment = fit_alignment(reference, dance[0], reference_aspect, dance_aspect)
    return [alignment.apply(pose) for pose in dance]


RULES: dict[str, Rule] = {"robust": rule, "published": published}


def keypoint_files(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a folder's .npz files by name. Raises UserError where one lacks an entry."""
    files = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as entries:
            if missing := {"points", "scores", "size"} - set(entries):
                raise UserError(f"{file} has no {', '.join(sorted(missing))}: give files as --help says")
            files[file.stem] = {name: entries[name] for name in ("points", "scores", "size")}
    return files


def load(folder: Path) -> Dancers:
    """The dancers of a folder's .npz files. Raises UserError where there are none, or one lacks an entry."""
    dancers = {}
    for name, entries in keypoint_files(folder).items():
        poses = [to_pose(*frame) for frame in zip(entries["points"], entries["scores"], strict=True)]
        width, height = entries["size"]
        dancers[name] = ([pose for pose in poses if pose.body_visible.any()], float(width / height))
    if len(dancers) < 2:
        raise UserError(
            f"{folder} holds keypoints of {len(dancers)} dancers: give a folder with two .npz files or more"
        )
    return dancers


def puppets(count: int = PUPPETS, frames: int = PUPPET_FRAMES, seed: int = 0) -> Dancers:
    """Puppets that dance: true keypoints with a detector's jitter, and joints that it loses for a few frames."""
    from puppet.world import HELD_OUT, dance_stances, fit, make_character, make_dance

    dancers = {}
    for number in range(HELD_OUT + seed, HELD_OUT + seed + count):
        character, stances = make_character(number), dance_stances(make_dance(number), frames, PUPPET_RATE)
        placement = fit(character, stances, SIDE, SIDE)
        points, visible = zip(*(true_keypoints(character, stance, placement) for stance in stances), strict=True)
        points, scores = spoil(np.array(points), np.array(visible), np.random.default_rng(number))
        dancers[f"puppet {number}"] = ([to_pose(*frame) for frame in zip(points, scores, strict=True)], 1.0)
    return dancers


def true_keypoints(character, stance, placement) -> tuple[np.ndarray, np.ndarray]:
    """A puppet's keypoints (133, 2), fractions of a square picture, and which of them can be seen (133,)."""
    from puppet.keypoints import faces_camera, whole_body
    from puppet.kinematics import build_skeleton
    from puppet.view import View

    skeleton = build_skeleton(character, stance)
    points = View(placement.x, placement.floor, placement.size).project(whole_body(skeleton))
    return points, ((points >= 0) & (points < 1)).all(axis=1) & faces_camera(skeleton)


def spoil(
    points: np.ndarray,  # (n, 133, 2)
    visible: np.ndarray,  # (n, 133) bool
    rng: np.random.Generator,
    jitter: float = JITTER,
    dropped: float = DROPPED,
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and scores as a detector finds them."""
    torso = np.median(np.linalg.norm(points[:, [5, 6]].mean(axis=1) - points[:, [11, 12]].mean(axis=1), axis=1))
    lost = rng.random(visible.shape) < dropped / LOST
    lost = np.any([np.roll(lost, frames, axis=0) for frames in range(LOST)], axis=0)
    return points + rng.normal(0, jitter * torso, points.shape), np.where(visible & ~lost, 0.9, 0.1)


def limb_lengths(points: np.ndarray) -> dict[str, float]:
    """Limb -> 90th percentile of its lengths over the frames, joints (n, 18, 2), and both sides."""
    lengths = {}
    for limb, segments in LIMBS.items():
        ends = [
            (points[:, a], points[:, b] if isinstance(b, int) else points[:, list(b)].mean(axis=1)) for a, b in segments
        ]
        found = np.linalg.norm(np.concatenate([a - b for a, b in ends]), axis=-1)
        if np.isfinite(found).sum() >= FEWEST:
            lengths[limb] = float(np.nanpercentile(found, TYPICAL))
    return lengths


def self_error(rule: Rule, poses: Sequence[Pose], aspect: float, picture: int) -> float:
    """Mean error of the visible joints in torso lengths; `picture` is the frame that is taken for one."""
    dance = [pose for number, pose in enumerate(poses) if abs(number - picture) > HIDDEN]
    before = body_points(dance, aspect)
    moved = body_points(rule(poses[picture], aspect, dance, aspect), aspect) - before
    torso = np.nanmedian(np.linalg.norm(before[:, [8, 11]].mean(axis=1) - before[:, 1], axis=-1))
    if np.isnan(torso):  # cut off above the hips
        torso = TORSO_IN_SHOULDERS * np.nanpercentile(np.linalg.norm(before[:, 2] - before[:, 5], axis=-1), TYPICAL)
    return float(np.nanmean(np.linalg.norm(moved - np.nanmedian(moved, axis=(0, 1)), axis=-1)) / torso)


def cross_errors(
    rule: Rule, picture: Pose, aspect: float, own: dict[str, float], poses: Sequence[Pose], dance_aspect: float
) -> np.ndarray:
    """log2(aligned / own length) of each limb that both have."""
    aligned = limb_lengths(body_points(rule(picture, aspect, poses, dance_aspect), aspect))
    return np.log2([aligned[limb] / own[limb] for limb in own if limb in aligned])


def score(dancers: Dancers, rule: Rule = rule, seed: int = 0) -> dict[str, float]:
    """Both questions over all dancers, pictures drawn by lot.

    → `self`, `self_90`, `self_worst` in torso lengths; `cross`, `shape` in log2; `cross_near`, `shape_near`: per cent
    of limbs within a tenth; `failed`, how many fits ended in an error.
    """
    rng, failed, selfs, cross = np.random.default_rng(seed), 0, [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        for poses, aspect in dancers.values():
            for picture in rng.choice(len(poses), min(SELF_PICTURES, len(poses)), replace=False):
                try:
                    selfs.append(self_error(rule, poses, aspect, picture))
                except UserError:
                    failed += 1
        for who, (pictured, aspect) in dancers.items():
            own = limb_lengths(body_points(pictured, aspect))
            for name, (poses, dance_aspect) in dancers.items():
                for picture in rng.choice(len(pictured), CROSS_PICTURES, replace=False) if name != who else ():
                    try:
                        cross.append(cross_errors(rule, pictured[picture], aspect, own, poses, dance_aspect))
                    except UserError:
                        failed += 1
    whole = np.abs(np.concatenate(cross))
    shape = np.abs(np.concatenate([errors - np.median(errors) for errors in cross]))
    return {
        "self": float(np.mean(selfs)),
        "self_90": float(np.percentile(selfs, 90)),
        "self_worst": float(np.max(selfs)),
        "cross": float(whole.mean()),
        "cross_near": 100 * float((whole < NEAR).mean()),
        "shape": float(shape.mean()),
        "shape_near": 100 * float((shape < NEAR).mean()),
        "failed": failed,
    }


def agreement(dancers: Dancers) -> np.ndarray:
    """|robust / published scale - 1| of each limb but the head's, where picture and frame leave little to mistake.

    That is where both stand frontal and upright, with everything visible and both sides within a tenth.
    """
    frontal = {name: _frontal(*dancer) for name, dancer in dancers.items()}
    pairs = [(who, name) for who in dancers for name in dancers if who != name]
    apart = []
    for who, name in pairs:
        (pictured, aspect), (poses, dance_aspect) = dancers[who], dancers[name]
        for picture in frontal[who] if frontal[name] else ():
            ours = fit_robust_alignment(pictured[picture], poses, aspect, dance_aspect).scales
            for frame in frontal[name]:
                theirs = fit_alignment(pictured[picture], poses[frame], aspect, dance_aspect).scales
                apart += [abs(ours[limb] / theirs[limb] - 1) for limb in theirs.keys() & LIMBS.keys() - {"neck"}]
    return np.array(apart)


def _frontal(poses: Sequence[Pose], aspect: float) -> list[int]:
    """The most frontal frames, at most three."""
    points = body_points(poses, aspect)
    lengths = segment_lengths(points)
    paired = [limb for limb, rows in ROWS.items() if len(rows) == 2]
    found = [
        (frontality(*of), frame)
        for frame, of in enumerate(zip(points, lengths, strict=True))
        if not np.isnan(of[0]).any() and sides_apart(of[1], *paired) < NEAR
    ]
    return [frame for sure, frame in sorted(found, reverse=True)[:FRONTAL_PICTURES] if sure > FRONTAL]


def _parse() -> Namespace:
    parser = Parser(prog="-m benchmarks.alignment", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="with dancers' keypoints, .npz; default: puppets")
    parser.add_argument("--align", choices=RULES, default="robust", help="the rule; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    arguments = _parse()
    dancers = puppets() if arguments.folder is None else load(arguments.folder)
    found = score(dancers, RULES[arguments.align])
    print(
        f"self   mean {found['self']:.3f}, 90 % {found['self_90']:.3f}, worst {found['self_worst']:.3f} torso lengths"
    )
    for question in ("cross", "shape"):
        print(f"{question}  mean {found[question]:.3f} log2, {found[f'{question}_near']:.1f} % within a tenth")
    print(f"{found['failed']} fits failed")
    apart = agreement(dancers)
    if len(apart):
        told = f"{100 * (apart < AGREED).mean():.0f} % of {len(apart)} limbs within 5 %, median {np.median(apart):.3f}"
        print(f"robust and published on frontal figures: {told}, 90 % {np.percentile(apart, 90):.3f}")


if __name__ == "__main__":
    run_script(main)
