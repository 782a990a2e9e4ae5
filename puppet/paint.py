"""Anti-aliased painting: a canvas with colour, coverage and light layers, and the shapes that figures consist of.

Colour is premultiplied with coverage (a transparent canvas starts as zeros, and OpenCV's anti-aliased fills blend all
four channels alike), so that a finished figure can be composited over any background. Light is a separate layer,
multiplied in at the end, so that folds and shading look the same on patterned and plain cloth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from puppet.palettes import Colour

LIT = 200  # the light level that leaves a colour unchanged
BASE, SOFT, BRIGHT = 158, 203, 222  # shadow side, lit side, highlight of a round limb
TOWARDS_LIGHT = np.array([-0.55, -0.83])  # in the image: light comes from above left
SUBPIXEL = 4  # bits

CATMULL_ROM = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])  # rows: powers of t

# Blue fades less than red in the dark: cool shadows.
SHADOW = (np.arange(256)[:, None] / LIT) ** np.array([1.06, 1.02, 0.88])


@dataclass(frozen=True)
class Painted:
    """A finished figure: premultiplied colour (h, w, 3) and coverage (h, w), both uint8."""

    colour: np.ndarray
    alpha: np.ndarray


def tube_hulls(
    start: np.ndarray, end: np.ndarray, r0: np.ndarray, r1: np.ndarray, squash: np.ndarray | float = 1.0, fine: int = 9
) -> np.ndarray:
    """Outlines (n, 2 fine, 2) of the convex hulls of pairs of discs; `squash` flattens the second disc."""
    line = end - start
    length = np.maximum(np.hypot(line[:, 0], line[:, 1]), 1e-6)
    along = (line / length[:, None])[:, None]
    normal = along[..., ::-1] * (-1.0, 1.0)
    half = np.arccos(np.minimum(np.maximum((r0 - r1) / length, -1), 1))[:, None]  # of the end's cap
    cap = np.arange(fine) / (fine - 1)
    angle = np.concatenate([half + (2 * np.pi - 2 * half) * cap, half * (2 * cap - 1)], 1)
    radius = np.repeat(np.stack([r0, r1], 1), fine, 1)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    x[:, fine:] *= squash if np.ndim(squash) == 0 else squash[:, None]
    centre = np.repeat(np.stack([start, end], 1), fine, 1)
    return centre + x[..., None] * along + y[..., None] * normal


def spline(points: np.ndarray, closed: bool = False, samples: int = 5) -> np.ndarray:
    """A Catmull-Rom curve through the points (n, d)."""
    p = np.asarray(points, float)
    padded = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    windows = padded[np.arange(len(padded) - 3)[:, None] + np.arange(4)]  # (pieces, 4, d)
    powers = (np.arange(samples) / samples)[:, None] ** np.arange(4)
    curve = ((powers @ CATMULL_ROM) @ windows).reshape(-1, p.shape[1])
    return curve if closed else np.concatenate([curve, p[-1:]])


def ellipse(centre: np.ndarray, x_axis: np.ndarray, y_axis: np.ndarray, points: int = 24) -> np.ndarray:
    """Points (n, 2) of an ellipse with two half-axis vectors."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)[:, None]
    return np.asarray(centre) + np.cos(angle) * x_axis + np.sin(angle) * y_axis


