"""BlazePose's geometry: anchors, boxes, regions of interest and the way back, heat maps."""

import math

import cv2
import numpy as np
import pytest
from tolerance import POINTS, assert_near, near, rounding

from musepose.pose.detectors.blazepose import body, boxes, detector, face, hands, regions
from musepose.pose.detectors.blazepose.regions import Region, Tolerance, follow_region

POSE_ANCHORS = boxes.anchor_centres(224, detector.STRIDES)
FACE_ANCHORS = boxes.anchor_centres(128, face.STRIDES)
TOLERANCE = Tolerance(degrees=40, shift=0.2, scale=0.4, margin=-0.1)
OUTPUTS = rounding(1, 0.4)  # of a network's float32 outputs, as parts of its picture; these are at most 0.4
LOGITS = rounding(1, 2.2)  # of scores from 0.1 to 0.9, made of float32 logits that are at most 2.2
FOUND = Region(200, 100, 50, 50, 0.3)


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def test_anchors_of_the_pose_detector():
    assert POSE_ANCHORS.shape == (2254, 2)  # 28² × 2 + 14² × 2 + 7² × 6
    for start, cells, each in ((0, 28, 2), (1568, 14, 2), (1960, 7, 6)):
        first, right = POSE_ANCHORS[start : start + each], POSE_ANCHORS[start + each]
        assert_near(first, np.full((each, 2), 0.5 / cells))
        assert_near(right, [1.5 / cells, 0.5 / cells])
        below = POSE_ANCHORS[start + cells * each]
        assert_near(below, [0.5 / cells, 1.5 / cells])


def test_anchors_of_the_face_detector():
    assert FACE_ANCHORS.shape == (896, 2)  # 16² × 2 + 8² × 6
    assert_near(FACE_ANCHORS[512:518], np.full((6, 2), 0.5 / 8))


def test_boxes_are_decoded_from_their_anchors_the_best_first():
    raw, logits = np.zeros((2254, 12), np.float32), np.full(2254, -1000.0, np.float32)
    raw[5], logits[5] = [11.2, 22.4, 44.8, 89.6, 22.4, 0, 0, 0, 0, 0, -22.4, 22.4], logit(0.7)
    logits[1000], logits[2000] = logit(0.9), logit(0.49)
    found = boxes.decode(raw, logits, POSE_ANCHORS, 224)
    assert found.scores == near([0.9, 0.7], LOGITS)
    x, y = POSE_ANCHORS[5]
    assert_near(found.corners[1], [[x - 0.05, y - 0.1], [x + 0.15, y + 0.3]], OUTPUTS)
    assert_near(found.points[1], [[x + 0.1, y], [x, y], [x, y], [x - 0.1, y + 0.1]], OUTPUTS)


def test_nothing_found():
    empty = boxes.decode(np.zeros((896, 16), np.float32), np.full(896, -5.0, np.float32), FACE_ANCHORS, 128)
    blended = boxes.blend(empty)
    assert blended.corners.shape == (0, 2, 2) and blended.points.shape == (0, 6, 2) and len(blended.scores) == 0


def test_boxes_that_overlap_are_blended_by_their_scores():
    corners = np.array([[[0, 0], [1, 1]], [[3, 3], [4, 4]], [[0.3, 0], [1.3, 1]], [[0.6, 0], [1.6, 1]]], float)
    found = boxes.blend(boxes.Boxes(corners, corners[:, :1] + 0.1, np.array([0.9, 0.8, 0.6, 0.6])))
    # The third overlaps with the first by 0.7 / 1.3, the last by 0.4 / 1.6 only.
    moved = 0.3 * 0.6 / (0.9 + 0.6)
    assert found.scores == near([0.9, 0.8, 0.6])
    assert_near(found.corners[0], [[moved, 0], [1 + moved, 1]])
    assert_near(found.points[0], [[moved + 0.1, 0.1]])
    assert_near(found.corners[1:], corners[[1, 3]])


