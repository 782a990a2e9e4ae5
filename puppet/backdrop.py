"""Backgrounds: plain, gradient, room, stage, meadow; and the shadow on the floor."""

from dataclasses import dataclass

import cv2
import numpy as np

from puppet.palettes import CLOTH_COLOURS, Colour, tint

KINDS = ("plain", "gradient", "room", "stage", "meadow")
SOFT_COLOURS: tuple[Colour, ...] = (
    (226, 222, 214),
    (206, 220, 228),
    (232, 214, 206),
    (214, 226, 208),
    (222, 214, 232),
    (240, 228, 200),
    (188, 202, 214),
    (168, 176, 188),
    (212, 196, 178),
    (150, 176, 176),
)


@dataclass(frozen=True)
class Backdrop:
    kind: str
    wall: Colour
    floor: Colour
    accent: Colour
    horizon: float  # upper edge of the floor, as a fraction of the height
    detail: int  # seed of the details


def sample_backdrop(rng: np.random.Generator) -> Backdrop:
    """A random background; every random choice comes from `rng`."""
    wall = SOFT_COLOURS[int(rng.integers(len(SOFT_COLOURS)))]
    floors = ((186, 148, 112), (160, 122, 92), (198, 184, 168), (120, 116, 122), (214, 196, 170), (146, 150, 140))
    return Backdrop(
        kind=str(rng.choice(KINDS, p=(0.14, 0.2, 0.3, 0.2, 0.16))),
        wall=tuple(int(c) for c in np.clip(np.array(wall) + rng.normal(0, 8, 3), 60, 250)),
        floor=floors[int(rng.integers(len(floors)))],
        accent=CLOTH_COLOURS[int(rng.integers(len(CLOTH_COLOURS)))],
        horizon=float(rng.uniform(0.70, 0.80)),
        detail=int(rng.integers(1 << 30)),
    )


def _vertical(width: int, height: int, stops: list[tuple[float, Colour]]) -> np.ndarray:
    """A vertical gradient through colour stops, float (h, w, 3)."""
    y = (np.arange(height) + 0.5) / height
    at, colours = zip(*stops, strict=True)
    column = np.stack([np.interp(y, at, channel) for channel in zip(*colours, strict=True)], 1)
    return np.repeat(column[:, None], width, 1)


def _glow(width: int, height: int, x: float, y: float, radius: float) -> np.ndarray:
    """A Gaussian spot, 1 at its centre, (h, w, 1); position as fractions, radius in image heights."""
    gy, gx = np.mgrid[:height, :width]
    distance = np.hypot((gx + 0.5) / height - x * width / height, (gy + 0.5) / height - y) / radius
    return np.exp(-(distance**2))[..., None]


class _Scene:
    """An image with anti-aliased drawing; coordinates are fractions of width and height."""

    def __init__(self, base: np.ndarray):
        self.image = np.clip(np.rint(base), 0, 255).astype(np.uint8)
        self.height, self.width = base.shape[:2]

    def polygon(self, points, colour: Colour) -> None:
        fixed = np.rint((np.array(points) * (self.width, self.height) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, 4)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        self.polygon(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1), colour)


def _floor_boards(scene: _Scene, horizon: float, colour: Colour, count: int) -> None:
    """Boards that run towards the viewer."""
    for k in np.linspace(-1.2, 2.2, count):
        top = 0.5 + (k - 0.5) * 0.55
        scene.polygon([(top, horizon), (top + 0.003, horizon), (k + 0.007, 1.0), (k, 1.0)], tint(colour, 0.86))


