"""Which of several people is meant, in a picture and throughout a video."""

import pytest
from test_person_tracking import crowd

from musepose.pose.person_choice import TooFew
from musepose.pose.person_tracking import choose_person, follow

LEFT, MIDDLE, RIGHT = (200, 250, 200), (500, 250, 300), (800, 250, 250)
CHOICES = [("largest", MIDDLE), ("left", LEFT), ("right", RIGHT), (1, LEFT), (2, MIDDLE), (3, RIGHT)]


def followed(frames, choice):
    return [person for _, person in follow(frames, choice)]


@pytest.mark.parametrize(("choice", "meant"), CHOICES)
@pytest.mark.parametrize("order", [(LEFT, MIDDLE, RIGHT), (RIGHT, LEFT, MIDDLE)])
def test_the_place_counts_from_left_to_right_in_any_order_of_detection(choice, meant, order):
    assert choose_person(crowd(*order), choice) == order.index(meant)
    assert followed([crowd(*order)] * 5, choice) == [order.index(meant)] * 5


def test_a_second_detection_and_an_invisible_body_have_no_place():
    people = crowd(LEFT, (201, 250, 200, 0.8), (300, 250, 300, 0.2), RIGHT)
    assert choose_person(people, 2) == 3
    assert followed([people] * 5, 2) == [3] * 5


@pytest.mark.parametrize("choice", ["left", "right", 1, 4])
def test_nobody_has_no_place(choice):
    assert choose_person(crowd(), choice) is None
    assert followed([crowd()] * 3, choice) == [None] * 3


def test_there_is_no_fourth_of_three():
    for choose in (lambda: choose_person(crowd(LEFT, MIDDLE, RIGHT), 4), lambda: followed([crowd(LEFT)] * 40, 4)):
        with pytest.raises(TooFew, match="person 4 from the left is wanted, but only [13] can be seen: give at most"):
            choose()


def test_the_one_on_the_left_is_followed_past_the_other():
    """The left one walks to the right, past the other, who comes to meet him, after the first second."""
    frames = [crowd((200 + 600 * t / 90, 250, 250), (800 - 600 * t / 90, 255, 300)) for t in range(91)]
    assert followed(frames, "left") == [0] * 91
    assert followed(frames, "right") == followed(frames, 2) == [1] * 91


def test_somebody_who_is_found_in_a_few_frames_only_has_no_place():
    frames = [crowd(MIDDLE, RIGHT, *[LEFT] * (t in (3, 4))) for t in range(50)]
    assert followed(frames, "left") == [0] * 50
    assert followed(frames, 2) == [1] * 50


def test_missed_in_the_first_frames_he_still_has_his_place():
    frames = [crowd(MIDDLE, *[LEFT] * (t >= 3)) for t in range(50)]
    assert followed(frames, "left") == [None] * 3 + [1] * 47


def test_after_a_cut_the_place_counts_anew_and_with_fewer_people_it_is_the_last():
    before, after = crowd(LEFT, MIDDLE, RIGHT), crowd((950, 100, 120), (80, 80, 120))
    frames = [before] * 50 + [after] * 70
    assert followed(frames, "left") == [0] * 50 + [1] * 70
    assert followed(frames, 3) == [2] * 50 + [0] * 70
