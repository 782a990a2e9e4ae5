"""OpenPose JSON: written and read back, what other tools write, and everything that is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dancer import dance, dancer
from tolerance import POINTS, assert_near

from musepose.pose.face import carry_face
from musepose.pose.openpose import frame_from_json, frame_to_json
from musepose.pose.openpose_files import check_replaceable, read_people, write_frames
from musepose.pose.types import People, Pose, to_pose
from musepose.utils.errors import UserError

SIZE = (640, 360)
FRAMES = 12
NOBODY = {"people": []}
# BODY_25's names in its order, and those of its points that the 18 lack
NAMES_25 = (
    "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist mid_hip r_hip r_knee r_ankle l_hip l_knee l_ankle "
    "r_eye l_eye r_ear l_ear l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel"
).split()
NAMES_18 = [name for name in NAMES_25[:19] if name != "mid_hip"]
COCO_FEET = [17, 18, 19, 20, 21, 22]  # left big toe, small toe, heel, then right, of COCO-WholeBody


def pose(**build) -> Pose:
    return to_pose(dancer(**build).astype(np.float32), np.ones(133))


def body_list(points: dict[str, tuple], names: list[str]) -> list[float]:
    return [number for name in names for number in (*points.get(name, (0, 0, 0)),)]


def standing(x: float = 320, scale: float = 1.0) -> dict[str, tuple[float, float, float]]:
    """A person of BODY_25, in pixels."""
    places = {
        "nose": (0, -90), "neck": (0, -65), "mid_hip": (0, 0),
        "r_shoulder": (-20, -65), "r_elbow": (-30, -30), "r_wrist": (-30, 0),
        "l_shoulder": (20, -65), "l_elbow": (30, -30), "l_wrist": (30, 0),
        "r_hip": (-13, 0), "r_knee": (-15, 50), "r_ankle": (-15, 100),
        "l_hip": (13, 0), "l_knee": (15, 50), "l_ankle": (15, 100),
        "r_eye": (-3, -93), "l_eye": (3, -93), "r_ear": (-6, -90), "l_ear": (6, -90),
        "l_big_toe": (20, 110), "l_small_toe": (25, 108), "l_heel": (14, 105),
        "r_big_toe": (-20, 110), "r_small_toe": (-25, 108), "r_heel": (-14, 105),
    }  # fmt: skip
    return {name: (x + scale * dx, 180 + scale * dy, 0.9) for name, (dx, dy) in places.items()}


def read_one(path: Path, content) -> People:
    path.write_text(json.dumps(content))
    return read_people(path, SIZE)[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "frames.json"


def test_written_and_read_back_the_points_are_the_same_to_the_last_bit(tmp_path):
    points, scores = dance(FRAMES, aspect=16 / 9)
    scores[3, [7, 13, 95]] = 0.1  # an elbow, a knee and a finger are hidden: their coordinates count all the same
    points[5] -= 0.4  # half out of the picture
    write_frames(tmp_path / "a", "clip", ([to_pose(*one)] for one in zip(points, scores, strict=True)), SIZE)
    for number, people in enumerate(read_people(tmp_path / "a", SIZE)):
        read = to_pose(people.keypoints[0].astype(np.float32), people.scores[0])
        written = to_pose(points[number], scores[number])
        for part in ("body", "body_visible", "hands", "hands_visible", "face", "face_visible"):
            np.testing.assert_array_equal(getattr(read, part), getattr(written, part), err_msg=f"{number} {part}")


def test_the_files_are_named_and_laid_out_as_openpose_does(tmp_path):
    write_frames(tmp_path / "a", "clip", [[pose()], [], [pose(), pose(height=0.5)]], SIZE)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"clip_00000000000{n}_keypoints.json" for n in range(3)]
    contents = [json.loads((tmp_path / "a" / name).read_text()) for name in names]
    assert [len(content["people"]) for content in contents] == [1, 0, 2]
    assert [(content["canvas_width"], content["canvas_height"]) for content in contents] == [SIZE] * 3
    person = contents[0]["people"][0]
    lengths = {key: len(value) // 3 for key, value in person.items() if key.endswith("_2d")}
    hands = {"hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}
    assert lengths == {"pose_keypoints_2d": 18, "face_keypoints_2d": 70, **hands}


def test_coordinates_are_pixels_and_visible_points_have_the_score_1():
    one = pose()
    one.body_visible[4] = False
    person = frame_to_json([one], 200, 100)["people"][0]
    body = np.reshape(person["pose_keypoints_2d"], (18, 3))
    np.testing.assert_allclose(body[:, :2], one.body * (200, 100), rtol=0, atol=POINTS)
    assert body[:, 2].tolist() == [float(joint != 4) for joint in range(18)]
    np.testing.assert_allclose(person["hand_left_keypoints_2d"][:2], one.hands[0, 0] * (200, 100), rtol=0, atol=POINTS)


@pytest.mark.parametrize("names", [NAMES_18, NAMES_25], ids=["18", "25"])
def test_body_points_find_their_places(file, names):
    person = standing()
    read = read_one(file, [{"people": [{"pose_keypoints_2d": body_list(person, names)}]}])
    found = to_pose(read.keypoints[0], read.scores[0])
    expected = np.array([person[name][:2] for name in NAMES_18]) / SIZE
    np.testing.assert_allclose(found.body, expected, rtol=0, atol=POINTS)
    assert found.body_visible.all() and not found.hands_visible.any() and not found.face_visible.any()
    feet = [person[name][:2] if names is NAMES_25 else (0, 0) for name in NAMES_25[19:]]
    np.testing.assert_allclose(read.keypoints[0, COCO_FEET] * SIZE, feet, rtol=0, atol=POINTS)


def test_hands_and_faces_find_their_places_and_pupils_are_left_out(file):
    rows = {"hand_left_keypoints_2d": (21, 100), "hand_right_keypoints_2d": (21, 200), "face_keypoints_2d": (70, 300)}
    lists = {key: [n for i in range(count) for n in (x + i, 50, 1)] for key, (count, x) in rows.items()}
    read = read_one(file, {"people": [{"pose_keypoints_2d": body_list(standing(), NAMES_18), **lists}]})
    found = to_pose(read.keypoints[0], read.scores[0])
    np.testing.assert_allclose(
        found.hands[:, :, 0] * 640, [100 + np.arange(21), 200 + np.arange(21)], rtol=0, atol=POINTS
    )
    np.testing.assert_allclose(found.face[:, 0] * 640, 300 + np.arange(68), rtol=0, atol=POINTS)
    assert found.hands_visible.all() and found.face_visible.all()


def as_fractions(person: dict, width: int = 640, height: int = 360) -> dict:
    return {name: (x / width, y / height, score) for name, (x, y, score) in person.items()}


@pytest.mark.parametrize("canvas", [{}, {"canvas_width": 1280, "canvas_height": 720}, {"width": 1280, "height": 720}])
def test_pixels_are_those_of_the_canvas_or_else_of_the_video(file, canvas):
    points = standing() if not canvas else {name: (2 * x, 2 * y, s) for name, (x, y, s) in standing().items()}
    read = read_one(file, [{"people": [{"pose_keypoints_2d": body_list(points, NAMES_18)}], **canvas}])
    np.testing.assert_allclose(read.keypoints[0, 0] * SIZE, standing()["nose"][:2], rtol=0, atol=POINTS)


def test_fractions_are_told_from_pixels_by_all_frames_and_for_each_part_by_itself(file):
    """As ComfyUI's editors write: the body in fractions, some beyond the border, a hand in pixels."""
    far, hand = as_fractions(standing(x=630)), [n for i in range(21) for n in (300 + i, 100, 1)]
    person = {"pose_keypoints_2d": body_list(far, NAMES_18), "hand_left_keypoints_2d": hand}
    read = read_one(file, [{"people": [person], "canvas_width": 640, "canvas_height": 360}, NOBODY])
    np.testing.assert_allclose(read.keypoints[0, 0] * SIZE, standing(x=630)["nose"][:2], rtol=0, atol=POINTS)
    np.testing.assert_allclose(read.keypoints[0, 91] * SIZE, (300, 100), rtol=0, atol=POINTS)


