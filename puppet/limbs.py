"""Arms, hands, legs and shoes, with the sleeves and trouser legs on them."""

import numpy as np

from puppet.character import Garment
from puppet.palettes import tint
from puppet.sketch import Sketch, line_colour

KNOTS = np.array([0, 0.45, 1.0, 1.35, 2.0])  # the five points of a limb, in bone lengths from its root
FLARE = {"trousers": 1.12, "wide": 2.05, "shorts": 1.18, "overalls": 1.35}  # width at the hem
HAND_RADII = np.array([0, 0.082, 0.085, 0.068, 0.058, *([0.082, 0.074, 0.068, 0.058] * 3), 0.074, 0.067, 0.061, 0.052])
PALM_OUTLINE = [0, 2, 5, 9, 13, 17]
PALM_GROUP = np.array([(0, root) for root in PALM_OUTLINE[1:]])
FINGER_GROUPS = [np.array([(k, k + 1) for k in range(first, first + 3)]) for first in (17, 13, 9, 5, 1)]


def along(points: np.ndarray, radii: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) and radii (n,) of a limb at distances from its root, in bone lengths."""
    inside = [np.interp(where, KNOTS, column) for column in (*points.T, radii)]
    return np.stack(inside[:2], 1), inside[2]


def covered(length: float) -> np.ndarray:
    """Positions along a limb of the points of cloth that covers its first `length` bones."""
    return np.append(KNOTS[length - 1e-6 > KNOTS], length)


def sleeve_length(top: Garment) -> float:
    """Sleeve length in bones of the arm; 0 for none."""
    if top.kind == "tank":
        return 0.0
    if top.kind == "dress":
        return 0.42
    if top.kind == "tshirt":
        return 0.38 + 0.42 * top.length
    return 1.93 if top.length > 0.3 else 1.45


def limb(sketch: Sketch, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Five pixels along a two-bone limb (5, 2): its joints, and the widest point of each bone."""
    a, b, c = (sketch.project(p) for p in (a, b, c))
    return np.stack([a, a + 0.45 * (b - a), b, b + 0.35 * (c - b), c])


def unit_vector(v: np.ndarray) -> np.ndarray:
    return v / max(float(np.linalg.norm(v)), 1e-6)


def openness(joint: np.ndarray, end: np.ndarray) -> float:
    """How far a cuff at the end of a bone faces the camera: 0 from the side .. 1 along the bone."""
    bone = end - joint
    return float(np.clip(abs(bone[2]) / np.linalg.norm(bone), 0.22, 1))


def arm_is_behind(sketch: Sketch, side: int) -> bool:
    """Whether this arm is painted before, so behind, trunk and head."""
    skeleton = sketch.skeleton
    points = np.stack([skeleton.shoulders[side], skeleton.elbows[side], skeleton.hands[side, 0]])
    return float((points[:, 2] - skeleton.neck[2]).mean()) < -0.028


def paint_hand(sketch: Sketch, side: int) -> None:
    """Paint the palm and five fingers along the hand's points, the fingers over the palm or behind it."""
    canvas, skin = sketch.canvas, sketch.character.skin
    points = sketch.project(sketch.skeleton.hands[side])
    radii = HAND_RADII * sketch.body.hand * sketch.unit
    radii[0] = 0.52 * sketch.body.arm_girth * sketch.unit
    facing = sketch.skeleton.palms[side][2] > 0
    *fingers, thumb = FINGER_GROUPS
    groups = [PALM_GROUP, *fingers, thumb] if facing else [*fingers, PALM_GROUP, thumb]
    canvas.tubes(points, radii, groups, skin, line_colour(skin))
    canvas.polygon(points[PALM_OUTLINE], skin, 200)


def paint_arm(sketch: Sketch, side: int) -> None:
    """Paint an arm: skin and hand, then the sleeve."""
    canvas, skeleton, skin = sketch.canvas, sketch.skeleton, sketch.character.skin
    shoulder, elbow, wrist = skeleton.shoulders[side], skeleton.elbows[side], skeleton.hands[side, 0]
    points = limb(sketch, shoulder, elbow, wrist)
    radii = sketch.body.arm_girth * sketch.unit * np.array([0.94, 0.97, 0.78, 0.82, 0.55])
    hanging = max(0.0, (shoulder - elbow) @ skeleton.chest_axes[:, 1] / sketch.body.upper_arm)
    points[0, 1] += 0.35 * hanging * radii[0]  # avoids a step between neck and arm
    inward = sketch.project(shoulder + 0.34 * (skeleton.neck - shoulder) - 0.008 * skeleton.chest_axes[:, 1])

    canvas.tube(points, radii, skin, line_colour(skin))
    paint_hand(sketch, side)
    canvas.patch(np.stack([points[4] + 0.12 * (points[3] - points[4]), points[4]]), radii[[4, 4]] * 0.94, skin)
    length = sleeve_length(sketch.character.top)
    if length:
        ends = (shoulder, elbow) if length <= 1 else (elbow, wrist)
        _sleeve(sketch, points, radii, length, openness(*ends), inward)
    else:
        canvas.patch(np.stack([points[0], points[0] + 0.25 * (inward - points[0])]), radii[[0, 0]] * 0.94, skin)


