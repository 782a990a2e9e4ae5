"""Cross-identity evaluation, the actual use: the dance of one puppet, aligned to the image of another, animates it.

Pair k: the dancer of seed HELD_OUT + k, and the target of seed HELD_OUT + k + TARGET in the first stance of the dance.
Keypoints come from the puppets' detector, as in real use.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from musepose.evaluation.metrics import joint_distances
from musepose.evaluation.pairs import PCK_THRESHOLD
from musepose.pose.align import SEGMENTS, fit_alignment, segment_lengths, typical_lengths
from musepose.pose.detectors.dwpose.detector import PoseDetector
from musepose.pose.person_tracking import choose_person
from musepose.pose.types import BODY_JOINTS, Pose, to_pose
from musepose.utils.errors import UserError
from puppet.image_score import pose_video
from puppet.options import Options
from puppet.score_options import RATE, RENDERED, animate, load_detector, load_pipeline
from puppet.world import (
    HELD_OUT,
    Actor,
    Picture,
    fit,
    make_backdrop,
    make_character,
    make_dance,
    paint_backdrop,
    render,
)

TARGET = 500_000  # the target's seed minus the dancer's
FIRST = 15  # first frame that is evaluated: the dance has left the neutral stance
SAME_LENGTH = 0.05  # relative error up to which a limb's length counts as correct


def score_pair(options: Options, k: int) -> dict[str, Any]:
    """Pair k: errors of the aligned dance's limb lengths, and whether each joint of the generated frames is correct."""
    frames = FIRST + options.clip_frames
    picture = dance_pictures(HELD_OUT + k, HELD_OUT + k + TARGET, [0])[0]
    dance = dance_pictures(HELD_OUT + k, HELD_OUT + k, range(frames))
    truth = dance_pictures(HELD_OUT + k, HELD_OUT + k + TARGET, range(frames))
    detector = load_detector(options)
    still, *danced = (find_pose(detector, shown.image) for shown in (picture, *dance))
    record: dict[str, Any] = {"kind": "pair", "number": k, "limbs": [], "joints": []}
    try:
        if still is None or danced[0] is None:
            raise UserError("no person found")
        alignment = fit_alignment(still, danced[0], image_aspect=1, frame_aspect=1)
    except UserError:  # pose_align.py would end with it
        record["joints"] = [False] * (BODY_JOINTS * options.clip_frames)
        return record
    aligned = [None if pose is None else alignment.apply(pose) for pose in danced]
    record["limbs"] = limb_errors([pose for pose in aligned if pose], [shown.people[0].pose for shown in truth])
    wanted = aligned[FIRST:]
    results = animate(
        load_pipeline(options, options.stage), Image.fromarray(picture.image), pose_video(wanted), options, HELD_OUT + k
    )
    for pose, result in zip(wanted, results, strict=True):
        distances = joint_distances(find_pose(detector, result), pose, aspect=1)
        record["joints"] += (distances[~np.isnan(distances)] <= PCK_THRESHOLD).tolist()
    return record


def dance_pictures(dance: int, character: int, frames: Sequence[int]) -> list[Picture]:
    """Frames of a dance, from its neutral first stance, performed by `character` before its own background."""
    motion, dancer = make_dance(dance), make_character(character)
    stances = [motion.at(frame / RATE) for frame in range(4 * RATE)]
    placement = fit(dancer, stances, RENDERED, RENDERED, margin=0.06, floor=0.92)
    stage = paint_backdrop(make_backdrop(character), RENDERED, RENDERED)
    return [render([Actor(dancer, stances[frame], placement)], RENDERED, RENDERED, stage) for frame in frames]


def find_pose(detector: PoseDetector, picture: np.ndarray) -> Pose | None:
    """The pose of the person in an image (h, w, 3) uint8, or None."""
    people = detector(picture)
    person = choose_person(people)
    return None if person is None else to_pose(people.keypoints[person], people.scores[person])


def limb_errors(aligned: Sequence[Pose], truth: Sequence[Pose]) -> list[float]:
    """Relative errors of a clip's limb lengths, against the same motion performed by the target."""
    typical = (typical_lengths(segment_lengths(pose, aspect=1) for pose in poses) for poses in (aligned, truth))
    ours, own = (lengths[: len(SEGMENTS)] for lengths in typical)
    errors = np.abs(ours / own - 1)
    return errors[~np.isnan(errors)].tolist()
