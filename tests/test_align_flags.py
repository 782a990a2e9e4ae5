"""pose_align.py --align robust and the flags beside it, on puppets' true keypoints; no network runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dancer import dance
from media import AAC_BLOCKS, read_sound
from PIL import Image
from pose_align_folder import FRAMES, frames_of, pose_align_folder  # noqa: F401
from tolerance import assert_near, near

from musepose.media.video_reader import probe
from musepose.pose import runner
from musepose.pose.align import fit_alignment
from musepose.pose.fitting import fit_job, problems
from musepose.pose.job import prepare
from musepose.pose.keypoint_file import Keypoints, load_keypoints
from musepose.pose.measure import body_points
from musepose.pose.smooth import smooth_keypoints
from musepose.utils.errors import UserError
from musepose.utils.files import PROJECT
from pose_align import parse

PUPPETS = PROJECT / "assets/keypoints/img_ref_video_dance.npz"  # 120 frames at 30 a second, aspect 1
ROBUST = ("--align", "robust")


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What flags make of the puppets in assets/: job and fitted dance."""
    monkeypatch.chdir(tmp_path)

    def fit(*flags):
        job = prepare(parse(["--keypoints", str(PUPPETS), *map(str, flags)]))
        return job, fit_job(job, runner.find_keypoints(job, lambda _: pytest.fail("the detector was loaded")))

    return fit


def lengths(poses, a: int, b: int) -> np.ndarray:
    points = body_points(poses, 1)
    return np.linalg.norm(points[:, a] - points[:, b], axis=-1)


def test_published_is_the_default_and_also_meant_by_scale_from(fitted):
    _, plain = fitted()
    expected = fit_alignment(plain.picture, plain.poses[0], 1, 1)
    for flags in ((), ("--align", "published"), ("--scale_from", "frame")):
        assert fitted(*flags)[1].alignment.scales == expected.scales
    assert fitted("--scale_from", "video")[1].alignment.scales.keys() == expected.scales.keys()
    assert "hips" in fitted(*ROBUST)[1].alignment.scales


def test_robust_starts_with_the_first_frame_unless_told_otherwise(fitted):
    assert fitted(*ROBUST, "--align_frame", 40)[1].start == 0
    assert fitted(*ROBUST, "--align_frame", 40, "--start_at_align_frame")[1].start == 40
    assert fitted("--align_frame", 40)[1].start == 40


def test_robust_needs_nobody_in_the_align_frame(folder):
    folder.save(missing=(0, 1))
    assert folder.run("--keypoints", folder.keypoints, *ROBUST, "--no-smooth") == 0
    assert [int(frame.max()) > 100 for frame in frames_of(folder.aligned)] == [False] * 2 + [True] * (FRAMES - 2)


def test_align_frame_auto_says_why(fitted):
    chosen = fitted("--align_frame", "auto", "--from", 1)[1]
    assert chosen.why.startswith("shows 18 of")
    assert chosen.start == chosen.align_frame > 0


@pytest.mark.parametrize("align", ["published", "robust"])
def test_limb_scale_overrides_what_was_found(fitted, align):
    job, found = fitted("--align", align, "--no-smooth", "--limb_scale", "lower_legs=0.5,upper_arms=2")
    before, after = [*found.poses], [*found.all_aligned()]
    for limb, factor in (((9, 10), 0.5), ((12, 13), 0.5), ((2, 3), 2), ((5, 6), 2)):
        assert_near(lengths(after, *limb), factor * lengths(before, *limb))
    kept = fitted("--align", align, "--no-smooth")[1].alignment.scales
    assert found.alignment.scales["upper legs"] == kept["upper legs"]
    assert found.alignment.scales["hands"] == near(kept["hands"] * (2 / kept["upper arms"]) ** 0.5)