def test_null_empty_and_missing_lists_are_points_not_found(file):
    person = {"pose_keypoints_2d": body_list(standing(), NAMES_18), "face_keypoints_2d": None}
    read = read_one(file, [{"people": [{**person, "hand_left_keypoints_2d": []}]}])
    assert read.scores[0, 23:].max() == 0 and read.scores[0, :17].min() == 0.9


def test_people_without_a_visible_body_are_nobody(file):
    low = {name: (x, y, 0.2) for name, (x, y, _) in standing().items()}
    people = [{"pose_keypoints_2d": body_list(person, NAMES_18)} for person in (low, standing(), {})]
    read = read_one(file, [{"people": people}])
    assert len(read.boxes) == 1
    assert_near(read.boxes[0], (290, 87, 350, 280))


@pytest.mark.parametrize("unset", [(0, 0, 0), (-1, -1, 0)])
def test_a_joint_without_coordinates_lies_on_the_one_it_hangs_on(file, unset):
    person = standing() | dict.fromkeys(("r_elbow", "l_hip", "l_shoulder", "r_eye"), unset)
    read = read_one(file, [{"people": [{"pose_keypoints_2d": body_list(person, NAMES_18)}]}])
    found = to_pose(read.keypoints[0], read.scores[0])
    pixels = dict(zip(NAMES_18, found.body * SIZE, strict=True))
    np.testing.assert_allclose(pixels["r_elbow"], pixels["r_shoulder"], rtol=0, atol=POINTS)
    np.testing.assert_allclose(pixels["l_hip"], pixels["neck"], rtol=0, atol=POINTS)
    np.testing.assert_allclose(pixels["r_eye"], pixels["nose"], rtol=0, atol=POINTS)
    # the neck is the middle of the shoulders: so is the missing shoulder found
    np.testing.assert_allclose(pixels["l_shoulder"], standing()["l_shoulder"][:2], rtol=0, atol=POINTS)
    np.testing.assert_allclose(pixels["neck"], standing()["neck"][:2], rtol=0, atol=POINTS)
    hidden = [name for name, visible in zip(NAMES_18, found.body_visible, strict=True) if not visible]
    assert hidden == ["neck", "r_elbow", "l_shoulder", "l_hip", "r_eye"]