def test_boxes_without_an_area_do_not_loop_for_ever():
    found = boxes.blend(boxes.Boxes(np.zeros((2, 2, 2)), np.zeros((2, 1, 2)), np.array([0.9, 0.8])))
    assert found.scores == near([0.9, 0.8])


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.5, math.pi])
def test_what_is_cut_out_is_found_again_in_the_picture(angle):
    region = Region(130, 90, 80, 80, angle)
    spot = region.to_picture(np.array([0.3, 0.6]))
    y, x = np.mgrid[:200, :240]
    blob = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 40)
    crop = region.crop(np.repeat((255 * blob).astype(np.uint8)[..., None], 3, axis=2), 64)[..., 0].astype(float)
    rows, columns = np.mgrid[:64, :64]
    seen = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum() / 64
    # Interpolation rounds places to 1/32 of a pixel, and levels: over the whole crop, whose 64 pixels show 80 of the
    # picture, that is less than a sixth of a crop's pixel. Half a pixel, the usual mistake, is over 0.6.
    assert_near(region.to_picture(seen), spot, 0.2)


def test_into_a_region_and_back():
    region = Region(130, 90, 80, 60, 0.7)
    points = np.random.default_rng(0).uniform(0, 1, (5, 2))
    in_its_directions = region.from_picture(region.to_picture(points))
    np.testing.assert_allclose(in_its_directions, (points - 0.5) * [80, 60], rtol=0, atol=POINTS)
    np.testing.assert_allclose(
        region.rotate(in_its_directions) + [130, 90], region.to_picture(points), rtol=0, atol=POINTS
    )


def test_beyond_the_picture_its_edge_goes_on_or_it_is_black():
    picture = np.full((20, 20, 3), 200, np.uint8)
    region = Region(0, 0, 40, 40)
    assert (region.crop(picture, 16) == 200).all()
    black = region.crop(picture, 16, cv2.BORDER_CONSTANT)
    assert (black[:7] == 0).all() and (black[9:, 9:] == 200).all()


@pytest.mark.parametrize(("edge", "degrees"), [((0, -9), 0), ((9, 0), 90), ((-9, 0), -90), ((9, -9), 45)])
def test_a_person_is_upright_in_his_region(edge, degrees):
    centre = np.array([50.0, 60.0])
    region = body.body_region(np.array([centre, centre + edge]))
    assert math.degrees(region.angle) == near(degrees)
    assert region.width == region.height == near(2.5 * math.hypot(*edge))
    assert_near(region.to_picture(np.array([0.5, 0.1])), centre + edge)  # up, at 1/2.5 of the side


def test_a_square_is_moved_along_its_own_upright():
    square = Region(100, 100, 10, 20, math.pi / 2).square(2.0, up=0.1)
    assert (square.x, square.y) == near((102, 100))  # its upright points to the right
    assert (square.width, square.height) == (40, 40)


def test_a_region_with_nothing_in_it_is_not_usable():
    point = np.array([3.0, 4.0])
    assert not regions.around_centre(point, point).is_usable()
    assert not Region(math.nan, 0, 10, 10).is_usable()
    assert Region(0, 0, 10, 10).is_usable()


def test_the_region_of_a_picture_shares_its_longer_side():
    region = regions.whole_picture(np.zeros((40, 100, 3), np.uint8))
    assert_near(region.to_picture(np.array([[0, 0.3], [1, 0.7]])), [[0, 0], [100, 40]])


def test_a_hand_is_upright_in_its_region_and_inside_it():
    upright = np.zeros((21, 2))
    upright[:, 0] = np.linspace(-10, 10, 21)
    upright[:, 1] = -np.arange(21.0)
    upright[[0, 5, 9, 13], 0] = [0, -3, 0, 3]  # wrist and roots of the fingers
    turned = Region(200, 100, 1, 1, 1.1)
    region = hands.region_from_landmarks(turned.rotate(upright) + [200, 100])
    level = hands.region_from_landmarks(upright)
    assert region.angle - level.angle == near(1.1)
    assert region.width == near(level.width)
    palm = np.abs(region.from_picture((turned.rotate(upright) + [200, 100])[hands.PALM]))
    assert (palm < region.width / 2).all()