def test_limb_scales_are_kept_with_the_keypoints(folder, capsys):
    folder.save()
    again = folder.path / "again.npz"
    folder.run("--keypoints", folder.keypoints, "--limb_scale", "trunk=1.3", "--save_keypoints", again)
    assert load_keypoints(again).limb_scale == "trunk=1.3"
    by_hand = frames_of(folder.aligned)
    folder.run("--keypoints", again)
    assert "limb scales given by hand: trunk=1.3" in capsys.readouterr().out
    np.testing.assert_array_equal(frames_of(folder.aligned), by_hand)
    capsys.readouterr()
    folder.run("--keypoints", again, "--limb_scale", "none")
    assert "by hand" not in capsys.readouterr().out
    assert (frames_of(folder.aligned) != by_hand).any()


def test_a_part_of_the_dance_its_sound_and_its_keypoints(folder):
    folder.save()
    folder.run("--keypoints", folder.keypoints, *ROBUST, "--no-smooth")
    whole = frames_of(folder.demo)
    part = folder.path / "part.npz"
    folder.detect("--from", 0.2, "--to", 0.7, "--save_keypoints", part, missing=(6, 7))
    assert probe(folder.aligned).frames == 5 and len(whole) == FRAMES
    assert read_sound(folder.aligned)[2] == pytest.approx(0.5, abs=AAC_BLOCKS)
    assert (load_keypoints(part).video_first, len(load_keypoints(part).video_keypoints.points)) == (2, 5)
    video = frames_of(folder.aligned)
    folder.run("--keypoints", part, "--from", 0.2, "--to", 0.7)
    np.testing.assert_array_equal(frames_of(folder.aligned), video)
    folder.run("--keypoints", part, "--from", 0.4, "--max_frame", 2)
    assert probe(folder.aligned).frames == 2


def test_a_part_of_a_keypoint_file_is_that_of_the_video(fitted):
    whole, part = fitted("--no-smooth")[1], fitted("--from", 1, "--to", 2)[1]
    assert len(part.poses) == 30
    np.testing.assert_array_equal(part.poses[3].body, whole.poses[33].body)


def test_smooth_is_for_robust_unless_told_otherwise(fitted):
    found = load_keypoints(PUPPETS).video_keypoints.points
    for flags, smooth in (((), False), (ROBUST, True), ((*ROBUST, "--no-smooth"), False), (("--smooth",), True)):
        job, one = fitted(*flags)
        assert job.smooth == smooth
        same = np.array_equal(one.poses[50].body[0], found[50, 0].astype(np.float64))
        assert same != smooth


def test_short_gaps_of_a_person_are_filled_and_what_was_found_is_saved_as_it_was(folder, capsys):
    folder.save(missing=(3, 4))
    again = folder.path / "again.npz"
    folder.run("--keypoints", folder.keypoints, "--smooth", "--save_keypoints", again)
    assert "not found" not in capsys.readouterr().out
    assert all(int(frame.max()) > 100 for frame in frames_of(folder.aligned))
    assert not load_keypoints(again).video_keypoints.scores[3].any()


def test_keypoints_jitter_less_and_hands_too():
    points, scores = (np.repeat(still, 60, axis=0) for still in dance(1, aspect=1.0))
    noisy = points + np.random.default_rng(0).normal(0, 0.003, points.shape)
    smooth = smooth_keypoints(Keypoints(noisy.astype(np.float32), scores), 1.0, 30).points
    for part in (slice(0, 17), slice(91, 133)):
        shake = [np.abs(np.diff(some[:, part], n=2, axis=0)).mean() for some in (noisy, smooth)]
        assert shake[1] < 0.6 * shake[0]


def test_what_is_wrong_is_said_and_strict_stops(folder, capsys):
    points, scores = dance(FRAMES, aspect=4 / 3)
    scores[4] = 0
    points[5] += 3
    folder.save(video_keypoints=Keypoints(points, scores))
    flags = ("--keypoints", folder.keypoints)
    assert folder.run(*flags, "--limb_scale", "trunk=0.2") == 0
    told = capsys.readouterr().out
    assert "have joints outside the picture" in told and "show nobody inside the picture" in told
    assert "not found in 1 of 8 frames" in told and "trunk" not in told.replace("by hand: trunk", "")
    with pytest.raises(UserError, match="--strict: .*not found in 1 of 8 frames") as caught:
        folder.run(*flags, "--strict", "--outfn", "strict.mp4")
    assert "\n" not in str(caught.value) and not Path("strict.mp4").exists()