def _plain(drop: Backdrop, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    light = _glow(width, height, 0.42, 0.36, 0.9)
    return np.array(drop.wall) * (0.90 + 0.12 * light)


def _gradient(drop: Backdrop, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A studio: a wall that runs into the floor without an edge."""
    wall, floor = drop.wall, tint(drop.wall, 0.86)
    dark = tuple(int(0.6 * w + 0.4 * a * 0.9) for w, a in zip(drop.wall, drop.accent, strict=True))
    stops = [(0.0, dark), (drop.horizon - 0.08, wall), (drop.horizon + 0.06, floor), (1.0, tint(floor, 1.08))]
    return _vertical(width, height, stops) * (0.94 + 0.10 * _glow(width, height, 0.5, 0.45, 0.7))


def _room(drop: Backdrop, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    h = drop.horizon
    scene = _Scene(
        _vertical(
            width,
            height,
            [(0, tint(drop.wall, 0.92)), (h, drop.wall), (h + 1e-3, tint(drop.floor, 0.88)), (1, drop.floor)],
        )
    )
    _floor_boards(scene, h, drop.floor, 18)
    scene.box(0, h - 0.030, 1, h, tint(drop.wall, 1.5))
    scene.box(0, h - 0.004, 1, h, tint(drop.floor, 0.6))
    x = float(rng.uniform(0.06, 0.20))
    if rng.random() < 0.6:  # a window
        scene.box(x - 0.012, 0.10, x + 0.252, 0.47, (244, 242, 236))
        scene.box(x, 0.112, x + 0.24, 0.458, (190, 220, 240))
        scene.polygon(
            [(x, 0.40), (x + 0.08, 0.34), (x + 0.16, 0.38), (x + 0.24, 0.33), (x + 0.24, 0.458), (x, 0.458)],
            (150, 190, 140),
        )
        scene.box(x + 0.115, 0.112, x + 0.125, 0.458, (244, 242, 236))
        scene.box(x, 0.28, x + 0.24, 0.287, (244, 242, 236))
    else:  # pictures
        for k in range(int(rng.integers(1, 3))):
            y = 0.12 + 0.2 * k
            scene.box(x, y, x + 0.15, y + 0.15, tint(drop.floor, 0.55))
            scene.box(x + 0.012, y + 0.010, x + 0.138, y + 0.140, (240, 234, 222))
            scene.disc(x + 0.075, y + 0.075, 0.04, 0.04, drop.accent)
    x = float(rng.uniform(0.80, 0.90))
    if rng.random() < 0.7:  # a plant
        for lean in np.linspace(-0.09, 0.09, 5):
            top = h - 0.30 + 1.2 * abs(lean)
            scene.polygon(
                [
                    (x - 0.008, h - 0.06),
                    (x + lean - 0.025, top + 0.06),
                    (x + lean * 1.25, top),
                    (x + lean + 0.025, top + 0.07),
                ],
                (86, 140, 92) if lean > 0 else (70, 122, 84),
            )
        scene.polygon(
            [(x - 0.05, h - 0.08), (x + 0.05, h - 0.08), (x + 0.038, h + 0.02), (x - 0.038, h + 0.02)], (206, 128, 92)
        )
    return scene.image * (0.93 + 0.09 * _glow(width, height, 0.35, 0.3, 0.8))


def _stage(drop: Backdrop, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    h = drop.horizon
    deep = tuple(int(18 + 0.28 * a) for a in drop.accent)
    scene = _Scene(
        _vertical(
            width,
            height,
            [(0, tint(deep, 0.6)), (h, deep), (h + 1e-3, tint(drop.floor, 0.42)), (1, tint(drop.floor, 0.62))],
        )
    )
    folds = int(rng.integers(12, 20))
    for k in range(folds):  # a curtain
        scene.box(k / folds, 0, (k + 0.42) / folds, h - 0.01, tint(deep, 0.84))
    _floor_boards(scene, h, tint(drop.floor, 0.55), 16)
    image = scene.image.astype(float)
    for x, colour in ((0.22, drop.accent), (0.78, (255, 236, 200)), (0.5, (255, 246, 226))):
        gy, gx = np.mgrid[:height, :width]
        y, across = (gy + 0.5) / height, (gx + 0.5) / width - x - (0.5 - x) * (gy + 0.5) / height
        beam = np.exp(-((across / (0.05 + 0.20 * y)) ** 2)) * (1 - 0.55 * y)
        image += beam[..., None] * np.array(colour) * 0.20
    return image + _glow(width, height, 0.5, h + 0.16, 0.26) * (60, 54, 44)


def _meadow(drop: Backdrop, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    h = drop.horizon
    scene = _Scene(
        _vertical(
            width, height, [(0, (128, 186, 232)), (h - 0.1, (222, 238, 244)), (h, (168, 204, 128)), (1, (122, 176, 96))]
        )
    )
    for _ in range(3):  # clouds
        x, y = rng.uniform(0, 1), rng.uniform(0.06, 0.3)
        for dx, dy, r in ((-0.07, 0.012, 0.045), (0, 0, 0.06), (0.07, 0.012, 0.045), (0.12, 0.02, 0.03)):
            scene.disc(x + dx, y + dy, r, r * 0.6 * width / height, (250, 252, 252))
    t = np.linspace(0, 1, 40)
    for lift, colour, phase in ((0.14, (150, 190, 150), 0.3), (0.07, (132, 180, 122), 2.1)):
        hill = h - lift * (0.55 + 0.45 * np.sin(t * 7 + phase + rng.uniform(0, 6)))
        scene.polygon([*zip(t, hill, strict=True), (1, h + 0.02), (0, h + 0.02)], colour)
    scene.box(0, h, 1, 1.01, (140, 188, 104))
    for x, y in zip(rng.uniform(0, 1, 60), rng.uniform(h + 0.02, 0.99, 60), strict=True):
        size = 0.004 + 0.012 * (y - h)
        scene.disc(x, y, size, size * 0.7, (255, 244, 214) if rng.random() < 0.5 else (120, 170, 90))
    return scene.image


PAINTERS = {"plain": _plain, "gradient": _gradient, "room": _room, "stage": _stage, "meadow": _meadow}


def paint_backdrop(drop: Backdrop, width: int, height: int) -> np.ndarray:
    """The background as an RGB image (h, w, 3) uint8."""
    image = PAINTERS[drop.kind](drop, width, height, np.random.default_rng(drop.detail))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def cast_shadow(image: np.ndarray, feet: np.ndarray, middle: np.ndarray, unit: float) -> None:
    """Darken the floor under a figure, in place.

    `feet` (n, 3): x, y in pixels and height above the floor in body lengths; `middle` (2,): below the body, pixels.
    """
    coarse = 4 if min(image.shape[:2]) >= 256 else 2
    height, width = -(-image.shape[0] // coarse), -(-image.shape[1] // coarse)
    shade = np.zeros((height, width), np.uint8)

    def spot(x: float, y: float, rx: float, ry: float, strength: float) -> None:
        axes = max(1, round(rx / coarse * 16)), max(1, round(ry / coarse * 16))
        centre = round((x / coarse - 0.5) * 16), round((y / coarse - 0.5) * 16)
        layer = np.zeros_like(shade)
        cv2.ellipse(layer, centre, axes, 0, 0, 360, round(255 * strength), -1, cv2.LINE_AA, 4)
        np.maximum(shade, layer, out=shade)

    spot(middle[0] + 0.05 * unit, middle[1], 0.22 * unit, 0.040 * unit, 0.26)
    for x, y, lift in feet:
        spot(x + 0.01 * unit, y, 0.085 * unit, 0.030 * unit, 0.42 * max(0.2, 1 - 5 * lift))
    shade = cv2.GaussianBlur(shade, (0, 0), max(0.012 * unit / coarse, 0.5))
    shade = cv2.resize(shade, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    keep = cv2.merge([255 - shade] * 3)
    image[:] = cv2.multiply(image, keep, scale=1 / 255)
