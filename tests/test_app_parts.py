"""The page's work without Gradio: checks of files, alignment and its factors by hand, the YAML of a result."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from media import write_picture, write_text, write_video
from PIL import Image
from pose_align_folder import FRAMES, pose_align_folder  # noqa: F401
from tolerance import near

from musepose.app import alignment, weights
from musepose.app.bundle import repeating_config, write_config
from musepose.app.desk import Desk
from musepose.app.inputs import check_dance, check_picture
from musepose.app.jobs import Job, run
from musepose.app.options import Settings
from musepose.app.previews import dance_frame, over_picture
from musepose.inference.cases import make_plan
from musepose.media.video_reader import probe, read_frames
from musepose.pose.preview import draw_over
from musepose.utils.errors import UserError


def test_the_defaults_keep_others_out():
    assert Settings().host == "127.0.0.1" and not Settings().share and not Settings().open_to_others


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"host": "0.0.0.0"}, True),
        ({"host": "192.168.1.5"}, True),
        ({"share": True}, True),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0", "auth": "me:secret"}, False),
    ],
)
def test_who_can_open_the_page(changes, expected):
    assert Settings(**changes).open_to_others is expected


def test_files_are_described_in_one_line(tmp_path):
    picture = check_picture(write_picture(tmp_path / "me.png", "rgb", 64, 48), Settings())
    dance = check_dance(write_video(tmp_path / "dance.mp4", 20, rate=10, sound=1.0), Settings(max_seconds=1))
    assert (picture.line, picture.good) == ("64 × 48 pixels", True)
    assert dance.line == (
        "2.0 seconds, 64 × 48, 10 frames a second, with sound. At most 1 seconds of it are used at a time"
    )
    assert (dance.good, dance.seconds, dance.frames, dance.limit) == (True, 2.0, 20, 1)


def test_what_is_wrong_with_a_file_names_no_folder(tmp_path):
    broken = check_picture(write_text(tmp_path / "me.png"), Settings())
    missing = check_dance(tmp_path / "dance.mp4", Settings())
    large = check_picture(write_picture(tmp_path / "large.png", "rgb", 200, 100), Settings(max_megapixels=0.01))
    wide = check_picture(write_picture(tmp_path / "wide.png", "rgb", 440, 40), Settings())
    for checked, start in (
        (broken, "me.png is "),
        (missing, "dance.mp4 does not exist"),
        (large, "large.png has 0.0 megapixels, more than 0.01: scale it down"),
        (wide, "wide.png is 440 x 40, too elongated"),
    ):
        assert not checked.good and checked.line.startswith(start) and str(tmp_path) not in checked.line


@pytest.fixture
def aligned(folder) -> alignment.Aligned:  # noqa: F811
    """The folder's dance aligned from its keypoint file, as by an alignment job."""
    knobs = {"align": "robust", "smooth": False, "keypoints": str(folder.save())}
    settings = alignment.settings_of(folder.path / "job", folder.image, folder.video, "dwpose", knobs)
    job = Job("me", "align", folder.path / "job", alignment.make_work(settings, Settings()))
    run(job)
    assert job.error == ""
    return job.result


def test_an_alignment_leaves_its_files_in_the_jobs_folder(aligned, folder):  # noqa: F811
    assert probe(aligned.job.aligned_path).frames == FRAMES == len(aligned.frames)
    names = {path.name for path in (folder.path / "job").rglob("*") if path.is_file()}
    assert names == {"dance.mp4", "dance_demo.mp4", "dance_preview.png", "keypoints.npz"}
    assert not folder.outputs()


def test_factors_by_hand_multiply_what_was_found(aligned):
    fitted, lines = alignment.align_again(aligned, {"upper arms": 2.0, "trunk": 1.0})
    assert fitted.alignment.scales["upper arms"] == near(2 * aligned.scales["upper arms"])
    assert fitted.alignment.scales["trunk"] == aligned.scales["trunk"]
    assert alignment.align_again(aligned, dict.fromkeys(aligned.scales, 1.0)) == (aligned.fitted, aligned.warnings)
    again = alignment.redraw(aligned, {"upper arms": 2.0}, aligned.job.aligned_path.parents[2] / "other", Silent())
    drawn, before = (np.stack(list(read_frames(path))).astype(int) for path in (again, aligned.job.aligned_path))
    assert np.abs(drawn - before).max() > 100


