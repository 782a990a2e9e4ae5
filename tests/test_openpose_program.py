"""pose_align.py with OpenPose JSON, palettes, faces, and several people: files in, files out."""

import json
from pathlib import Path

import numpy as np
import pytest
from dancer import Detector, dance, dancer
from PIL import Image
from pose_align_folder import (
    FRAMES,
    IMAGE_ASPECT,
    Folder,
    frames_of,
    panels,
    pose_align_folder,  # noqa: F401, a fixture
    run_script,
)
from tolerance import assert_near, rounding

from musepose.pose.draw import Style, draw_poses
from musepose.pose.keypoint_file import Keypoints, load_keypoints
from musepose.pose.openpose import frame_to_json
from musepose.pose.types import People, to_pose
from musepose.utils.errors import UserError

DANCE, PICTURE = "json/dance", "json/picture/ref_keypoints.json"
HIDDEN = [3, 8, 14, 100, 120]  # an ear, an elbow, a knee, fingers: what lies behind them is visible


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def written(folder: Folder, *flags) -> dict[str, bytes]:
    """OpenPose JSON of a dance with hidden joints and a frame without anybody."""
    points, scores = dance(FRAMES, (5,), aspect=4 / 3, arms=0.12)
    scores[:, HIDDEN] *= 0.2
    folder.save(video_keypoints=Keypoints(points, scores))
    assert folder.run("--keypoints", folder.keypoints, "--save_openpose", "json", *flags) == 0
    return files(folder.path / "json")


def test_written_read_back_and_aligned_by_the_script_the_result_is_the_same(folder):
    first = written(folder)
    videos = frames_of(folder.aligned), frames_of(folder.demo)
    flags = ("--imgfn_refer", "ref.png", "--vidfn", "dance.mp4", "--save_openpose", "again")
    done = run_script(folder, *flags, "--keypoints", DANCE, "--picture_keypoints", PICTURE)
    assert done.returncode == 0, done.stderr
    assert files(folder.path / "again") == first and len(first) == 2 * FRAMES + 1
    np.testing.assert_array_equal(frames_of(folder.aligned), videos[0])
    np.testing.assert_array_equal(frames_of(folder.demo), videos[1])
    assert "the dancer was not found in 1 of 8 frames, drawn empty: 5" in done.stdout and "wrote again" in done.stdout


def test_one_file_with_all_frames_gives_the_same_as_a_folder(folder):
    first = written(folder)
    frames = [json.loads(text) for name, text in sorted(first.items()) if name.startswith("dance/")]
    (folder.path / "all.json").write_text(json.dumps(frames))
    folder.run("--keypoints", "all.json", "--picture_keypoints", PICTURE, "--save_openpose", "again")
    assert files(folder.path / "again") == first


def test_the_aligned_poses_are_in_the_pictures_pixels_and_start_at_the_align_frame(folder):
    """The dancer has the picture's proportions: in the align frame his pose is the picture's, face and all."""
    points, scores = dance(FRAMES, aspect=4 / 3)
    points[2] = dance(1, aspect=4 / 3, height=0.35)[0][0]
    folder.save(video_keypoints=Keypoints(points, scores))
    folder.run("--keypoints", folder.keypoints, "--align_frame", 2, "--save_openpose", "json")
    content = files(folder.path / "json")
    aligned = [name for name in sorted(content) if name.startswith("aligned/")]
    assert len(aligned) == FRAMES - 2
    assert aligned[0] == "aligned/img_ref_video_dance_000000000000_keypoints.json"
    first, picture = json.loads(content[aligned[0]]), json.loads(content["picture/ref_keypoints.json"])
    assert (first["canvas_width"], first["canvas_height"]) == (60, 80)
    for key in ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"):
        # The keypoint file's float32, of pixels below 100, aligned by a few operations.
        assert_near(first["people"][0][key], picture["people"][0][key], rounding(10, 100))


def test_with_other_keypoints_the_picture_is_detected(folder):
    written(folder)
    points, scores = dance(1, aspect=IMAGE_ASPECT)
    detector = folder.detect("--keypoints", DANCE, detector=Detector((points[0], scores[0])))
    assert detector.calls == 1


def test_with_the_pictures_keypoints_only_the_video_is_detected(folder):
    written(folder)
    found = list(zip(*dance(FRAMES, aspect=4 / 3), strict=True))
    detector = folder.detect("--picture_keypoints", PICTURE, detector=Detector(*found))
    assert detector.calls == FRAMES


def test_an_older_folder_is_replaced_as_a_whole(folder):
    long = written(folder)
    (folder.path / "json" / "dance" / "more_000000000099_keypoints.json").write_text("{}")
    assert written(folder) == long