class Canvas:
    """The canvas of one figure, with `supersample` times the image's resolution. Coordinates are image pixels."""

    def __init__(self, width: int, height: int, unit: float, supersample: int = 2):
        self.size, self.fine = (width, height), supersample
        self.unit = unit  # pixels per unit length of a body
        self.line = max(0.0042 * unit, 0.35)  # width of outlines
        self.colour = np.zeros((height * supersample, width * supersample, 4), np.uint8)
        self.light = np.full(self.colour.shape[:2], LIT, np.uint8)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        scale = self.fine * 2**SUBPIXEL
        return np.rint(np.asarray(points) * scale - 2 ** (SUBPIXEL - 1)).astype(np.int32)

    def _fill(self, image: np.ndarray, fixed: np.ndarray, value, convex: bool) -> None:
        draw = cv2.fillConvexPoly if convex else cv2.fillPoly
        draw(image, fixed if convex else [fixed], value, cv2.LINE_AA, SUBPIXEL)

    def polygon(
        self, points: np.ndarray, colour: Colour | None, light: int | None = None, convex: bool = False
    ) -> None:
        """Fill a polygon (n, 2) with a colour, a light level, or both."""
        fixed = self._fixed(points)
        if colour is not None:
            self._fill(self.colour, fixed, (*colour, 255), convex)
        if light is not None:
            self._fill(self.light, fixed, light, convex)

    def cells(self, polygons: Sequence[np.ndarray], colour: Colour) -> None:
        """Fill non-overlapping polygons; the light is unchanged."""
        if len(polygons):
            cv2.fillPoly(self.colour, [self._fixed(p) for p in polygons], (*colour, 255), cv2.LINE_AA, SUBPIXEL)

    def shape(self, points: np.ndarray, colour: Colour, outline: Colour | None = None, light: int = LIT) -> None:
        """Fill a polygon (n, 2) and draw its outline."""
        if outline is not None:
            fixed = self._fixed(points)
            width = max(1, round(2 * self.line * self.fine))
            cv2.polylines(self.colour, [fixed], True, (*outline, 255), width, cv2.LINE_AA, SUBPIXEL)
            cv2.polylines(self.light, [fixed], True, BASE, width, cv2.LINE_AA, SUBPIXEL)
        self.polygon(points, colour, light)

    def curve(self, points: np.ndarray, colour: Colour | None, width: float, light: int | None = None) -> None:
        """Draw an open line (n, 2), `width` pixels wide."""
        fixed, thick = [self._fixed(points)], max(1, round(width * self.fine))
        if colour is not None:
            cv2.polylines(self.colour, fixed, False, (*colour, 255), thick, cv2.LINE_AA, SUBPIXEL)
        if light is not None:
            cv2.polylines(self.light, fixed, False, light, thick, cv2.LINE_AA, SUBPIXEL)

    def tube(
        self,
        points: np.ndarray,
        radii: Sequence[float] | np.ndarray,
        colour: Colour,
        outline: Colour | None = None,
        squash: float = 1.0,
        level: float = 1.0,
    ) -> None:
        """Paint a round limb along a polyline (n, 2) with a radius in pixels at each point, lit from above left.

        `squash` flattens the far end into a cuff; `level` scales its light.
        """
        first = np.arange(len(points) - 1)
        self.tubes(points, radii, [np.stack([first, first + 1], 1)], colour, outline, squash, level)

    def tubes(
        self,
        points: np.ndarray,
        radii: Sequence[float] | np.ndarray,
        groups: Sequence[np.ndarray],
        colour: Colour,
        outline: Colour | None = None,
        squash: float = 1.0,
        level: float = 1.0,
    ) -> None:
        """Paint limbs of one colour, one over the other: each group (k, 2) holds index pairs, the ends of its segments.

        Segments of one group join without an outline between them.
        """
        points, radii = np.asarray(points, float), np.asarray(radii, float)
        first, last = np.concatenate(groups).T
        a, b, r0, r1 = points[first], points[last], radii[first], radii[last]
        biggest = radii.max() * self.fine
        # Outline, body, lit side, highlight (not on thin limbs): added radius, scale, shift towards the light.
        layers = np.array(
            [(self.line if outline is not None else 0.0, 1.0, 0.0), (0, 1, 0), (0, 0.70, 0.26), (0, 0.30, 0.38)]
        )[: 4 if biggest > 6 else 3]
        grow, scale, move = layers.T[:, :, None]
        flat = np.ones((len(layers), len(a)))
        flat[:, -1] = squash
        move0, move1 = ((move * r)[..., None] * TOWARDS_LIGHT for r in (r0, r1))
        ends = (a + move0).reshape(-1, 2), (b + move1).reshape(-1, 2)
        sizes = (r0 * scale + grow).ravel(), (r1 * scale + grow).ravel()
        hulls = self._fixed(tube_hulls(*ends, *sizes, flat.ravel(), 9 if biggest < 60 else 17))
        hulls = hulls.reshape(len(layers), len(a), -1, 2)
        base, lit = BASE * level, (SOFT * level, BRIGHT * level)
        start = 0
        for group in groups:
            part = range(start, start + len(group))
            start += len(group)
            if outline is not None:
                for k in part:
                    self._fill(self.colour, hulls[0, k], (*outline, 255), True)
            for k in part:
                self._fill(self.colour, hulls[1, k], (*colour, 255), True)
                self._fill(self.light, hulls[0, k], base, True)
            for layer, value in zip(hulls[2:], lit, strict=False):
                for k in part:
                    self._fill(self.light, layer[k], value, True)

    def patch(self, points: np.ndarray, radii: Sequence[float], colour: Colour, light: int = 196) -> None:
        """Fill the hull of two discs without an outline, to join two parts."""
        points, radii = np.asarray(points, float), np.asarray(radii, float)
        self.polygon(tube_hulls(points[:1], points[1:], radii[:1], radii[1:])[0], colour, light, True)

    def finish(self) -> Painted:
        """Downsample the canvas to the image's size, smooth the light and multiply it into the colour."""
        colour, light = self.colour, self.light
        if self.fine > 1:
            colour = cv2.resize(colour, self.size, interpolation=cv2.INTER_AREA)
            light = cv2.resize(light, self.size, interpolation=cv2.INTER_AREA)
        light = cv2.GaussianBlur(light, (0, 0), max(0.0065 * self.unit, 0.3))
        shades = np.clip(np.rint(SHADOW * 160), 0, 255).astype(np.uint8)
        lit = cv2.multiply(colour[..., :3].copy(), cv2.LUT(cv2.merge([light] * 3), shades[:, None]), scale=1 / 160)
        alpha = np.ascontiguousarray(colour[..., 3])
        return Painted(np.minimum(lit, alpha[..., None]), alpha)
