"""Hair behind the head, over it and around the face; hats, caps and bands."""

import numpy as np

from puppet.head import HeadPlan
from puppet.paint import ellipse, spline
from puppet.palettes import Colour, tint
from puppet.sketch import line_colour

# The hairline from the left temple in the image to the right: (x as a fraction of the head's width, y in half-heads).
HAIRLINES = {
    "swept": (
        (-0.99, -0.12),
        (-0.92, 0.22),
        (-0.62, 0.34),
        (-0.20, 0.40),
        (0.24, 0.58),
        (0.62, 0.42),
        (0.90, 0.18),
        (0.99, -0.12),
    ),
    "straight": (
        (-0.99, -0.14),
        (-0.93, 0.14),
        (-0.70, 0.28),
        (-0.30, 0.25),
        (0.0, 0.24),
        (0.30, 0.25),
        (0.70, 0.28),
        (0.93, 0.14),
        (0.99, -0.14),
    ),
    "parted": (
        (-0.99, -0.18),
        (-0.94, 0.12),
        (-0.62, 0.34),
        (-0.20, 0.52),
        (0.0, 0.72),
        (0.20, 0.52),
        (0.62, 0.34),
        (0.94, 0.12),
        (0.99, -0.18),
    ),
    "back": (
        (-0.99, -0.08),
        (-0.93, 0.26),
        (-0.70, 0.54),
        (-0.30, 0.64),
        (0.0, 0.62),
        (0.30, 0.64),
        (0.70, 0.54),
        (0.93, 0.26),
        (0.99, -0.08),
    ),
}
THICKNESS = {"crop": 0.05, "short": 0.12, "spiky": 0.10, "mohawk": 0.01, "afro": 0.42, "bald": 0.0}
LONG = {"long": 2.15, "wavy": 2.05, "bob": 1.15}


def _mass(plan: HeadPlan, outline: np.ndarray, colour: Colour, light: int = 178) -> None:
    """Paint a filled area of hair with an outline."""
    plan.sketch.canvas.shape(outline, colour, line_colour(colour), light)


def _strands(plan: HeadPlan, lines: list[np.ndarray], light: int, width: float = 0.05) -> None:
    for line in lines:
        plan.sketch.canvas.curve(line, None, width * plan.scale, light)


def _curtain(plan: HeadPlan, length: float, waves: float) -> np.ndarray:
    """Outline (n, 2) of long, swinging hair down the back."""
    swing = plan.sketch.stance.swing
    wide = plan.face.width + 0.16
    t = np.linspace(0, 1, 9)
    drift = 0.9 * swing * t**2
    edge = wide * (1 + 0.16 * np.sin(np.pi * t * 0.9)) + waves * 0.06 * np.sin(t * 16)
    left = plan.flat(np.stack([-edge, 0.35 - length * t], 1))
    right = plan.flat(np.stack([edge, 0.35 - length * t], 1))
    hang = np.outer(drift, [plan.scale, 0])
    tip = left[-1:] * 0.5 + right[-1:] * 0.5 + hang[-1] + plan.scale * np.array([[0, 0.14]])
    return np.concatenate([left + hang, tip, (right + hang)[::-1], plan.skull(0.15, 30, 150, 8)])


def _tail(plan: HeadPlan, root: np.ndarray, length: float, lean: float, girth: float) -> None:
    """Paint a swinging pony tail from the pixel `root`."""
    hair = plan.sketch.character.hair
    t = np.linspace(0, 1, 6)
    swing = plan.sketch.stance.swing
    x = lean * np.sqrt(t) + 0.9 * swing * t**2
    y = length * t - 0.18 * np.sin(np.pi * np.minimum(t * 2, 1))
    path = root + plan.scale * np.stack([x, y], 1)
    radii = plan.scale * girth * np.array([0.55, 0.95, 1.0, 0.9, 0.66, 0.18])
    plan.sketch.canvas.tube(path, radii, hair.colour, line_colour(hair.colour))


