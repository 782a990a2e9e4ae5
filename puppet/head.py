"""Head and face: skin, features with expression, beard and glasses; the hair is in hair.py."""

import cv2
import numpy as np

from puppet.facepoints import EYE_Y, surface
from puppet.paint import LIT, ellipse, spline
from puppet.palettes import tint
from puppet.sketch import Sketch, line_colour


class HeadPlan:
    """Maps head coordinates, in half the head's height, to pixels."""

    def __init__(self, sketch: Sketch):
        self.sketch, self.face = sketch, sketch.character.face
        skeleton = sketch.skeleton
        self.axes = skeleton.head_axes
        self.half = sketch.body.head / 2
        self.scale = self.half * sketch.unit
        self.centre = sketch.project(skeleton.head)
        up = sketch.view.direction(self.axes[:, 1])
        self.up = up / np.linalg.norm(up)
        self.right = np.array([-self.up[1], self.up[0]])
        self.points = sketch.project(skeleton.face)
        self.yaw = float(np.arctan2(self.axes[0, 2], self.axes[2, 2]))

    def project(self, local: np.ndarray) -> np.ndarray:
        """Points (n, 3) in head axes → pixels (n, 2)."""
        return self.centre + self.sketch.view.direction(local @ self.axes.T) * self.half

    def on_face(self, flat: np.ndarray, lift: float = 1.0) -> np.ndarray:
        """Points (n, 2) on the front of the head, scaled outwards by `lift` → pixels (n, 2)."""
        flat = np.asarray(flat, float)
        z = surface(flat[:, 0] / lift, flat[:, 1] / lift, self.face.width) * lift
        return self.project(np.concatenate([flat, z[:, None]], 1))

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) that follow the head's roll but not its yaw → pixels (n, 2)."""
        points = np.asarray(points, float) * self.scale
        return self.centre + points[:, :1] * self.right + points[:, 1:] * self.up

    def skull(self, grow: float = 0.0, low: float = 0.0, high: float = 360.0, points: int = 28) -> np.ndarray:
        """An arc (n, 2) of the cranium's outline; degrees from the image's right over the top."""
        angle = np.deg2rad(np.linspace(low, high, points))
        wide = self.face.width * 1.02 + 0.06 * abs(np.sin(self.yaw))
        x, y = (wide + grow) * np.cos(angle), 0.14 + (0.86 + grow) * np.sin(angle)
        return self.flat(np.stack([x - 0.10 * np.sin(self.yaw), y], 1))


def _ears(plan: HeadPlan) -> None:
    sketch, skin = plan.sketch, plan.sketch.character.skin
    for side in (0, 1):
        middle = sketch.project(sketch.skeleton.ears[side])
        inward = plan.centre - middle
        middle = middle + 0.03 * inward
        size = plan.scale * np.array([0.13, 0.21])
        sketch.canvas.shape(ellipse(middle, plan.right * size[0], plan.up * size[1], 16), skin, line_colour(skin), 190)
        inner = ellipse(middle, plan.right * size[0] * 0.5, plan.up * size[1] * 0.6, 12)
        sketch.canvas.polygon(inner, tint(skin, 0.86), 184)


def _skin(plan: HeadPlan) -> None:
    """Paint cranium and jaw as one convex shape."""
    canvas, skin = plan.sketch.canvas, plan.sketch.character.skin
    cloud = np.concatenate([plan.skull(), plan.points[:17]]).astype(np.float32)
    outline = cv2.convexHull(cloud)[:, 0].astype(float)
    canvas.shape(outline, skin, line_colour(skin), 176)
    middle = outline.mean(0)
    for k, shift, level in ((0.88, 0.035, 194), (0.74, 0.06, 204), (0.52, 0.09, 209)):
        canvas.polygon(middle + k * (outline - middle) + plan.scale * shift * np.array([-0.8, -1.0]), None, level)


