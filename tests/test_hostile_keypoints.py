"""Keypoint files and lists of pairs that are hostile or damaged: refused in one short line, before much is unpacked."""

import json
import tracemalloc

import numpy as np
import pytest
from media import write_video
from pose_align_folder import pose_align_folder  # noqa: F401, a fixture

from musepose.evaluation.pairs import check_pairs, find_pairs
from musepose.pose.openpose_files import read_people
from musepose.utils.errors import UserError


def changed(folder, **arrays):
    with np.load(folder.save()) as known:
        content = {**known, **arrays}
    np.savez_compressed(folder.keypoints, **content)
    return folder.keypoints


@pytest.mark.parametrize("value", [1e7, -1e9, 3e38, 10.5])
@pytest.mark.parametrize("part", ["image_keypoints", "video_keypoints"])
def test_a_joint_far_outside_the_picture_is_refused(folder, part, value):
    with np.load(folder.save()) as known:
        points = known[part].copy()
    points[0, 7, 1] = value
    with pytest.raises(UserError, match="pictures away.*write it again"):
        folder.run("--keypoints", changed(folder, **{part: points}))


@pytest.mark.parametrize(
    "name, array",
    [
        ("video_keypoints", np.zeros((400_000, 133, 2), np.float32)),
        ("video_name", np.array("n" * 10**7)),
        ("limb_scale", np.array("n" * 10**7)),
        ("anything", np.zeros((1, 10**8), np.float32)),
    ],
    ids=["frames", "name", "limb scale", "unknown array"],
)
def test_arrays_that_are_too_large_are_not_unpacked(folder, name, array):
    path = changed(folder, **{name: array})
    tracemalloc.start()
    with pytest.raises(UserError, match="too many") as caught:
        folder.run("--keypoints", path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", [7000.0, 1e9, -1e30])
def test_openpose_points_far_outside_are_refused(tmp_path, value):
    points = [[100.0, 100.0, 1.0]] * 17 + [[value, 100.0, 1.0]]
    person = {"pose_keypoints_2d": [number for point in points for number in point]}
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"people": [person], "canvas_width": 640, "canvas_height": 480}))
    with pytest.raises(UserError, match="no whole OpenPose JSON"):
        read_people(path, (640, 480))


@pytest.mark.parametrize("line", ["a" * 200_000 + ",b.mp4", "a\0b.mp4,c.mp4", '"a.mp4,c.mp4' + "x" * 140_000])
def test_lists_of_pairs_with_odd_fields(tmp_path, line):
    path = tmp_path / "pairs.csv"
    path.write_text(line + "\n")
    with pytest.raises(UserError):
        find_pairs([str(path)])


def test_comparisons_beside_results_are_skipped_and_said(tmp_path, capsys):
    for name in ("results/x.mp4", "results/x_cmp.mp4", "truth/x.mp4", "truth/y.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not opened")
    pairs = find_pairs([str(tmp_path / "results"), str(tmp_path / "truth")])
    assert [result.name for result, _ in pairs] == ["x.mp4"]
    assert "skipped" in capsys.readouterr().out
    (tmp_path / "truth/x_cmp.mp4").write_bytes(b"somebody wants it compared")
    assert len(find_pairs([str(tmp_path / "results"), str(tmp_path / "truth")])) == 2


def test_other_rates_are_said(tmp_path, capsys):
    result, truth = (write_video(tmp_path / f"{rate}.mp4", 4, rate=rate) for rate in (15, 30))
    check_pairs([(result, truth)], 2, 2, False)
    assert capsys.readouterr().out == ""
    check_pairs([(result, truth)], None, 1, False)
    assert "15 frames a second" in capsys.readouterr().out