def paint_back_hair(plan: HeadPlan) -> None:
    """Paint the hair behind the trunk and the head."""
    hair, canvas = plan.sketch.character.hair, plan.sketch.canvas
    if hair.style in LONG:
        outline = _curtain(plan, LONG[hair.style], float(hair.style == "wavy"))
        _mass(plan, spline(outline, closed=True, samples=3), tint(hair.colour, 0.86), 164)
    elif hair.style == "ponytail":
        _tail(plan, plan.project(np.array([[0.0, 0.55, -0.75]]))[0], 1.75, 0.62 if plan.yaw <= 0 else -0.62, 0.27)
    elif hair.style == "pigtails":
        for side in (-1, 1):
            root = plan.project(np.array([[side * plan.face.width * 1.02, 0.02, -0.15]]))[0]
            _tail(plan, root, 1.35, side * 0.42, 0.22)
    elif hair.style == "bun":
        top = plan.project(np.array([[0.0, 1.10, -0.25]]))[0]
        canvas.tube(np.stack([top, top + 0.01]), np.full(2, 0.34 * plan.scale), hair.colour, line_colour(hair.colour))
        band = top + plan.up * -0.24 * plan.scale
        canvas.curve(
            np.stack([band - plan.right * 0.2 * plan.scale, band + plan.right * 0.2 * plan.scale]),
            hair.hat_colour,
            0.1 * plan.scale,
        )
    elif hair.style == "afro":
        angle = np.linspace(0, 2 * np.pi, 44, endpoint=False)
        radius = 1.20 + 0.035 * np.cos(angle * 11)
        ring = np.stack([np.cos(angle) * radius * (plan.face.width + 0.24), 0.28 + np.sin(angle) * radius * 0.92], 1)
        _mass(plan, plan.flat(ring), hair.colour, 172)
        for k, level in ((0.78, 190), (0.5, 204)):
            shift = plan.scale * 0.16 * np.array([-0.6, -1.0])
            middle = plan.flat(np.array([[0, 0.28]]))
            canvas.polygon(middle + k * (plan.flat(ring) - middle) + shift, None, level)


def _hairline(plan: HeadPlan, style: str) -> np.ndarray:
    line = np.array(HAIRLINES[style]) * (plan.face.width, 1.0)
    return plan.on_face(spline(line, samples=3), 1.02)


def _cap_of_hair(plan: HeadPlan, thickness: float, fringe: str) -> np.ndarray:
    """Outline from the right temple over the crown to the left temple and back along the hairline, (n, 2)."""
    crown = plan.skull(thickness, -14, 194, 26)
    return np.concatenate([crown, _hairline(plan, fringe)])


def _spikes(plan: HeadPlan) -> np.ndarray:
    angle = np.deg2rad(np.linspace(-8, 188, 27))
    radius = np.where(np.arange(27) % 2 == 1, 0.30, 0.06)
    wide = plan.face.width * 1.02
    ring = np.stack([(wide + radius) * np.cos(angle), 0.14 + (0.86 + radius) * np.sin(angle)], 1)
    line = plan.flat(ring)
    zigzag = _hairline(plan, "back")
    zigzag[1::2] -= plan.up * 0.10 * plan.scale
    return np.concatenate([line, zigzag])


def _mohawk(plan: HeadPlan) -> None:
    hair = plan.sketch.character.hair
    stubble = tuple(round(0.7 * s + 0.3 * c) for s, c in zip(plan.sketch.character.skin, hair.colour, strict=True))
    plan.sketch.canvas.polygon(_cap_of_hair(plan, 0.01, "back"), stubble, 190)
    angle = np.deg2rad(np.linspace(58, 122, 9))
    radius = np.where(np.arange(9) % 2 == 1, 0.52, 0.40)
    shift = 0.45 * np.sin(plan.yaw)
    ring = np.stack([np.cos(angle) * radius * 1.3 + shift * 0.3, 0.72 + (0.25 + radius) * np.sin(angle)], 1)
    root = plan.on_face(np.array([(0.13, 0.56), (-0.13, 0.56)]), 1.02)
    _mass(plan, np.concatenate([plan.flat(ring), root[::-1]]), hair.colour, 196)


def _shine(plan: HeadPlan, thickness: float) -> None:
    """Paint strands and a highlight over the crown."""
    for k in (-0.55, -0.2, 0.18, 0.52):
        x = k * plan.face.width
        line = plan.on_face(
            spline(np.array([(x * 0.75, 0.92), (x * 1.0, 0.74), (x * 1.15, 0.52)]), samples=3), 1.06 + 0.5 * thickness
        )
        _strands(plan, [line], 166, 0.035)
    band = plan.on_face(
        spline(np.array([(-0.50, 0.62), (-0.30, 0.78), (0.02, 0.82)]), samples=4), 1.05 + 0.6 * thickness
    )
    _strands(plan, [band], 236, 0.085)