def _cheeks(plan: HeadPlan) -> None:
    canvas, face, skin = plan.sketch.canvas, plan.face, plan.sketch.character.skin
    red = tuple(int(c) for c in np.clip(np.array(skin) * (1.0, 1 - 0.16 * face.cheeks, 1 - 0.14 * face.cheeks), 0, 255))
    between = tuple((a + b) // 2 for a, b in zip(red, skin, strict=True))
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle) * 0.72], 1)
    for side in (-1, 1):
        spot = np.array([side * 0.47, -0.38])
        canvas.polygon(plan.on_face(spot + 0.17 * ring), between)
        canvas.polygon(plan.on_face(spot + 0.12 * ring), red)
        if face.freckles:
            dots = spot + np.array([(-0.08, 0.06), (0.05, 0.09), (0.0, -0.02), (0.1, 0.0), (-0.1, -0.05)])
            shape = ring[::3] * 0.014
            canvas.cells([plan.on_face(dot + shape) for dot in dots], tint(skin, 0.72))


def _eye(plan: HeadPlan, which: slice, gaze: float) -> None:
    canvas, face, skin = plan.sketch.canvas, plan.face, plan.sketch.character.skin
    corner = plan.points[which]
    lids = spline(corner, closed=True, samples=4)
    upper = spline(corner[:4], samples=4)
    opening = float(np.linalg.norm((corner[1] + corner[2] - corner[4] - corner[5]) / 2)) / plan.scale
    lash = tint(skin, 0.20)
    if opening > 0.05:
        canvas.polygon(lids, (250, 249, 246), 196)
        middle = corner.mean(0) + plan.right * gaze * 0.035 * plan.scale
        radius = 0.128 * face.eye_size * plan.scale
        iris = ellipse(middle, plan.right * radius * abs(np.cos(plan.yaw)) ** 0.5, plan.up * radius, 16)
        low, high = corner[[1, 2]].mean(0), corner[[4, 5]].mean(0)
        span = max(float(np.linalg.norm(high - low)), 1e-6)
        axis = (high - low) / span
        depth = np.clip((iris - low) @ axis, 0.0, span)  # the lids cover the rest
        iris = iris + (depth - (iris - low) @ axis)[:, None] * axis
        canvas.polygon(iris, face.eye_colour, LIT)
        pupil = middle + 0.55 * (iris - middle)
        canvas.polygon(pupil, (20, 16, 18), LIT)
        glint = middle + plan.scale * 0.042 * (plan.up - plan.right)
        canvas.polygon(ellipse(glint, plan.right * 0.30 * radius, plan.up * 0.30 * radius, 8), (255, 255, 255), 208)
    canvas.curve(upper, lash, max(0.048 * plan.scale, 0.5), 178)
    canvas.curve(spline(corner[[0, 5, 4, 3]], samples=3), tint(skin, 0.62), max(0.018 * plan.scale, 0.3))


def _brows(plan: HeadPlan) -> None:
    hair = plan.sketch.character.hair
    colour = tint(hair.colour if hair.style != "bald" else (70, 52, 44), 0.8)
    for which in (slice(17, 22), slice(22, 27)):
        line = spline(plan.points[which], samples=3)
        plan.sketch.canvas.curve(line, colour, max(1.7 * plan.face.brow * plan.scale, 0.5), 186)


def _nose(plan: HeadPlan) -> None:
    canvas, skin, points = plan.sketch.canvas, plan.sketch.character.skin, plan.points
    side = points[35] if plan.yaw < 0 else points[31]
    shade = np.stack([points[28], side, points[33], points[30]])
    canvas.polygon(spline(shade, closed=True, samples=3), tint(skin, 0.93), None)
    tip = points[30]
    canvas.polygon(ellipse(tip, plan.right * 0.07 * plan.scale, plan.up * 0.06 * plan.scale, 12), tint(skin, 1.10))
    wings = spline(points[31:36], samples=3)
    canvas.curve(wings, tint(skin, 0.62), max(0.030 * plan.scale, 0.35))