def test_a_run_that_breaks_leaves_no_json_and_the_old_one_stays(folder, monkeypatch):
    old = written(folder)

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("musepose.pose.openpose_files.json.dumps", broken)
    for name in ("json", "new"):
        with pytest.raises(UserError, match=f"cannot write .*{name} .*free some space"):
            folder.run("--keypoints", folder.keypoints, "--save_openpose", name)
    assert files(folder.path / "json") == old
    assert not (folder.path / "new").exists() and not list(folder.path.glob(".musepose-*"))


def test_the_openpose_palette_is_the_other_with_red_and_blue_exchanged(folder):
    folder.save()
    shown = {}
    for colors in ("musepose", "openpose"):
        folder.run("--keypoints", folder.keypoints, "--colors", colors)
        strip = panels(frames_of(folder.demo)[0])
        shown[colors] = [frame.astype(int) for frame in (frames_of(folder.aligned)[0], strip[1], strip[4])]
    for published, openpose in zip(*shown.values(), strict=True):
        exchanged = np.abs(openpose[..., ::-1] - published).mean()  # what the encoding costs
        assert exchanged < np.abs(openpose - published).mean() / 3


def test_the_palettes_differ_by_nothing_else():
    drawn = to_pose(dancer(), np.ones(133))
    one, other = (draw_poses([drawn], 400, 300, Style(colors=colors, face=True)) for colors in ("musepose", "openpose"))
    np.testing.assert_array_equal(one, other[..., ::-1])
    nose = (drawn.body[0] * (300, 400)).astype(int)
    assert draw_poses([drawn], 400, 300, Style("openpose"))[nose[1], nose[0]].tolist() == [255, 0, 0]  # OpenPose's red


def test_faces_are_drawn_where_asked_for(folder):
    folder.save()
    white = {}
    for flags in ((), ("--draw_face",)):
        folder.run("--keypoints", folder.keypoints, *flags)
        white[flags] = int((frames_of(folder.aligned).min(axis=-1) > 200).sum())
    assert white[("--draw_face",)] > 1000 and white[()] == 0


def test_the_line_width_is_that_many_times_the_published_one():
    drawn = to_pose(dancer(), np.ones(133))
    lit = {w: np.count_nonzero(draw_poses([drawn], 800, 600, Style(line_width=w)).any(-1)) for w in (0.5, 1, 2)}
    assert 0.4 * lit[1] < lit[0.5] < 0.75 * lit[1] and 1.4 * lit[1] < lit[2] < 2.3 * lit[1]


