"""3-D points of a body in a stance: forward kinematics, and inverse kinematics for the legs.

World axes: x to the image's right, y up from the floor, z towards the camera. Pairs are ordered left, right (the
person's own); a person who faces the camera has the left side at larger x.
"""

from dataclasses import dataclass

import numpy as np

from puppet.character import Body, Character
from puppet.facepoints import face_points
from puppet.motion import Stance

SIDES = np.array([1.0, -1.0])  # left is at positive x

# Fingers: root position (along and across the palm), splay at full spread (degrees), length; in hand lengths.
FINGERS = np.array(
    [
        (0.47, 0.17, 9.0, 0.43),  # index
        (0.50, 0.04, 2.0, 0.48),
        (0.47, -0.08, -6.0, 0.43),
        (0.42, -0.19, -14.0, 0.33),  # little finger
    ]
)
PHALANXES = np.array([0.45, 0.30, 0.25])
CURL = np.deg2rad([72.0, 95.0, 60.0])  # bend of the three joints of a closed finger


@dataclass(frozen=True)
class Skeleton:
    """A body's 3-D points, axes as in the module's docstring."""

    pelvis: np.ndarray  # (3,) middle of the hip joints
    neck: np.ndarray  # (3,) middle of the shoulder line, at rest
    pelvis_axes: np.ndarray  # (3, 3) columns: to the left, up, forward
    chest_axes: np.ndarray
    head_axes: np.ndarray
    head: np.ndarray  # (3,) middle of the head
    shoulders: np.ndarray  # (2, 3)
    elbows: np.ndarray
    hands: np.ndarray  # (2, 21, 3), [:, 0] is the wrist
    palms: np.ndarray  # (2, 3) normal, out of the palm
    hips: np.ndarray
    knees: np.ndarray
    ankles: np.ndarray
    heels: np.ndarray
    big_toes: np.ndarray
    small_toes: np.ndarray
    face: np.ndarray  # (68, 3)
    ears: np.ndarray  # (2, 3)
    eyes: np.ndarray  # (2, 3)


def rotation(yaw: float, roll: float, pitch: float) -> np.ndarray:
    """Rotation matrix (3, 3): turned to the image's right (yaw), leaned to it (roll), bent forward (pitch), radians."""
    (cy, cr, cp), (sy, sr, sp) = np.cos((yaw, roll, pitch)), np.sin((yaw, roll, pitch))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    lean = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    bend = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return lean @ turn @ bend


