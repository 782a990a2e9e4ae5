"""Scenes by number: one character that dances its own dance in its own place. What everything is trained and judged on.

Numbers below HELD_OUT are for training, numbers from there on for judging; never the other way round.
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

SCENE = 3  # a stream of its own, beside those of character, dance and backdrop
SPAN = 6.0  # seconds of a dance that the placement leaves room for
FITTED = 13  # stances over that span that it is made from


@dataclass(frozen=True)
class Scene:
    """A character in place, ready to be seen at any moment of its dance."""

    character: Character
    dance: Dance
    placement: Placement
    stage: np.ndarray  # (size, size, 3) uint8 RGB, the background
    start: float  # seconds, when in the dance the scene begins

    def at(self, seconds: float) -> Picture:
        """The picture `seconds` after the start, from 0 to SPAN."""
        size = len(self.stage)
        actor = Actor(self.character, self.dance.at(self.start + seconds), self.placement)
        return render([actor], size, size, self.stage)

    def at_all(self, moments: Iterable[float]) -> list[Picture]:
        return [self.at(moment) for moment in moments]


def make_scene(number: int, size: int, character: int | None = None) -> Scene:
    """Scene `number` as a square of `size` pixels; with another character in its place if one is named."""
    rng = np.random.default_rng([SCENE, number])
    dance, start = make_dance(number), rng.uniform(0, 8)
    chosen = make_character(number if character is None else character)
    stances = [dance.at(start + moment) for moment in np.linspace(0, SPAN, FITTED)]
    placement = fit(chosen, stances, size, size, margin=0.06, floor=0.92)
    return Scene(chosen, dance, placement, paint_backdrop(make_backdrop(number), size, size), start)