def test_a_hand_is_looked_for_beyond_the_wrist():
    wrist, little, index = np.array([100.0, 100.0]), np.array([94.0, 80.0]), np.array([106.0, 80.0])
    region = hands.region_from_body(np.array([wrist, little, index]))
    assert math.degrees(region.angle) == near(math.degrees(math.atan2(2, 20)))
    assert region.y < 80 and region.width == near(2.7 * 2 * math.hypot(2, 20))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"angle": 0.3 + math.radians(41)}, id="turned"),
        pytest.param({"x": 211.0}, id="moved"),
        pytest.param({"y": 111.0}, id="moved-down"),
        pytest.param({"width": 71.0, "height": 71.0}, id="grown"),
        pytest.param({"width": 29.0, "height": 29.0}, id="shrunk"),
    ],
)
def test_the_earlier_region_is_given_up_where_it_disagrees(change):
    inside = np.array([[200.0, 100.0]])
    near = Region(**{**vars(FOUND), "x": 203.0, "angle": 0.3 + math.radians(39)})
    assert follow_region(FOUND, near, inside, TOLERANCE) is near
    far = Region(**{**vars(FOUND), **change})
    assert follow_region(FOUND, far, inside, TOLERANCE) is FOUND


def test_the_earlier_region_is_given_up_where_its_landmarks_are_outside():
    edge = FOUND.to_picture(np.array([[0.94, 0.5], [0.96, 0.5]]))  # 0.45 sides from the centre are left by the margin
    assert follow_region(FOUND, FOUND, edge[:1], TOLERANCE) is FOUND
    earlier = Region(**vars(FOUND))
    assert follow_region(FOUND, earlier, edge[:1], TOLERANCE) is earlier
    assert follow_region(FOUND, earlier, edge, TOLERANCE) is FOUND
    assert follow_region(FOUND, None, None, TOLERANCE) is FOUND


def test_angles_count_the_short_way_round():
    found, earlier = Region(0, 0, 10, 10, math.pi - 0.1), Region(0, 0, 10, 10, 0.1 - math.pi)
    assert follow_region(found, earlier, np.zeros((1, 2)), TOLERANCE) is earlier


def heat_map(*peaks: tuple[int, int, float]) -> np.ndarray:
    """(64, 64, n) logits: for each map a row, a column and a score there; next to nothing elsewhere."""
    heat = np.full((64, 64, len(peaks)), -60.0, np.float32)
    for n, (row, column, score) in enumerate(peaks):
        heat[row, column, n] = logit(score)
    return heat


def test_heat_maps_move_the_points_near_their_peaks():
    points = np.array([[20.5, 30.5], [20.5, 30.5], [20.5, 30.5], [-3, 5], [1.2, 1.2]]) / 64
    heat = heat_map((33, 18, 0.9), (33, 18, 0.4), (36, 20, 0.9), (5, 0, 0.9), (0, 0, 0.8))
    refined = body.refine(points, heat) * 64
    assert_near(refined[0], [18, 33])
    assert_near(refined[1:4], points[1:4] * 64)  # unsure; more than four cells away; outside
    assert_near(refined[4], [0, 0])  # the kernel ends at the map's edge


def test_a_broad_peak_gives_its_centre_of_mass():
    heat = heat_map((30, 20, 0.9))
    heat[30, 22, 0] = logit(0.3)
    refined = body.refine(np.array([[20.5, 30.5]]) / 64, heat) * 64
    # Two cells apart, weighted by logits in float32 whose size is up to 2.2.
    assert_near(refined, [[(20 * 0.9 + 22 * 0.3) / 1.2, 30]], 2 * LOGITS)