def _directions(angle: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Unit vectors (2, 3) raised sideways by `angle` from hanging, tilted by `forward` to the camera; x is outwards."""
    flat = np.cos(forward)
    return np.stack([flat * np.sin(angle), -flat * np.cos(angle), np.sin(forward)], -1)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def hand_points(along: np.ndarray, roll: np.ndarray, fingers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """→ 21 points per hand relative to the wrist, in hand lengths (2, 21, 3), palm normals (2, 3); x is outwards.

    `along` (2, 3) is the hand's direction, `roll` (2,) its rotation about it, `fingers` (2, 2) curl and spread.
    """
    side = _unit(np.cross([0.0, 0.0, 1.0], along))
    out = np.cross(along, side)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    thumb, normal = c * side + s * out, c * out - s * side
    curl, spread = fingers[:, 0], fingers[:, 1]

    points = np.zeros((2, 21, 3))
    roots = FINGERS[:, 0, None] * along[:, None] + FINGERS[:, 1, None] * thumb[:, None]  # (2, 4, 3)
    splay = np.deg2rad(FINGERS[:, 2]) * spread[:, None]
    ray = np.cos(splay)[..., None] * along[:, None] + np.sin(splay)[..., None] * thumb[:, None]
    bends = np.cumsum(CURL)[None] * curl[:, None]  # (2, 3)
    toward = np.cos(bends)[:, None, :, None] * ray[:, :, None] + np.sin(bends)[:, None, :, None] * normal[:, None, None]
    bones = toward * (PHALANXES[:, None] * FINGERS[:, 3, None, None])  # (2, 4, 3, 3)
    points[:, 5:] = np.concatenate([roots[:, :, None], roots[:, :, None] + np.cumsum(bones, 2)], 2).reshape(2, 16, 3)

    open_thumb = np.deg2rad(30 + 22 * spread - 26 * curl)
    folded = (0.15 + 0.9 * curl)[:, None]
    angles = open_thumb[:, None] - curl[:, None] * np.deg2rad([0, 25, 45]) + np.deg2rad([8, 0, -8])
    bone = np.cos(angles)[..., None] * along[:, None] + np.sin(angles)[..., None] * thumb[:, None]  # (2, 3, 3)
    bone = _unit(bone + (folded * np.array([0.3, 0.7, 0.9]))[..., None] * normal[:, None])
    base = 0.12 * along + 0.13 * thumb
    steps = np.cumsum(bone * np.array([0.22, 0.18, 0.15])[:, None], 1)
    points[:, 1:5] = np.concatenate([base[:, None], base[:, None] + steps], 1)
    return points, normal


def _knees(hips: np.ndarray, ankles: np.ndarray, body: Body, toes: np.ndarray) -> np.ndarray:
    """Two-bone inverse kinematics: knees (2, 3), bent forward and over the toes."""
    line = ankles - hips
    reach = np.linalg.norm(line, axis=1, keepdims=True)
    line = line / reach
    along = (body.thigh**2 - body.shin**2 + reach**2) / (2 * reach)
    height = np.sqrt(np.maximum(body.thigh**2 - along**2, 0))
    pole = np.stack([SIDES * np.sin(0.6 * toes), np.zeros(2), np.cos(0.6 * toes)], -1)
    pole = _unit(pole - (pole * line).sum(1, keepdims=True) * line)
    return hips + along * line + height * pole


def _pelvis_height(body: Body, hips: np.ndarray, ankles: np.ndarray) -> float:
    """How far to raise the hips, given at height 0, so that the leg that limits the height is almost straight."""
    reach = 0.997 * (body.thigh + body.shin)
    across = ((hips - ankles)[:, ::2] ** 2).sum(1)
    room = np.sqrt(np.maximum(reach**2 - across, (0.4 * reach) ** 2)) + ankles[:, 1] - hips[:, 1]
    soft = 0.006  # a soft minimum: the pelvis moves smoothly when the limiting leg changes
    return float(-soft * np.log(np.exp(-(room - room.min()) / soft).sum()) + room.min())


def build_skeleton(character: Character, stance: Stance) -> Skeleton:
    """The character's skeleton in a stance."""
    body = character.body
    pelvis_axes = rotation(*stance.pelvis[2:])
    chest_axes, head_axes = rotation(*stance.chest), rotation(*stance.head)

    toes = np.stack([np.sin(stance.toes) * SIDES, np.zeros(2), np.cos(stance.toes)], -1)
    grounded = np.stack([stance.feet[:, 0] * body.shin, np.full(2, body.ankle), np.zeros(2)], -1)
    ankles = grounded + np.array([0, 1, 0]) * (stance.feet[:, 1:] * body.shin)
    offsets = SIDES[:, None] * body.hip * pelvis_axes[:, 0]
    pelvis = np.array([stance.pelvis[0] * body.shin, 0.0, 0.0])
    pelvis[1] = _pelvis_height(body, pelvis + offsets, grounded) - stance.pelvis[1] * body.shin
    hips = pelvis + offsets
    tilt = np.minimum(stance.feet[:, 1] * 1.6, 0.9)  # a lifted foot hangs down
    sole = np.cos(tilt)[:, None] * toes - np.sin(tilt)[:, None] * np.array([0, 1, 0])
    drop = np.cos(tilt)[:, None] * np.array([0, 1.0, 0]) + np.sin(tilt)[:, None] * toes
    below = ankles - drop * body.ankle * 0.72
    across = np.cross([0.0, 1.0, 0.0], toes) * SIDES[:, None]  # outwards

    neck = pelvis + body.torso * _unit(0.4 * pelvis_axes[:, 1] + 0.6 * chest_axes[:, 1])
    lift = np.clip((stance.arms[:, 0] - 1.0) * 0.20, 0, 0.4)  # the collarbone rises with the arm
    shoulders = np.stack([np.cos(lift) * SIDES, np.sin(lift), np.zeros(2)], -1) * body.shoulder @ chest_axes.T + neck

    raised, forward, bend, fore_forward, roll, wrist = stance.arms.T
    outwards = np.stack([SIDES, np.ones(2), np.ones(2)], -1)
    upper = _directions(raised, forward)
    lower = _directions(raised + bend, fore_forward)
    palm = _directions(raised + bend + wrist, 0.8 * fore_forward)
    points, normals = hand_points(palm, roll, stance.fingers)
    elbows = shoulders + (upper * outwards) @ chest_axes.T * body.upper_arm
    wrists = elbows + (lower * outwards) @ chest_axes.T * body.forearm
    hands = wrists[:, None] + (points * outwards[:, None]) @ chest_axes.T * body.hand

    half = body.head / 2
    head = neck + chest_axes[:, 1] * body.neck + head_axes[:, 1] * half
    local, ears = face_points(character.face, stance.face)
    face = head + local @ head_axes.T * half
    return Skeleton(
        pelvis=pelvis,
        neck=neck,
        pelvis_axes=pelvis_axes,
        chest_axes=chest_axes,
        head_axes=head_axes,
        head=head,
        shoulders=shoulders,
        elbows=elbows,
        hands=hands,
        palms=(normals * outwards) @ chest_axes.T,
        hips=hips,
        knees=_knees(hips, ankles, body, stance.toes),
        ankles=ankles,
        heels=below - 0.22 * body.foot * sole,
        big_toes=below + 0.72 * body.foot * sole - 0.12 * body.foot * across,
        small_toes=below + 0.60 * body.foot * sole + 0.18 * body.foot * across,
        face=face,
        ears=head + ears @ head_axes.T * half,
        eyes=np.stack([face[42:48].mean(0), face[36:42].mean(0)]),
    )