def test_a_missing_wrist_is_that_of_the_hand(file):
    person = standing() | {"l_wrist": (0, 0, 0)}
    hand = [n for i in range(21) for n in (360 + i, 190, 1)]
    lists = {"pose_keypoints_2d": body_list(person, NAMES_18), "hand_left_keypoints_2d": hand}
    read = read_one(file, [{"people": [lists]}])
    np.testing.assert_allclose(
        to_pose(read.keypoints[0], read.scores[0]).body[7] * SIZE, (360, 190), rtol=0, atol=POINTS
    )


def test_files_are_taken_in_the_order_of_their_numbers(tmp_path):
    for number in range(9, 12):
        content = frame_to_json([pose(height=number / 20)], *SIZE)
        (tmp_path / f"frame_{number}.json").write_text(json.dumps(content))
    heights = [float(np.ptp(people.keypoints[0, :17, 1])) for people in read_people(tmp_path, SIZE)]
    assert heights == sorted(heights) and len(set(heights)) == 3


def whole(**changes) -> list:
    return [{"people": [{"pose_keypoints_2d": body_list(standing(), NAMES_18), **changes}]}]


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"poses", "no whole OpenPose JSON .*Expecting value"),
    "cut off": (json.dumps(whole()).encode()[:-9], "no whole OpenPose JSON"),
    "binary": (b"\xff\xfe\x00\x01" * 9, "no whole OpenPose JSON"),
    "nested without end": (b"[" * 100_000, "no whole OpenPose JSON"),
    "no frames": ([], "it holds no frame"),
    "a number": (7, "a frame is no"),
    "no people": ([{"animals": []}], "frame 0: a frame is no"),
    "second frame broken": ([*whole(), {"people": None}], "frame 1: a frame is no"),
    "person is a list": ([{"people": [[1, 2]]}], r"people\[0\] holds no lists"),
    "17 points": (whole(pose_keypoints_2d=[1.0] * 51), "holds 51 numbers, not 54 or 75"),
    "pairs": (whole(hand_left_keypoints_2d=[1.0] * 42), "hand_left_keypoints_2d holds 42 numbers, not 63"),
    "69 face points": (whole(face_keypoints_2d=[1.0] * 207), "holds 207 numbers, not 204 or 210"),
    "words": (whole(pose_keypoints_2d=["1"] * 54), "is no list of numbers"),
    "booleans": (whole(pose_keypoints_2d=[True] * 54), "is no list of numbers"),
    "nulls": (whole(pose_keypoints_2d=[None] * 54), "is no list of numbers"),
    "nan": (whole(pose_keypoints_2d=[float("nan")] * 54), "is no list of numbers"),
    "infinite": (whole(pose_keypoints_2d=[float("inf")] * 54), "is no list of numbers"),
    "huge": (whole(pose_keypoints_2d=[10**400] * 54), "is no list of numbers"),
    "canvas without width": ([whole()[0] | {"canvas_height": 5}], "the canvas is None x 5"),
    "canvas of nothing": ([whole()[0] | {"canvas_height": 0, "canvas_width": 5}], "the canvas is 5 x 0"),
    "canvas of another shape": (
        [whole()[0] | {"canvas_height": 512, "canvas_width": 512}],
        "canvas of 512 x 512, of another shape than what it is for, 640 x 360: give",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_a_bad_file_in_one_line(file, name):
    content, message = BAD[name]
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError, match=f"frames.json .*{message}" if name != "empty" else message) as caught:
        read_people(file, SIZE)
    assert "\n" not in str(caught.value) and ": " in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no .json file"),
        (["a_0.json", "a_1.json", "a_3.json"], "holds no file with the number 2"),
        (["a_0.json", "b_0.json"], "holds 2 files with the number 0"),
        (["a_0.json", "meta.json"], "meta.json has no frame number"),
    ],
)
def test_refuses_a_folder_that_is_not_a_file_a_frame(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text(json.dumps(NOBODY))
    with pytest.raises(UserError, match=message):
        read_people(tmp_path, SIZE)


def test_a_bad_file_of_a_folder_is_named(tmp_path):
    (tmp_path / "a_0.json").write_text(json.dumps(NOBODY))
    (tmp_path / "a_1.json").write_text("[]")
    with pytest.raises(UserError, match=r"a_1.json is no whole OpenPose JSON \(a frame is no"):
        read_people(tmp_path, SIZE)


@pytest.mark.parametrize("name", ["notes.txt", "dance/notes.txt", "other/a_keypoints.json", "a_keypoints.json"])
def test_a_folder_with_anything_else_is_not_replaced(tmp_path, name):
    check_replaceable(tmp_path, ("dance",))
    (tmp_path / "dance").mkdir()
    (tmp_path / "dance/a_0_keypoints.json").write_text("{}")
    check_replaceable(tmp_path, ("dance",))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="is to be replaced, but it holds .*: give a new folder"):
        check_replaceable(tmp_path, ("dance",))


def test_a_frame_of_nobody_has_no_rows():
    frame = frame_from_json(NOBODY)
    assert (frame.body.shape, frame.face.shape, frame.hands.shape) == ((0, 24, 3), (0, 68, 3), (0, 2, 21, 3))


def test_the_face_goes_with_the_head():
    """Head and face twice as large and elsewhere, in a picture of another shape; the rest is the same from the nose."""
    source, aspects = pose(aspect=16 / 9), (16 / 9, 3 / 4)
    nose, place = source.body[0].copy(), np.array([0.3, 0.6])
    to_image = 2 * np.array([aspects[0] / aspects[1], 1])
    aligned = replace(source, body=place + (source.body - nose) * to_image)
    carried = carry_face(source, aligned, *aspects)
    np.testing.assert_allclose(carried.face, place + (source.face - nose) * to_image, rtol=0, atol=POINTS)
    np.testing.assert_array_equal(carried.body, aligned.body)