class Silent(alignment.JobReporter):
    def __init__(self):
        super().__init__(Job("me", "align", None, lambda job: None))


@pytest.mark.parametrize(
    "given", [{"upper arms": 2.1}, {"upper arms": 0.4}, {"tail": 1.0}, {"upper arms": float("nan")}]
)
def test_factors_out_of_range_are_refused(aligned, given):
    with pytest.raises(UserError, match="give 0.5 to 2.0 for one of neck, face"):
        alignment.by_hand(aligned, given)


def test_a_part_that_is_too_long_is_refused(folder):  # noqa: F811
    settings = alignment.settings_of(
        folder.path / "job", folder.image, folder.video, "dwpose", {"keypoints": str(folder.save())}
    )
    with pytest.raises(UserError, match="0.8 seconds of the dance are more than 0.5: choose a shorter part"):
        alignment.make_work(settings, Settings(max_seconds=0.5))
    alignment.make_work(replace(settings, to=0.5), Settings(max_seconds=0.5))


def test_skeletons_lie_over_the_picture(aligned, tmp_path):
    picture = aligned.job.reference
    drawn = np.asarray(Image.open(over_picture(picture, aligned.fitted, 3, tmp_path)).convert("RGB")).astype(int)
    assert drawn.shape == (640, 480, 3)
    # WebP at quality 85 moves a flat picture by a few levels; a skeleton by up to 255.
    assert np.abs(drawn - draw_over(picture, aligned.fitted.aligned(3), 640, 0.75)).mean() < 5
    assert over_picture(picture, aligned.fitted, 3, tmp_path) != over_picture(picture, aligned.fitted, 5, tmp_path)


def test_a_frame_of_the_dance(folder, tmp_path):  # noqa: F811
    assert Image.open(dance_frame(folder.video, 2, tmp_path)).size == (64, 48)
    assert dance_frame(folder.video, FRAMES, tmp_path) is None


def test_the_yaml_of_a_result_repeats_its_plan(stage_2):
    plan = make_plan(stage_2.write_config(), {"steps": "7", "fps": "30000/1001", "skip": "0"}, datetime.now())
    values = repeating_config(plan)
    assert values["test_cases"] == {"./ref.png": ["./aligned/dance.mp4"]}
    assert (values["steps"], values["fps"], values["weight_dtype"]) == (7, "30000/1001", "float16")
    assert not values.keys() & {"output", "overwrite", "vram", "device"}
    (stage_2.path / "aligned").mkdir()
    stage_2.pose.rename(stage_2.path / "aligned" / "dance.mp4")
    again = make_plan(write_config(stage_2.path / "again.yaml", values), {}, datetime.now())
    assert replace(again.settings, output=None) == replace(plan.settings, output=None)
    assert (again.weights, again.jobs[0].frames, again.jobs[0].rate) == (
        plan.weights,
        plan.jobs[0].frames,
        plan.jobs[0].rate,
    )


def test_the_panel_names_the_command_for_what_is_missing():
    rows = {row.split("|")[1].strip(): row for row in weights.panel().splitlines()}
    absent = weights.missing_files("musepose")
    assert ("--only musepose" in rows["MusePose's networks"]) == bool(absent)
    assert "✓ there" in rows["the puppets' models and detector"]


def test_a_visitor_reaches_own_jobs_only(tmp_path):
    desk = Desk(Settings(folder=tmp_path))
    job = desk.queue.submit(Job("me", "align", desk.queue.folder(), lambda job: "aligned"))
    while not job.finished:
        job.stop.wait(0.01)
    assert desk.aligned(job.id, "me") == "aligned"
    assert desk.job(job.id, "you") is desk.aligned(job.id, "you") is None
    desk.stop(job.id, "you")
    assert not job.stop.is_set()
    with pytest.raises(UserError, match="no dance is aligned yet: align one first"):
        desk.generate("you", job.id, "puppets", {}, {})


def test_knobs_are_checked_as_flags(folder):  # noqa: F811
    with pytest.raises(UserError, match="--person is 0: give at least 1"):
        alignment.settings_of(folder.path, folder.image, folder.video, "blazepose", {"person": "0"})
    with pytest.raises(UserError, match="detector is nobody: choose from blazepose, dwpose, puppets"):
        alignment.settings_of(folder.path, folder.image, folder.video, "nobody", {})