def pair(points: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> People:
    """A dancer, and to his left (as seen) a smaller one."""
    small = 0.4 * (points - 0.5) + (0.15, 0.5)
    both = np.stack([points, small])
    boxes = np.concatenate([both[:, :17].min(axis=1), both[:, :17].max(axis=1)], axis=1) * np.tile(size, 2)
    return People(boxes, np.ones(2), both, np.stack([scores, scores]), size=size)


class Pairs(Detector):
    def __call__(self, rgb):
        points, scores = self.found[self.calls]
        self.calls += 1
        return pair(points.astype(float), scores, rgb.shape[1::-1])


@pytest.mark.parametrize(
    ("flags", "heights"),
    [
        ((), (0.7, 0.7)),
        (("--person", "left"), (0.7, 0.28)),
        (("--picture_person", 1), (0.28, 0.7)),
        (("--person", 1, "--picture_person", "right"), (0.7, 0.28)),
    ],
)
def test_the_flags_say_who_is_meant_in_picture_and_video(folder, flags, heights):
    image, video = dance(1, aspect=IMAGE_ASPECT), dance(FRAMES, aspect=4 / 3)
    detector = Pairs((image[0][0], image[1][0]), *zip(*video, strict=True))
    folder.detect("--save_keypoints", folder.keypoints, *flags, detector=detector)
    saved = load_keypoints(folder.keypoints)
    whole = float(np.ptp(dancer()[:17, 1])) / 0.7
    found = [np.ptp(k.points[0, :17, 1]) / whole for k in (saved.image_keypoints, saved.video_keypoints)]
    assert_near(found, heights, rounding(2, 1 / whole))  # two float32 points


def several(folder: Folder) -> str:
    """A file in which ComfyUI's editors have put two people."""
    content = []
    for points, scores in zip(*dance(FRAMES, aspect=4 / 3), strict=True):
        people = pair(points, scores, (64, 48))
        content.append(
            frame_to_json([to_pose(*one) for one in zip(people.keypoints, people.scores, strict=True)], 64, 48)
        )
    (folder.path / "several.json").write_text(json.dumps(content))
    return "several.json"


def test_of_several_people_in_a_file_the_flag_says_who_is_meant(folder):
    picture = written(folder)[PICTURE.removeprefix("json/")]
    (folder.path / "ref.json").write_bytes(picture)
    shown = {}
    for person in ("largest", "left", "right", 2):
        folder.run("--keypoints", several(folder), "--picture_keypoints", "ref.json", "--person", person,
                   "--save_openpose", "who")  # fmt: skip
        text = files(folder.path / "who")["dance/dance_000000000000_keypoints.json"]
        body = np.reshape(json.loads(text)["people"][0]["pose_keypoints_2d"], (18, 3))
        shown[person] = round(float(body[1, 0]) / 64, 2)
    assert shown == {"largest": 0.5, "left": 0.15, "right": 0.5, 2: 0.5}


def short(folder: Folder):
    written(folder)
    (folder.path / DANCE / "dance_000000000007_keypoints.json").unlink()
    return ("--keypoints", DANCE, "--picture_keypoints", PICTURE)


def of_frames(count: int, *flags):
    def apply(folder: Folder):
        (folder.path / "all.json").write_text(
            json.dumps([frame_to_json([to_pose(dancer(), np.ones(133))], 64, 48)] * count)
        )
        (folder.path / "ref.json").write_text(json.dumps(frame_to_json([to_pose(dancer(), np.ones(133))], 60, 80)))
        (folder.path / "two.json").write_text(json.dumps([frame_to_json([], 60, 80)] * 2))
        (folder.path / "none.json").write_text(json.dumps(frame_to_json([], 60, 80)))
        return ("--keypoints", "all.json", "--picture_keypoints", "ref.json", *flags)

    return apply


def from_npz(*flags):
    return lambda folder: ("--keypoints", folder.save(), *flags)


def other_files(folder: Folder):
    (folder.path / "json").mkdir()
    (folder.path / "json/thesis.txt").write_text("mine")
    return ("--keypoints", folder.save(), "--save_openpose", "json")


def into_its_source(folder: Folder):
    written(folder)
    return ("--keypoints", DANCE, "--picture_keypoints", PICTURE, "--save_openpose", "json")


BAD = {
    "too few frames": (short, "json/dance holds 7 frames, but 8 are needed: give --max_frame 7"),
    "too many frames": (
        of_frames(9),
        "all.json holds 9 frames, but .*dance.mp4 has 8: give the keypoints of this very",
    ),
    "frames for a picture": (of_frames(8, "--picture_keypoints", "two.json"), "two.json holds 2 frames: give"),
    "picture of another shape": (
        of_frames(8, "--imgfn_refer", "wide.png"),
        "ref.json has a canvas of 60 x 80, of anot",
    ),
    "picture without anybody": (of_frames(8, "--picture_keypoints", "none.json"), "no person was found in .*ref.png"),
    "picture's is no JSON": (from_npz("--picture_keypoints", "dance.npz"), "dance.npz, no OpenPose JSON: give a .json"),
    "missing": (from_npz("--keypoints", "none.json"), "none.json does not exist"),
    "picture's missing": (from_npz("--picture_keypoints", "none.json"), "none.json does not exist"),
    "saved as npz": (of_frames(8, "--save_keypoints", "new.npz"), "--save_keypoints keeps what a detector found"),
    "nobody else": (
        of_frames(8, "--person", 2),
        "--person is 2, but nobody else is seen in .*dance.mp4: give at most 1",
    ),
    "nobody else in the picture": (of_frames(8, "--picture_person", 3), "--picture_person is 3, but nobody else is"),
    "person of an npz": (
        from_npz("--person", "left"),
        "dance.npz holds one person only, so that --person has no choice",
    ),
    "person 0": (from_npz("--person", 0), "--person is 0: give at least 1"),
    "person in words": (from_npz("--person", "tall"), "--person is .tall.: give largest, left, right, a whole number"),
    "colors": (from_npz("--colors", "rgb"), "--colors is rgb: choose from musepose, openpose"),
    "line_width": (from_npz("--line_width", 0), "--line_width is 0: give 0.1 to 10"),
    "folder with other files": (other_files, "json is to be replaced, but it holds thesis.txt: give a new folder"),
    "folder with its source": (into_its_source, "json is to be replaced, but json/.* lies in there: give a new folder"),
    "folder is a file": (from_npz("--save_openpose", "ref.png"), "ref.png .*(is no folder|lies in there)"),
    "folder with the inputs": (from_npz("--save_openpose", "."), "is to be replaced, but .* lies in there"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name, folder):
    prepare, message = BAD[name]
    Image.new("RGB", (200, 80)).save(folder.path / "wide.png")
    flags = prepare(folder)
    before = files(folder.path)
    with pytest.raises(UserError, match=message) as caught:
        folder.run(*flags)
    assert "\n" not in str(caught.value) and ": " in str(caught.value)
    assert files(folder.path) == before
