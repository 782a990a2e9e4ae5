"""The puppet world: rendering, ground-truth keypoints, bodies, motions."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tolerance import POINTS, assert_near

from musepose.pose.types import to_pose
from puppet.character import BOTTOMS, HAIR_STYLES, HATS, PATTERNS, TOPS
from puppet.keypoints import whole_body
from puppet.kinematics import build_skeleton
from puppet.motion import ARM_PAIRS, ARM_POSES, STEPS
from puppet.world import (
    Actor,
    Placement,
    dance_stances,
    fit,
    make_backdrop,
    make_character,
    make_dance,
    neutral_stance,
    paint_backdrop,
    render,
)

SIZE = 192


def dancing(seed: int, time: float, placement: Placement | None = None) -> Actor:
    return Actor(make_character(seed), make_dance(seed).at(time), placement or Placement(size=0.6))


def plain(width: int = SIZE, height: int = SIZE) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def skeletons(seed: int, frames: int, rate: float):
    character, dance = make_character(seed), make_dance(seed)
    return [build_skeleton(character, dance.at(frame / rate)) for frame in range(frames)]


def test_a_seed_always_gives_the_same_picture():
    def picture():
        return render([dancing(5, 2.0)], SIZE, SIZE, make_backdrop(5))

    first = picture()
    render([dancing(6, 1.0)], SIZE, SIZE, make_backdrop(6))
    second = picture()
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.people[0].keypoints, second.people[0].keypoints)


def test_different_seeds_give_different_characters_dances_and_backdrops():
    for make in (make_character, make_dance, make_backdrop):
        assert len({repr(make(seed)).replace(f"seed={seed}", "") for seed in range(30)}) == 30


def test_shapes_and_types():
    picture = render([dancing(1, 2.0)], 150, 210, make_backdrop(1))
    person = picture.people[0]
    assert picture.image.shape == (210, 150, 3) and picture.image.dtype == np.uint8
    assert person.mask.shape == (210, 150) and person.mask.dtype == np.uint8
    assert person.keypoints.shape == (133, 2) and person.visible.shape == (133,) and person.visible.dtype == bool
    pose = person.pose
    assert pose.body.shape == (18, 2) and pose.hands.shape == (2, 21, 2) and pose.face.shape == (68, 2)
    assert pose.body_visible.shape == (18,) and pose.hands_visible.shape == (2, 21) and pose.face_visible.shape == (68,)


def test_a_background_of_another_size_is_refused():
    with pytest.raises(ValueError, match="background"):
        render([dancing(1, 2.0)], SIZE, SIZE, plain(64, 64))


def test_every_kind_of_hair_and_clothes_is_sampled():
    characters = [make_character(seed) for seed in range(400)]
    assert {c.hair.style for c in characters} == set(HAIR_STYLES)
    assert {c.hair.hat for c in characters} == set(HATS)
    assert {c.top.kind for c in characters} == set(TOPS)
    assert {c.bottom.kind for c in characters} == set(BOTTOMS)
    assert {c.top.pattern.kind for c in characters} == set(PATTERNS)
    heights = [c.body.height for c in characters]
    assert min(heights) < 0.8 and max(heights) > 1.0


def test_bodies_have_human_proportions():
    for seed in range(300):
        body = make_character(seed).body
        assert 3.5 < body.height / body.head < 7.5
        assert 0.5 < body.torso / (body.thigh + body.shin) < 0.85
        assert 0.9 < body.upper_arm / body.forearm < 1.5
        assert body.hip < body.shoulder


def test_keypoints_lie_on_the_figure():
    on, counted = np.zeros(133), 0
    for seed in range(25):
        picture = render([dancing(seed, 1.0 + 0.37 * seed)], 256, 256, plain(256, 256))
        person = picture.people[0]
        figure = cv2.dilate((person.mask > 127).astype(np.uint8), np.ones((3, 3)))  # the jaw's points lie on the edge
        x, y = (person.keypoints * 256).astype(int).T
        on += figure[y, x]
        counted += 1
    share = on / counted
    assert share.mean() > 0.995
    assert share[:17].min() == 1.0, "body joints"
    assert share.min() > 0.9, np.flatnonzero(share <= 0.9)


def test_hands_and_head_have_the_colour_of_the_skin():
    """Points of a bare palm and of the cheek must lie on skin, not just on the figure."""
    errors = []
    for seed in range(12):
        actor = Actor(make_character(seed), neutral_stance(), Placement(size=0.7))
        picture = render([actor], 384, 384, plain(384, 384))
        points = (picture.people[0].keypoints * 384).astype(int)
        for k in (91 + 9, 112 + 9, 23 + 29):  # roots of the middle fingers, bridge of the nose
            shown = picture.image[points[k, 1], points[k, 0]].astype(float)
            skin = np.array(actor.character.skin, float)
            errors.append(np.abs(shown / shown.sum() - skin / skin.sum()).max())
    assert np.max(errors) < 0.06


def test_limbs_keep_the_length_of_the_body():
    for seed in range(8):
        body = make_character(seed).body
        for s in skeletons(seed, 40, 7.0):
            wrists = s.hands[:, 0]
            for a, b, length in (
                (s.shoulders, s.elbows, body.upper_arm),
                (s.elbows, wrists, body.forearm),
                (s.hips, s.knees, body.thigh),
                (s.knees, s.ankles, body.shin),
                (s.neck, s.pelvis, body.torso),
                (s.neck[None], s.shoulders, body.shoulder),
                (s.pelvis[None], s.hips, body.hip),
            ):
                np.testing.assert_allclose(np.linalg.norm(a - b, axis=-1), length, rtol=0, atol=POINTS)


def test_a_standing_figure_shows_its_limbs_at_nearly_full_length():
    for seed in range(10):
        body, placement = make_character(seed).body, Placement(size=0.7)
        actor = Actor(make_character(seed), neutral_stance(), placement)
        points = render([actor], SIZE, SIZE, plain()).people[0].pose.body / placement.size
        pairs = {(2, 3): body.upper_arm, (6, 7): body.forearm, (8, 9): body.thigh, (12, 13): body.shin}
        for (a, b), length in pairs.items():
            assert 0.93 * length < np.linalg.norm(points[a] - points[b]) < 1.01 * length


def test_a_hand_has_five_fingers_of_their_own_length():
    hands = np.stack([s.hands / make_character(3).body.hand for s in skeletons(3, 60, 10.0)])
    chains = hands[:, :, 5:].reshape(-1, 2, 4, 4, 3)
    lengths = np.linalg.norm(np.diff(chains, axis=3), axis=-1).sum(-1)  # index, middle, ring, little
    assert np.ptp(lengths, axis=(0, 1)).max() < POINTS
    assert lengths[0, 0].argmax() == 1 and lengths[0, 0].argmin() == 3


def test_motion_is_smooth():
    rate = 240.0  # at which a jump of a hundredth of the body would be an acceleration of 576
    for seed in range(3):
        points = np.stack([whole_body(s) for s in skeletons(seed, 600, rate)])
        speed = np.linalg.norm(np.diff(points, axis=0), axis=-1) * rate  # body lengths a second
        assert speed[:, :17].max() < 3.5 and speed.max() < 5.0
        acceleration = np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1) * rate**2
        assert acceleration.max() < 80
        assert speed[240:, [9, 10]].mean() > 0.1, "the wrists dance"


def test_a_dance_begins_neutral_and_then_moves_the_arms_widely():
    for seed in range(6):
        dance = make_dance(seed)
        start, neutral = dance.at(0.0), neutral_stance(dance.stance_width)
        assert_near(start.arms, neutral.arms)
        assert_near(start.chest, neutral.chest)
        assert_near(start.feet, neutral.feet)
        moves = np.stack([dance.at(1.0 + k / 10).arms for k in range(60)])
        assert np.abs(moves[:, None] - moves[None]).max(axis=(2, 3)).max() > np.deg2rad(45)


def test_feet_on_the_floor_do_not_slide():
    for seed in range(8):
        body = make_character(seed).body
        frames = skeletons(seed, 250, 30.0)
        ankles = np.stack([s.ankles for s in frames])[30:]
        lifted = ankles[..., 1] - body.ankle
        assert lifted.min() > -POINTS
        standing = (lifted[1:] < POINTS) & (lifted[:-1] < POINTS)
        assert standing.any(axis=1).mean() > 0.95, "one foot at least is on the floor"
        # A step that has begun lifts its foot by less than POINTS, the square of how far in it is, or the cube's like.
        assert np.abs(np.diff(ankles[..., 0], axis=0))[standing].max() < POINTS**0.5


def test_joints_stay_within_human_limits():
    for seed in range(12):
        for s in skeletons(seed, 60, 9.0):
            for a, b, c, limit in ((s.shoulders, s.elbows, s.hands[:, 0], 30), (s.hips, s.knees, s.ankles, 45)):
                u, v = a - b, c - b
                cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
                assert np.rad2deg(np.arccos(cosine)).min() > limit, (seed, limit)
            assert (s.knees[:, 2] >= s.hips[:, 2] - 0.02).all(), "knees bend forward"


def test_the_tables_of_poses_and_steps_are_consistent():
    assert {name for pair in ARM_PAIRS for name in pair} == set(ARM_POSES)
    for left, right, left_lift, right_lift in STEPS.values():
        assert left[0] == right[0] == 0, "steps begin at home"
        for x, lift in ((left, left_lift), (right, right_lift)):
            moves = [x[k] != x[(k + 1) % 4] for k in range(4)]
            assert all(height > 0 for height, moved in zip(lift, moves, strict=True) if moved), "no sliding step"
        assert not any(a and b for a, b in zip(left_lift, right_lift, strict=True)), "no jump"


def test_openpose_form_agrees_with_the_rule_for_detected_keypoints():
    for seed in range(6):
        person = render([dancing(seed, 3.0)], SIZE, SIZE, plain()).people[0]
        expected = to_pose(person.keypoints, person.visible.astype(float))
        for name in ("body", "hands", "face"):
            seen = getattr(expected, f"{name}_visible")
            np.testing.assert_array_equal(getattr(person.pose, f"{name}_visible"), seen)
            np.testing.assert_allclose(
                getattr(person.pose, name)[seen], getattr(expected, name)[seen], rtol=0, atol=POINTS
            )


def test_the_right_side_of_the_person_is_at_the_left_of_the_picture():
    person = render([Actor(make_character(2), neutral_stance())], SIZE, SIZE, plain()).people[0]
    body = person.pose.body
    for right, left in ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17)):
        assert body[right, 0] < body[left, 0]
    assert np.abs(person.pose.hands[0].mean(0) - body[7]).max() < 0.1  # the left hand comes first
    assert np.abs(person.pose.hands[1].mean(0) - body[4]).max() < 0.1
    feet = person.keypoints[17:23]
    assert feet[:3, 0].mean() > feet[3:, 0].mean()  # left foot first
    assert person.pose.face[0, 0] < person.pose.face[16, 0]  # the jaw runs from the right ear to the left
    assert_near(body[1], (body[2] + body[5]) / 2)


def test_points_outside_the_picture_are_not_visible():
    person = render([dancing(4, 2.0, Placement(x=0.5, floor=1.3, size=0.9))], SIZE, SIZE, plain()).people[0]
    outside = ((person.keypoints < 0) | (person.keypoints >= 1)).any(1)
    assert outside[[15, 16]].all()
    assert not person.visible[outside].any()
    assert person.visible[[5, 6]].all()
    assert person.box[3] == SIZE


def test_the_far_ear_of_a_turned_head_is_not_visible():
    stance = neutral_stance()
    for yaw, hidden in ((0.75, 4 - 1), (-0.75, 4)):  # turned to the image's right: the left ear is behind
        turned = replace(stance, head=np.array([yaw, 0.0, 0.0]))
        person = render([Actor(make_character(7), turned)], SIZE, SIZE, plain()).people[0]
        assert not person.visible[hidden] and person.visible[7 - hidden]


def test_mask_and_box_cover_exactly_what_was_painted():
    actor = dancing(9, 2.5)
    ground = plain()
    picture = render([actor], SIZE, SIZE, ground)
    person = picture.people[0]
    solid = person.mask == 255
    on_white = render([actor], SIZE, SIZE, np.full_like(ground, 255)).image
    np.testing.assert_array_equal(picture.image[solid], on_white[solid])
    far_above = slice(0, int(person.box[1]) - 3)  # no shadow falls there
    np.testing.assert_array_equal(picture.image[far_above], ground[far_above])
    rows, columns = np.nonzero(person.mask > 127)
    np.testing.assert_array_equal(person.box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_the_nearer_of_two_people_covers_the_other():
    back = dancing(11, 2.0, Placement(x=0.46, floor=0.84, size=0.6))
    front = dancing(12, 2.0, Placement(x=0.56, floor=0.93, size=0.6))
    both = render([back, front], SIZE, SIZE, plain()).people
    alone = [render([actor], SIZE, SIZE, plain()).people[0] for actor in (back, front)]
    for together, single in zip(both, alone, strict=True):
        np.testing.assert_array_equal(together.keypoints, single.keypoints)
        np.testing.assert_array_equal(together.box, single.box)
    np.testing.assert_array_equal(both[1].mask, alone[1].mask)
    overlap = (alone[0].mask == 255) & (alone[1].mask == 255)
    assert overlap.sum() > 100 and not both[0].mask[overlap].any()
    assert (both[0].mask.astype(int) + both[1].mask).max() <= 256
    np.testing.assert_array_equal(both[1].visible, alone[1].visible)
    assert both[0].visible.sum() < alone[0].visible.sum()
    x, y = (both[0].keypoints * SIZE).astype(int).T
    newly_hidden = alone[0].visible & ~both[0].visible
    assert (alone[1].mask[y[newly_hidden], x[newly_hidden]] > 100).all()


def test_the_picture_does_not_depend_on_the_resolution():
    actor = dancing(8, 2.0)
    small, large = (render([actor], size, size, plain(size, size)) for size in (128, 512))
    np.testing.assert_allclose(small.people[0].keypoints, large.people[0].keypoints, rtol=0, atol=POINTS)
    reduced = cv2.resize(large.image, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - small.image).mean() < 2.0  # levels: edges are smoothed in 16ths of a pixel


def test_fit_keeps_the_whole_dance_in_the_picture():
    for seed, (width, height) in ((21, (128, 192)), (22, (192, 192)), (23, (256, 144))):
        character, stances = make_character(seed), dance_stances(make_dance(seed), 24, rate=6.0)
        placement = fit(character, stances, width, height)
        for stance in stances:
            person = render([Actor(character, stance, placement)], width, height, plain(width, height)).people[0]
            edge = np.concatenate([person.mask[0], person.mask[-1], person.mask[:, 0], person.mask[:, -1]])
            assert not edge.any() and person.box[3] - person.box[1] > 0.25 * height


def test_backdrops_fill_any_size():
    for seed in range(20):
        image = paint_backdrop(make_backdrop(seed), 90, 130)
        assert image.shape == (130, 90, 3) and image.dtype == np.uint8 and image.mean() > 15