def _sleeve(
    sketch: Sketch, points: np.ndarray, radii: np.ndarray, length: float, opening: float, inward: np.ndarray
) -> None:
    """Paint a sleeve of `length` bones; `inward` is where it joins the trunk."""
    canvas, top = sketch.canvas, sketch.character.top
    path, wide = along(points, radii, covered(length))
    wide = wide * (1 + top.ease) * np.linspace(0.95, 1.10, len(wide))
    line = line_colour(top.colour)
    canvas.tube(path, wide, tint(top.colour, 0.97), line, squash=opening)
    if top.pattern.kind in ("stripes", "checks", "dots"):
        back = path[0] - 0.8 * wide[0] * unit_vector(path[1] - path[0])
        whole = np.concatenate([back[None], path]), np.concatenate([0.6 * wide[:1], wide])
        sketch.paint_pattern(sketch.limb_strip(*whole), top, repeats=0.5 * max(length, 0.6), columns=0.5)
    elif top.pattern.kind != "columns":  # no line between sleeve and shoulder
        canvas.patch(np.stack([points[0], inward]), [wide[0] * 0.97, wide[0] * 0.80], top.colour)
    if length > 1:
        strip = sketch.limb_strip(path, wide)
        canvas.curve(strip.at(np.stack([np.linspace(-1, 1, 7), np.full(7, 0.93)], 1)), line, 0.6 * canvas.line)
        sketch.creases(strip, (0.42, 0.56))


def _sock(sketch: Sketch, points: np.ndarray, radii: np.ndarray) -> None:
    character = sketch.character
    if character.sock and character.shoe != "boots":
        path, wide = along(points, radii, np.linspace(2.0, 2 - character.sock, 3))
        sketch.canvas.tube(path, wide * 1.1, character.sock_colour, line_colour(character.sock_colour), squash=0.3)


def paint_shoe(sketch: Sketch, side: int) -> None:
    """Paint a shoe with its sole."""
    canvas, skeleton, character, unit = sketch.canvas, sketch.skeleton, sketch.character, sketch.unit
    heel, toe = (
        sketch.project(skeleton.heels[side]),
        sketch.project(0.5 * (skeleton.big_toes + skeleton.small_toes)[side]),
    )
    ankle = sketch.project(skeleton.ankles[side])
    size = sketch.body.foot * unit
    colour, sole = character.shoe_colour, character.sole
    up = unit_vector(ankle - heel)
    bottom = np.stack([heel, toe]) - up * 0.03 * size
    canvas.tube(bottom, [0.205 * size, 0.225 * size], sole, line_colour(sole), level=0.92)
    upper = np.stack([heel, toe]) + up * 0.07 * size
    line = line_colour(colour)
    if character.shoe == "flats":
        canvas.tube(
            np.stack([ankle, heel + 0.45 * (toe - heel) + up * 0.06 * size]), [0.19 * size, 0.17 * size], character.skin
        )
        canvas.tube(upper, [0.165 * size, 0.195 * size], colour, line)
        return
    canvas.tube(upper, [0.175 * size, 0.195 * size], colour, line)
    instep = heel + 0.42 * (toe - heel) + up * 0.12 * size
    shin = unit_vector(sketch.project(skeleton.knees[side]) - ankle)
    shaft = ankle + (0.5 * shin if character.shoe == "boots" else 0.10 * up) * size
    canvas.tube(np.stack([instep, shaft]), [0.20 * size, 0.235 * size], colour, line, squash=0.35)
    canvas.patch(np.stack([upper.mean(0), instep]), [0.17 * size, 0.17 * size], colour)
    if character.shoe == "sneakers":
        across = np.array([-up[1], up[0]])
        for k in (0.30, 0.48):
            middle = instep + k * (toe - instep) + up * 0.05 * size
            ends = np.stack([middle - 0.11 * size * across, middle + 0.11 * size * across])
            canvas.curve(ends, sole, 0.045 * size)


def paint_leg(sketch: Sketch, side: int) -> None:
    """Paint a leg: skin, sock and shoe, then the trouser leg."""
    skeleton, character = sketch.skeleton, sketch.character
    hip, knee, ankle = skeleton.hips[side], skeleton.knees[side], skeleton.ankles[side]
    points = limb(sketch, hip, knee, ankle)
    radii = sketch.body.leg_girth * sketch.unit * np.array([1.0, 0.95, 0.72, 0.73, 0.44])
    sketch.canvas.tube(points, radii, character.skin, line_colour(character.skin))
    _sock(sketch, points, radii)
    paint_shoe(sketch, side)
    if not character.wears_skirt:
        length = 0.42 + 0.5 * character.bottom.length if character.bottom.kind == "shorts" else 1.9
        _trouser_leg(sketch, points, radii, length, openness(*((hip, knee) if length <= 1 else (knee, ankle))))


def _trouser_leg(sketch: Sketch, points: np.ndarray, radii: np.ndarray, length: float, opening: float) -> None:
    """Paint a trouser leg over the first `length` bones."""
    canvas, bottom = sketch.canvas, sketch.character.bottom
    path, wide = along(points, radii, covered(length))
    shape = np.linspace(1.02, FLARE[bottom.kind], len(wide)) ** np.linspace(0.3, 1, len(wide))
    wide = wide * (1 + 0.5 * bottom.ease) * shape
    line = line_colour(bottom.colour)
    canvas.tube(path, wide, bottom.colour, line, squash=opening)
    strip = sketch.limb_strip(path, wide)
    sketch.paint_pattern(strip, bottom, repeats=0.75 * length, columns=0.55)
    if length > 1:
        sketch.creases(strip, (0.50, 0.57, 0.90))
    canvas.curve(strip.at(np.stack([np.linspace(-1, 1, 7), np.full(7, 0.975)], 1)), line, 0.5 * canvas.line)
