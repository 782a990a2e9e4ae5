"""Images with one or two puppets, by number, for training and evaluating the detector and the keypoint network.

Unlike the scenes of the image stage they vary in size and aspect ratio, and figures may be anywhere, small, cut off at
an edge, or partly behind each other. Numbers from HELD_OUT on are for evaluation only, as there.
"""

from dataclasses import dataclass

import numpy as np

from puppet.character import Character
from puppet.motion import Dance
from puppet.scenes import SPAN
from puppet.world import (
    HELD_OUT,
    Actor,
    Placement,
    fit,
    make_backdrop,
    make_character,
    make_dance,
    neutral_stance,
    paint_backdrop,
    render,
)

SHOTS = 4  # images per set-up: painting its background and sampling its figures costs as much as two of them
SHORT_SIDES, SIDE_ODDS = (224, 288, 352, 512), (0.35, 0.3, 0.25, 0.1)  # pixels
ASPECTS = (2 / 3, 2 / 3, 2 / 3, 3 / 4, 9 / 16, 1, 1, 4 / 3, 16 / 9)  # width / height; portrait is more frequent
POSE_PICTURES = 6  # RNG stream, different from those of the world and its scenes
LIMBS = slice(5, 17)  # shoulders to ankles: their visibility does not depend on the head's direction


@dataclass(frozen=True)
class Shot:
    """One image with the annotations of its n figures. Lengths in pixels."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) x0 y0 x1 y1, covered parts included
    keypoints: np.ndarray  # (n, 133, 2)
    visible: np.ndarray  # (n, 133) bool

    @property
    def shown(self) -> np.ndarray:
        """(n,) fraction of each figure's LIMBS that is visible."""
        return self.visible[:, LIMBS].mean(1)


def make_shots(number: int, short_side: int | None = None, people: int | None = None) -> list[Shot]:
    """The SHOTS images of set-up `number`; random size and one or two figures, unless given."""
    rng = np.random.default_rng([POSE_PICTURES, number])
    side, aspect = rng.choice(SHORT_SIDES, p=SIDE_ODDS), rng.choice(ASPECTS)
    pair = rng.random() < 0.35
    side, people = short_side or side, people or 1 + pair
    width, height = (round(side * factor) for factor in (max(aspect, 1), max(1 / aspect, 1)))
    stage = paint_backdrop(make_backdrop(number), width, height)
    cast = [(make_character(n), make_dance(n), rng.uniform(0, 8)) for n in (number, partner(number))[:people]]
    return [_shot(rng, cast, stage) for _ in range(SHOTS)]


def partner(number: int) -> int:
    """A different number on the same side of HELD_OUT, below EXAMPLES."""
    first = number // HELD_OUT * HELD_OUT
    return first + (number - first + HELD_OUT // 2) % HELD_OUT


def _shot(rng: np.random.Generator, cast: list[tuple[Character, Dance, float]], stage: np.ndarray) -> Shot:
    height, width = stage.shape[:2]
    actors = []
    for place, (character, dance, start) in enumerate(cast):
        stance = neutral_stance() if rng.random() < 0.1 else dance.at(start + rng.uniform(0, SPAN))
        around = [stance, dance.at(start), dance.at(start + 0.5 * SPAN)]
        placement = fit(character, around, width, height, rng.uniform(0.03, 0.14), rng.uniform(0.86, 0.97))
        if len(cast) == 2:
            size = placement.size * rng.uniform(0.55, 1.15)
            placement = Placement((0.3, 0.7)[place] + rng.uniform(-0.12, 0.12), rng.uniform(0.8, 0.97), size)
        elif rng.random() < 0.4:
            size = placement.size * rng.uniform(0.4, 1.2)
            placement = Placement(rng.uniform(0.3, 0.7), rng.uniform(0.75, 1.05), size)
        actors.append(Actor(character, stance, placement))
    actors.sort(key=lambda actor: actor.placement.floor)  # back to front
    picture = render(actors, width, height, stage, supersample=1)
    return Shot(
        picture.image,
        np.stack([p.box for p in picture.people]),
        np.stack([p.keypoints for p in picture.people]) * (width, height),
        np.stack([p.visible for p in picture.people]),
    )
