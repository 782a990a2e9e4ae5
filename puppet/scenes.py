"""Scenes by number: a character, its dance and its background. The data for training and evaluation.

Numbers below HELD_OUT are for training only, numbers from HELD_OUT on for evaluation only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from puppet.character import Character
from puppet.motion import Dance
from puppet.world import (
    Actor,
    Picture,
    Placement,
    fit,
    make_backdrop,
    make_character,
    make_dance,
    paint_backdrop,
    render,
)

SCENE = 3  # RNG stream, different from those of character, dance and backdrop
SPAN = 6.0  # seconds of a dance for which the figure stays inside the image
FITTED = 13  # stances, evenly spaced over SPAN, that the placement is fitted to


@dataclass(frozen=True)
class Scene:
    """A character placed before its background; renders any moment of its dance."""

    character: Character
    dance: Dance
    placement: Placement
    stage: np.ndarray  # (size, size, 3) uint8 RGB, the background
    start: float  # seconds, when in the dance the scene begins

    def at(self, seconds: float) -> Picture:
        """Render the frame at `seconds` after the start, from 0 to SPAN."""
        size = len(self.stage)
        actor = Actor(self.character, self.dance.at(self.start + seconds), self.placement)
        return render([actor], size, size, self.stage)

    def at_all(self, moments: Iterable[float]) -> list[Picture]:
        return [self.at(moment) for moment in moments]


def make_scene(number: int, size: int, character: int | None = None) -> Scene:
    """Scene `number` as a square of `size` pixels; `character` is the seed of another character to use."""
    rng = np.random.default_rng([SCENE, number])
    dance, start = make_dance(number), rng.uniform(0, 8)
    chosen = make_character(number if character is None else character)
    stances = [dance.at(start + moment) for moment in np.linspace(0, SPAN, FITTED)]
    placement = fit(chosen, stances, size, size, margin=0.06, floor=0.92)
    return Scene(chosen, dance, placement, paint_backdrop(make_backdrop(number), size, size), start)
