"""The puppet world: characters, dances and backgrounds by seed, and rendering with ground-truth keypoints.

Training uses seeds below HELD_OUT only. Evaluation and the example files in assets/ (from EXAMPLES on) use the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from musepose.pose.types import Pose
from puppet.backdrop import Backdrop, cast_shadow, paint_backdrop, sample_backdrop
from puppet.character import Character, sample_character
from puppet.figure import paint_figure
from puppet.keypoints import faces_camera, pose_from_whole_body, whole_body
from puppet.kinematics import Skeleton, build_skeleton
from puppet.motion import Dance, Stance, neutral_stance, sample_dance
from puppet.view import View

HELD_OUT = 1_000_000  # the first seed that training must not use
EXAMPLES = 2_000_000  # the first seed reserved for assets/
CHARACTER, DANCE, BACKDROP = range(3)  # RNG streams: one seed gives three independent samples


@dataclass(frozen=True)
class Placement:
    """Position of a figure: the point between its feet as fractions of the image's width and height, and its size.

    `size` is the height of a tall adult (length 1) as a fraction of the image's height.
    """

    x: float = 0.5
    floor: float = 0.9
    size: float = 0.74


@dataclass(frozen=True)
class Actor:
    character: Character
    stance: Stance
    placement: Placement = Placement()


@dataclass(frozen=True)
class Person:
    """One figure in an image. Points outside it, on the far side or covered by a nearer figure are not visible."""

    pose: Pose
    keypoints: np.ndarray  # (133, 2) COCO-WholeBody, fractions of the image's width and height
    visible: np.ndarray  # (133,) bool
    mask: np.ndarray  # (h, w) uint8, the figure's visible coverage of each pixel, 255 for all of it
    box: np.ndarray  # (4,) x0 y0 x1 y1 in pixels, the part of the figure inside the image, covered or not


@dataclass(frozen=True)
class Picture:
    image: np.ndarray  # (h, w, 3) uint8 RGB
    people: tuple[Person, ...]  # in the order of the actors


def make_character(seed: int) -> Character:
    return sample_character(np.random.default_rng([CHARACTER, seed]), seed)


def make_dance(seed: int) -> Dance:
    return sample_dance(np.random.default_rng([DANCE, seed]), seed)


def make_backdrop(seed: int) -> Backdrop:
    return sample_backdrop(np.random.default_rng([BACKDROP, seed]))


def _view(placement: Placement, width: int, height: int) -> View:
    return View(placement.x * width, placement.floor * height, placement.size * height)


def _person(skeleton: Skeleton, view: View, alpha: np.ndarray, mask: np.ndarray) -> Person:
    """The annotations of a figure from its own coverage `alpha` and its visible coverage `mask`, both (h, w) uint8."""
    height, width = alpha.shape
    pixels = view.project(whole_body(skeleton))
    inside = ((pixels >= 0) & (pixels < (width, height))).all(1)
    x, y = np.clip(pixels, 0, (width - 1, height - 1)).astype(int).T
    covered = mask[y, x].astype(int) < 0.5 * alpha[y, x]
    visible = inside & faces_camera(skeleton) & ~covered
    keypoints = pixels / (width, height)
    columns, rows = (np.flatnonzero((alpha > 127).any(axis)) for axis in (0, 1))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float) if len(rows) else np.zeros(4)
    return Person(pose_from_whole_body(keypoints, visible), keypoints, visible, mask, box)


def render(
    actors: Sequence[Actor], width: int, height: int, backdrop: Backdrop | np.ndarray, supersample: int = 2
) -> Picture:
    """Paint figures from back to front, in the given order, over a background. Deterministic.

    `backdrop` may be an image (height, width, 3) uint8, so that a video paints it only once. Raises ValueError: that
    image has another shape.
    """
    image = backdrop.copy() if isinstance(backdrop, np.ndarray) else paint_backdrop(backdrop, width, height)
    if image.shape != (height, width, 3):
        raise ValueError(f"a background of shape {image.shape} for a picture of {(height, width, 3)}")
    figures = []
    for actor in actors:
        skeleton, view = build_skeleton(actor.character, actor.stance), _view(actor.placement, width, height)
        painted = paint_figure(actor.character, actor.stance, skeleton, view, width, height, supersample)
        soles = np.concatenate([skeleton.heels, skeleton.big_toes])
        ground = view.project(soles * (1, 0, 1))
        lifts = np.maximum(soles[:, 1] - 0.02, 0)
        cast_shadow(image, np.column_stack([ground, lifts]), ground.mean(0), view.unit)
        rest = cv2.merge([255 - painted.alpha] * 3)
        image = cv2.add(cv2.multiply(image, rest, scale=1 / 255), painted.colour)
        figures.append((skeleton, view, painted.alpha))

    people, uncovered = [], np.full((height, width), 255, np.uint8)
    for skeleton, view, alpha in reversed(figures):
        people.append(_person(skeleton, view, alpha, cv2.multiply(alpha, uncovered, scale=1 / 255)))
        uncovered = cv2.multiply(uncovered, 255 - alpha, scale=1 / 255)
    return Picture(image, tuple(reversed(people)))


def dance_stances(dance: Dance, frames: int, rate: float = 30.0, start: float = 0.0) -> list[Stance]:
    """The stances of a clip; with `start` 0 the first one is neutral."""
    return [dance.at(start + frame / rate) for frame in range(frames)]


def fit(
    character: Character, stances: Iterable[Stance], width: int, height: int, margin: float = 0.04, floor: float = 0.93
) -> Placement:
    """The largest placement, horizontally centred, that keeps the whole figure inside the image in all stances."""
    view = View(0.0, 0.0, 1.0)
    skeletons = [build_skeleton(character, stance) for stance in stances]
    crowns = [s.head + 0.5 * character.body.head * s.head_axes[:, 1] for s in skeletons]
    points = view.project(np.concatenate([*map(whole_body, skeletons), np.stack(crowns)]))
    low, high = points.min(0), points.max(0)
    around = np.array([0.05, 0.30 * character.body.head])  # hands, hair
    low, high = low - around, high + around * (1, 0)
    room = width / height * (1 - 2 * margin), floor - margin
    size = float(min(room[0] / (high[0] - low[0]), room[1] / -low[1]))
    return Placement(float(0.5 - (low[0] + high[0]) / 2 * size * height / width), floor, size)


__all__ = [
    "EXAMPLES",
    "HELD_OUT",
    "Actor",
    "Person",
    "Picture",
    "Placement",
    "dance_stances",
    "fit",
    "make_backdrop",
    "make_character",
    "make_dance",
    "neutral_stance",
    "paint_backdrop",
    "render",
]