def test_an_odd_limb_is_named_with_a_flag_that_mends_it(fitted):
    job, found = fitted()
    scales = found.alignment.scales | {"lower arms": 5.0}
    odd = replace(found, alignment=replace(found.alignment, scales=scales))
    (line,) = [line for line in problems(job, odd) if "lower arms" in line]
    flag, value = line.split("give ")[1].split()
    assert not [line for line in problems(*fitted(flag, value)) if "lower arms" in line]


def test_a_good_match_is_not_grumbled_at(fitted):
    assert problems(*fitted()) == problems(*fitted(*ROBUST)) == []
    assert fitted("--strict")[0].settings.strict


def test_the_preview_lies_beside_the_demo_or_where_it_is_wanted(folder):
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    beside = folder.demo.with_name("img_ref_video_dance_preview.png")
    with Image.open(beside) as preview:
        assert preview.size == (3 * 384, 2 * 512)
    beside.unlink()
    folder.run("--keypoints", folder.keypoints, "--preview", "look.png")
    assert Path("look.png").is_file() and not beside.exists()


BAD = {
    "align": (("--align", "best"), "--align is best: choose from published, robust"),
    "two measures": ((*ROBUST, "--scale_from", "video"), "leave one of the two out"),
    "align frame": (("--align_frame", "first"), "--align_frame is .first.: give auto, a whole number"),
    "no such limb": (("--limb_scale", "tail=2"), "--limb_scale has tail=2: .*the limbs are neck, "),
    "hips as published": (("--limb_scale", "hips=2"), "--limb_scale has hips=2"),
    "limb without factor": (("--limb_scale", "trunk"), "has trunk: give a factor of 0.05 to 20"),
    "limb of no size": (("--limb_scale", "trunk=0"), "has trunk=0: give a factor"),
    "limb twice": (("--limb_scale", "trunk=1,trunk=2"), "has trunk twice: leave one out"),
    "limb scale ends in a comma": (("--limb_scale", "trunk=1,"), "has an empty part"),
    "from behind the end": (("--from", 9), "--from is 9, but .*dance.mp4 lasts 0.80 seconds: give less"),
    "from negative": (("--from", -1), "--from is -1: give at least 0"),
    "to before from": (("--from", 0.5, "--to", 0.3), "no frame is left"),
    "to nothing": (("--to", 0), "--to is 0: give more than 0"),
    "align frame behind the part": (("--to", 0.5, "--align_frame", 5), "give at most 4"),
    "preview is no png": (("--preview", "look.gif"), "look.gif: end its name in .png"),
    "preview is the picture": (("--preview", "ref.png"), "ref.png is an output, but also"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name, folder):
    flags, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        folder.run("--keypoints", folder.save(), *flags)
    assert "\n" not in str(caught.value)
    assert not (folder.path / "assets").exists() or folder.outputs() == []


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        ({"video_first": 3}, (), "begins with frame 3, but 0 is needed: give --from 0.300"),
        ({"video_first": 3}, ("--from", 0.4), None),
        ({"frames": 4}, ("--from", 0.5), "ends before --from: give less"),
        ({"frames": 6}, ("--from", 0.4), "holds 2 frames, but 4 are needed: give --max_frame 2"),
        ({"limb_scale": "tail=3"}, (), "dance.npz holds a limb scale that has tail=3"),
    ],
)
def test_keypoint_files_of_a_part(folder, change, flags, message):
    files = ["--imgfn_refer", "ref.png", "--vidfn", "dance.mp4", "--keypoints", str(folder.save(**change))]
    settings = parse([*files, *map(str, flags)])
    if message is None:
        assert prepare(settings).first == 4
    else:
        with pytest.raises(UserError, match=message):
            prepare(settings)
