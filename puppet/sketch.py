"""The shared state for painting a figure's parts: canvas, character, skeleton, view; and strips of cloth."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from puppet.character import Body, Character, Garment
from puppet.kinematics import Skeleton
from puppet.motion import Stance
from puppet.paint import BASE, LIT, Canvas, spline
from puppet.palettes import Colour
from puppet.patterns import Strip, pattern_cells
from puppet.view import View


def line_colour(colour: Colour) -> Colour:
    """The outline colour of a surface: darker, but not black."""
    return tuple(round(8 + 0.46 * c) for c in colour)


@dataclass
class Sketch:
    """One figure that is being painted."""

    canvas: Canvas
    character: Character
    skeleton: Skeleton
    stance: Stance
    view: View

    @property
    def body(self) -> Body:
        return self.character.body

    @property
    def unit(self) -> float:
        return self.view.unit

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) → pixels (..., 2)."""
        return self.view.project(points)

    @cached_property
    def turn(self) -> float:
        """Yaw of the chest to the image's right, radians."""
        return float(np.arctan2(self.skeleton.chest_axes[0, 2], self.skeleton.chest_axes[2, 2]))

    def trunk(self, top: float, end: float, grow: float = 1.0, rows: int = 9) -> Strip:
        """The trunk between two heights as a strip: 0 is the shoulder line, 1 the hip joints."""
        body, skeleton = self.body, self.skeleton
        table = np.array(
            [
                (-0.22, 0.34 * body.shoulder),
                (-0.15, 0.50 * body.shoulder),
                (-0.06, 0.88 * body.shoulder),
                (0.06, 0.98 * body.shoulder),
                (0.30, body.chest),
                (0.62, body.waist),
                (0.93, 0.98 * body.seat),
                (1.24, 0.98 * body.seat),
            ]
        )
        smooth = spline(table, samples=4)
        t = np.linspace(top, end, rows)[:, None]
        width = np.interp(t, smooth[:, 0], smooth[:, 1]) * grow
        run = skeleton.pelvis - skeleton.neck
        bow = (skeleton.pelvis_axes[:, 1] - skeleton.chest_axes[:, 1]) * body.torso
        centre = skeleton.neck + t * run + np.clip(t * (1 - t), -0.1, 1) * (0.5 - t) * bow
        axes = (1 - np.clip(t, 0, 1)) * skeleton.chest_axes[:, 0] + np.clip(t, 0, 1) * skeleton.pelvis_axes[:, 0]
        flat = self.view.direction(axes)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        across = np.hypot(axes[:, :1], 0.62 * axes[:, 2:])  # silhouette of an elliptic section
        return Strip(self.project(centre), flat * width * across * self.unit, np.linspace(0, 1, rows), self.turn)

    def limb_strip(self, points: np.ndarray, radii: np.ndarray) -> Strip:
        """Cloth around a limb's polyline (n, 2), as a strip along it."""
        run = np.gradient(points, axis=0)
        length = np.maximum(np.linalg.norm(run, axis=1, keepdims=True), 1e-6)
        normal = np.stack([-run[:, 1], run[:, 0]], 1) / length
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        return Strip(points, normal * np.asarray(radii)[:, None], steps / max(steps[-1], 1e-6))

    def paint_pattern(self, strip: Strip, garment: Garment, repeats: float = 1.0, columns: float = 1.0) -> None:
        """Paint the garment's pattern over a strip of its base colour."""
        for colour, cells in pattern_cells(garment, repeats, columns):
            self.canvas.cells(list(strip.at(cells)), colour)

    def paint_strip(self, strip: Strip, colour: Colour, outlined: bool = True) -> None:
        """Paint a strip in one colour, shaded as a round body."""
        canvas, edge = self.canvas, strip.outline()
        canvas.shape(edge, colour, line_colour(colour) if outlined else None, BASE)
        for low, high, level in ((-0.93, 0.60, 188), (-0.86, 0.25, 204), (-0.70, -0.22, 214)):
            lit = np.concatenate([strip.centre + low * strip.half, (strip.centre + high * strip.half)[::-1]])
            canvas.polygon(lit, None, level)

    def fold(self, points: np.ndarray, width: float, light: int = LIT - 30) -> None:
        """Paint a crease: only the light changes."""
        self.canvas.curve(points, None, width, light)

    def creases(self, strip: Strip, where: tuple[float, ...]) -> None:
        """Paint short folds across a limb's shadow side."""
        for v in where:
            self.fold(
                strip.at(np.stack([np.linspace(-0.1, 0.95, 5), v + np.linspace(0, 0.025, 5)], 1)), 0.010 * self.unit
            )