def _mouth(plan: HeadPlan) -> None:
    canvas, face, points = plan.sketch.canvas, plan.face, plan.points
    outer, inner = points[48:60], points[60:68]
    canvas.polygon(spline(outer, closed=True, samples=3), face.lips, 196)
    gap = float(np.linalg.norm(inner[2] - inner[6])) / plan.scale
    if gap > 0.03:
        canvas.polygon(spline(inner, closed=True, samples=3), (92, 30, 34), 188)
        teeth = np.concatenate([inner[:5], (inner[3:0:-1] * 0.62 + inner[5:8] * 0.38)])
        canvas.polygon(teeth, (252, 250, 244), 200)
        if gap > 0.10:
            tongue = ellipse(
                inner[6] - plan.up * -0.035 * plan.scale,
                plan.right * 0.10 * plan.scale,
                plan.up * 0.035 * plan.scale,
                12,
            )
            canvas.polygon(tongue, (206, 96, 100))
    else:
        line = spline(np.concatenate([outer[:1], inner[1:4], outer[6:7]]), samples=3)
        canvas.curve(line, tint(face.lips, 0.55), max(0.028 * plan.scale, 0.4))


def _beard(plan: HeadPlan) -> None:
    sketch, kind, jaw, points = plan.sketch, plan.face.beard, plan.points[:17], plan.points
    if kind == "none":
        return
    colour = sketch.character.hair.colour
    if kind == "stubble":
        skin = sketch.character.skin
        colour = tuple(round(0.80 * s + 0.20 * c * 0.6) for s, c in zip(skin, colour, strict=True))
    lip = points[33] - plan.up * 0.05 * plan.scale
    if kind in ("stubble", "full"):
        nape = plan.on_face([(0.62, -0.30), (0.40, -0.44), (-0.40, -0.44), (-0.62, -0.30)])
        chin = plan.points[8] - plan.up * (0.10 if kind == "full" else 0.0) * plan.scale
        low = np.concatenate([jaw[1:8], chin[None], jaw[9:16]])
        over = np.stack(
            [
                nape[0],
                nape[1],
                points[54] + plan.up * 0.10 * plan.scale,
                lip,
                points[48] + plan.up * 0.10 * plan.scale,
                nape[2],
                nape[3],
            ]
        )
        outline = np.concatenate([spline(low, samples=2), over])
        sketch.canvas.shape(outline, colour, line_colour(colour) if kind == "full" else None, 184)
    if kind in ("moustache", "full"):
        half = 0.30 * plan.scale
        ends = np.stack(
            [
                lip - plan.right * half - plan.up * 0.11 * plan.scale,
                lip,
                lip + plan.right * half - plan.up * 0.11 * plan.scale,
            ]
        )
        radii = np.array([0.03, 0.075, 0.03]) * plan.scale
        sketch.canvas.tube(ends, radii, tint(colour, 0.92))


def _glasses(plan: HeadPlan) -> None:
    if not plan.face.glasses:
        return
    canvas, frame = plan.sketch.canvas, (44, 40, 46)
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    ring = np.stack([np.cos(angle) * 0.255, np.sin(angle) * 0.225], 1)
    width = max(0.040 * plan.scale, 0.5)
    rims = [plan.on_face(ring + (side * (plan.face.eye_gap + 0.01), EYE_Y), 1.06) for side in (-1, 1)]
    for rim in rims:
        canvas.curve(np.concatenate([rim, rim[:1]]), frame, width, LIT)
    bridge = plan.on_face([(-0.09, EYE_Y + 0.05), (0, EYE_Y + 0.08), (0.09, EYE_Y + 0.05)], 1.08)
    canvas.curve(bridge, frame, width)
    for side, k in ((-1, 10), (1, 0)):
        temple = plan.project(np.array([[side * plan.face.width, EYE_Y + 0.05, 0.1]]))
        canvas.curve(np.stack([rims[(side + 1) // 2][k], temple[0]]), frame, width)


def paint_face(plan: HeadPlan) -> None:
    """Paint the head without hair and hat."""
    _ears(plan)
    _skin(plan)
    _cheeks(plan)
    _beard(plan)
    _nose(plan)
    _mouth(plan)
    gaze = float(plan.sketch.stance.face[4])
    _eye(plan, slice(36, 42), gaze)
    _eye(plan, slice(42, 48), gaze)
    _brows(plan)
    _glasses(plan)