def paint_front_hair(plan: HeadPlan) -> None:
    """Paint the hair over the crown and around the face, then the hat."""
    hair = plan.sketch.character.hair
    if hair.style in LONG:
        _locks(plan, 0.75 if hair.style == "bob" else 1.15)
    if hair.style == "mohawk":
        _mohawk(plan)
    elif hair.style == "spiky" and hair.hat in ("none", "band"):
        _mass(plan, _spikes(plan), hair.colour, 190)
        _shine(plan, 0.0)
    elif hair.style != "bald":
        thickness = 0.06 if hair.hat in ("cap", "beanie", "brim") else THICKNESS.get(hair.style, 0.13)
        fringe = "back" if hair.style in ("afro", "crop", "bun") and hair.fringe == "parted" else hair.fringe
        _mass(plan, _cap_of_hair(plan, 0.12 if hair.style == "afro" else thickness, fringe), hair.colour, 192)
        _shine(plan, thickness)
    _hat(plan)


def _locks(plan: HeadPlan, length: float) -> None:
    """Paint strands in front of the ears."""
    hair = plan.sketch.character.hair
    swing = plan.sketch.stance.swing
    for side in (-1, 1):
        t = np.linspace(0, 1, 5)
        x = side * (plan.face.width * 1.02 + 0.05 * np.sin(np.pi * t)) + 0.35 * swing * t**2
        path = plan.flat(np.stack([x - 0.04 * np.sin(plan.yaw), 0.32 - length * t], 1))
        plan.sketch.canvas.tube(
            path, plan.scale * np.array([0.11, 0.15, 0.15, 0.12, 0.04]), hair.colour, line_colour(hair.colour)
        )


def _hat(plan: HeadPlan) -> None:
    hair, canvas = plan.sketch.character.hair, plan.sketch.canvas
    colour, line = hair.hat_colour, line_colour(hair.hat_colour)
    if hair.hat == "none":
        return
    rim = np.array([(-1.02, 0.22), (-0.75, 0.36), (-0.3, 0.43), (0, 0.45), (0.3, 0.43), (0.75, 0.36), (1.02, 0.22)])
    edge = plan.on_face(spline(rim * (plan.face.width, 1), samples=3), 1.08)
    if hair.hat == "band":
        upper = plan.on_face(spline(rim * (plan.face.width, 1) + (0, 0.17), samples=3), 1.08)
        canvas.shape(np.concatenate([edge, upper[::-1]]), colour, line, 198)
        return
    crown = np.concatenate([plan.skull(0.15, 8, 172, 22), edge])
    canvas.shape(crown, colour, line, 184)
    middle = crown.mean(0)
    for k, level in ((0.80, 198), (0.5, 208)):
        canvas.polygon(middle + k * (crown - middle) + plan.scale * np.array([-0.10, -0.09]), None, level)
    if hair.hat == "beanie":
        fold = plan.on_face(spline(rim * (plan.face.width, 1) + (0, 0.20), samples=3), 1.12)
        canvas.shape(np.concatenate([edge, fold[::-1]]), tint(colour, 0.86), line, 200)
        top = plan.flat(np.array([[-0.1 * np.sin(plan.yaw), 1.24]]))[0]
        canvas.tube(np.stack([top, top + 0.01]), np.full(2, 0.17 * plan.scale), tint(colour, 1.5), line)
    elif hair.hat == "cap":
        peak = np.array([(-0.62, 0.38), (-0.5, 0.24), (0, 0.16), (0.5, 0.24), (0.62, 0.38), (0, 0.46)])
        front = plan.on_face(spline(peak * (plan.face.width, 1), samples=3), 1.10)
        out = plan.sketch.view.direction(plan.axes[:, 2] * 0.38 * plan.half)
        front[: len(front) * 4 // 5] += out
        canvas.shape(front, tint(colour, 0.84), line, 198)
    else:
        brim = ellipse(
            edge.mean(0) + plan.up * 0.03 * plan.scale, plan.right * 1.36 * plan.scale, plan.up * 0.20 * plan.scale, 32
        )
        canvas.shape(brim, tint(colour, 0.93), line, 196)
        dome = np.concatenate(
            [plan.skull(0.18, 18, 162, 20), plan.flat(np.array([(-0.82, 0.45), (0, 0.36), (0.82, 0.45)]))]
        )
        canvas.shape(dome, colour, line, 196)
        ribbon = np.concatenate(
            [
                plan.flat(np.array([(-0.84, 0.58), (0, 0.50), (0.84, 0.58)])),
                plan.flat(np.array([(0.84, 0.44), (0, 0.35), (-0.84, 0.44)])),
            ]
        )
        canvas.polygon(ribbon, tint(colour, 0.6), 196)
