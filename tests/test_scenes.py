"""Scenes by number: deterministic, with the figure inside the image, and with exchangeable characters."""

import numpy as np
import pytest
from tolerance import assert_near

from puppet.scenes import SPAN, Scene, make_scene
from puppet.world import HELD_OUT, make_character

SIZE = 64


def same(one: Scene, other: Scene, moment: float = 1.5) -> bool:
    return np.array_equal(one.at(moment).image, other.at(moment).image)


def test_a_number_gives_the_same_scene_and_another_number_another() -> None:
    assert same(make_scene(12, SIZE), make_scene(12, SIZE))
    assert not same(make_scene(12, SIZE), make_scene(13, SIZE))
    assert not same(make_scene(12, SIZE), make_scene(12 + HELD_OUT, SIZE))


@pytest.mark.parametrize("number", [0, 5, 17, HELD_OUT, HELD_OUT + 3])
def test_the_figure_stays_inside_and_moves(number: int) -> None:
    pictures = make_scene(number, SIZE).at_all(np.linspace(0, SPAN, 5))
    points = []
    for picture in pictures:
        (person,) = picture.people
        mask = person.mask > 127
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert mask.mean() > 0.02 and not border.any()
        assert person.keypoints.shape == (133, 2) and ((person.keypoints > 0) & (person.keypoints < 1)).all()
        points.append(person.keypoints[:17])
    assert np.abs(np.diff(points, axis=0)).max() > 0.02


def test_another_character_performs_the_same_dance_before_the_same_background() -> None:
    own, guest = make_scene(3, SIZE), make_scene(3, SIZE, character=8)
    assert guest.character == make_character(8) and own.character == make_character(3)
    assert guest.start == own.start and np.array_equal(guest.stage, own.stage)
    angles = [scene.dance.at(scene.start + 2.0) for scene in (own, guest)]
    assert repr(angles[0]) == repr(angles[1])
    assert not same(own, guest)
    picture = guest.at(2.0)
    mask = picture.people[0].mask > 127
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_the_same_scene_at_another_size_is_the_same_pose() -> None:
    small, large = make_scene(4, SIZE).at(1.0), make_scene(4, 2 * SIZE).at(1.0)
    # A scene places its figure by the box of the pixels that it covers, which the smaller picture knows to a pixel.
    assert_near(small.people[0].keypoints, large.people[0].keypoints, 1 / SIZE)
