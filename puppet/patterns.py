"""Cloth patterns as polygons on a strip of cloth, and the mapping from cloth coordinates to the image."""

from dataclasses import dataclass

import numpy as np

from puppet.character import Garment
from puppet.palettes import Colour, tint

REACH = 1.7  # |u| up to which patterns extend: the hidden part comes into view when the body turns


@dataclass(frozen=True)
class Strip:
    """A strip of cloth around a round body: centre line and half-widths at rows from v = 0 to 1, in pixels."""

    centre: np.ndarray  # (n, 2)
    half: np.ndarray  # (n, 2) vector to the edge at the image's right
    v: np.ndarray  # (n,) ascending
    turn: float = 0.0  # how far the body is turned to the image's right, radians

    def at(self, uv: np.ndarray) -> np.ndarray:
        """Cloth coordinates (..., 2) → pixels (..., 2): u is -1 .. 1 over the visible half, v runs along the strip."""
        u = np.clip(uv[..., 0] + self.turn / (np.pi / 2), -1, 1)
        bulge = np.sin(u * np.pi / 2)
        columns = [np.interp(uv[..., 1], self.v, column) for column in (*self.centre.T, *self.half.T)]
        return np.stack([columns[0] + bulge * columns[2], columns[1] + bulge * columns[3]], -1)

    def outline(self) -> np.ndarray:
        """The outline (2 n, 2): down the image's left edge and up the right one."""
        return np.concatenate([self.centre - self.half, (self.centre + self.half)[::-1]])


def _bars(edges: np.ndarray, vertical: bool) -> np.ndarray:
    """Bars between pairs of edges (n, 2), as polygons (n, 2 k, 2) across the whole strip."""
    along = np.linspace(0, 1, 9) if vertical else np.linspace(-REACH, REACH, 15)
    there = np.broadcast_to(along, (len(edges), len(along)))
    near, far = (np.broadcast_to(edges[:, k, None], there.shape) for k in (0, 1))
    first = np.stack([near, there] if vertical else [there, near], -1)
    second = np.stack([far, there] if vertical else [there, far], -1)[:, ::-1]
    return np.concatenate([first, second], 1)


def _runs(count: int, low: float, high: float, fill: float) -> np.ndarray:
    """`count` equally spaced intervals (count, 2) that cover the fraction `fill` of a range."""
    start = np.linspace(low, high, count, endpoint=False)
    return np.stack([start, start + fill * (high - low) / count], 1)


def _dots(count: int, across: int) -> np.ndarray:
    v, u = np.meshgrid((np.arange(count) + 0.5) / count, np.linspace(-REACH, REACH, across), indexing="ij")
    u = u + (np.arange(count) % 2)[:, None] * REACH / across
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    ring = np.stack([np.cos(angle) * 0.6 * REACH / across, np.sin(angle) * 0.30 / count], -1)
    return np.stack([u, v], -1).reshape(-1, 1, 2) + ring


def _emblem(which: int) -> np.ndarray:
    """A star, heart, disc or flash on the chest, (k, 2)."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    if which == 0:
        radius = np.where(np.arange(20) % 4 == 0, 1.0, np.where(np.arange(20) % 4 == 2, 0.42, 0.62))
        shape = np.stack([np.sin(angle), -np.cos(angle)], 1) * radius[:, None]
    elif which == 1:
        x = np.sin(angle) ** 3
        y = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)) / 16
        shape = np.stack([x, y], 1)
    elif which == 2:
        shape = np.stack([np.sin(angle), -np.cos(angle)], 1) * 0.8
    else:
        shape = np.array([(0.2, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.25, 1), (0.6, -0.25), (0.08, -0.25), (0.5, -1)])
    return shape * (0.36, 0.135) + (0.0, 0.34)


def pattern_cells(garment: Garment, repeats: float = 1.0, columns: float = 1.0) -> list[tuple[Colour, np.ndarray]]:
    """The garment's pattern as (colour, polygons (n, k, 2) in cloth coordinates), in painting order."""
    pattern = garment.pattern
    count = max(2, round(pattern.count * repeats))
    wide = max(4, round(pattern.count * 1.5 * REACH * columns))
    half = tuple((a + b) // 2 for a, b in zip(garment.colour, pattern.colour, strict=True))
    if pattern.kind == "stripes":
        return [(pattern.colour, _bars(_runs(count, 0.06, 1, 0.45), False))]
    if pattern.kind == "columns":
        return [(pattern.colour, _bars(_runs(wide, -REACH, REACH, 0.34), True))]
    if pattern.kind == "checks":
        rows, bars = _runs(count, 0.03, 1, 0.5), _runs(wide, -REACH, REACH, 0.5)
        u, v = bars[:, None, [0, 1, 1, 0]], rows[None, :, [0, 0, 1, 1]]
        crossing = np.stack(np.broadcast_arrays(u, v), -1).reshape(-1, 4, 2)
        return [(half, _bars(rows, False)), (half, _bars(bars, True)), (pattern.colour, crossing)]
    if pattern.kind == "dots":
        return [(pattern.colour, _dots(count, wide))]
    if pattern.kind == "logo":
        return [(pattern.colour, _emblem(pattern.logo)[None])]
    if pattern.kind == "blocks":
        low = np.array([[0.52, 1.0]]) if pattern.logo % 2 else np.array([[0.26, 0.46]])
        return [
            (pattern.colour, _bars(low, False)),
            (tint(pattern.colour, 0.7), _bars(low[:, :1] + [[0, 0.025]], False)),
        ]
    return []
