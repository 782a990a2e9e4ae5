"""pose_align.py as a whole: a picture and a dance video in, the aligned pose video and the demo video out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dancer import Detector, dance
from media import (
    AAC_BLOCKS,
    CORNERS,
    corners,
    frame_number,
    read_sound,
    write_picture,
    write_rotated_video,
    write_video,
)
from PIL import Image
from pose_align_folder import (
    FRAMES,
    IMAGE_ASPECT,
    frames_of,
    panels,
    pose_align_folder,  # noqa: F401, a fixture
    run_script,
)

from musepose.media.side_by_side import fit
from musepose.media.video_reader import probe
from musepose.media.video_writer import VideoWriter
from musepose.pose.draw import draw_pose_map, draw_video_frame
from musepose.pose.keypoint_file import Keypoints, load_keypoints
from musepose.pose.runner import load_detector
from musepose.pose.types import to_pose
from musepose.utils.errors import UserError
from pose_align import parse
from random_models.mm_weights import tiny_files

ROOT = Path(__file__).parents[1]


def test_the_script_writes_both_videos_without_models(folder):
    folder.save()
    done = run_script(folder, "--imgfn_refer", "ref.png", "--vidfn", "dance.mp4", "--keypoints", "dance.npz")
    assert done.returncode == 0, done.stderr
    aligned, demo = probe(folder.aligned), probe(folder.demo)
    assert (aligned.width, aligned.height, aligned.frames, aligned.rate) == (576, 768, FRAMES, 10)
    assert (demo.frames, demo.rate) == (FRAMES, 10)
    assert aligned.has_audio and demo.has_audio
    assert "wrote assets/poses/align/img_ref_video_dance.mp4" in done.stdout


def test_the_script_reports_a_user_error_in_one_line_and_exits_2(folder):
    done = run_script(folder, "--imgfn_refer", "nobody.png", "--vidfn", "dance.mp4")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: nobody.png does not exist: check the path of the picture"]
    assert not done.stdout


def test_torch_is_not_imported_where_nothing_is_detected(folder):
    folder.save()
    code = (
        "import sys, pose_align; pose_align.main(sys.argv[1:]);"
        "print(sorted({'torch', 'mmdet', 'mmpose', 'mmengine', 'diffusers'} & set(sys.modules)))"
    )
    flags = ["--imgfn_refer", "ref.png", "--vidfn", "dance.mp4", "--keypoints", "dance.npz"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=folder.path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_aligned_video_shows_the_aligned_poses(folder):
    """Same proportions, another size: the first frame of the pose video must show the picture's own pose."""
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    points, scores = dance(1, aspect=IMAGE_ASPECT)
    expected = draw_video_frame(to_pose(points[0], scores[0]), (64, 48), (60, 80))
    shown = frames_of(folder.aligned)
    off = [np.abs(shown[index].astype(int) - expected).mean() for index in (0, 3)]
    assert off[0] < 1  # encoding error
    assert off[1] > 3 * off[0]  # later the dancer moves


def test_the_demo_shows_picture_and_dance_in_true_colours(folder):
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    strip = frames_of(folder.demo)
    picture = panels(strip[0])[0]
    height, width = picture.shape[:2]
    # H.264 and its range of 219 levels, in flat places.
    for row, column, colour in zip((1, 1, 7, 7), (1, 7, 1, 7), CORNERS, strict=True):
        assert np.abs(picture[row * height // 8, column * width // 8].astype(int) - colour).max() < 12
    assert [frame_number(panels(frame)[3]) for frame in strip] == list(range(FRAMES))


def test_the_demo_shows_the_poses_of_picture_and_dance_beside_them(folder):
    folder.save(missing=(4,))
    folder.run("--keypoints", folder.keypoints)
    strip = frames_of(folder.demo)
    points, scores = dance(1, aspect=IMAGE_ASPECT)
    own = panels(strip[0])[1]
    expected = fit(draw_pose_map(to_pose(points[0], scores[0]), (60, 80), 512, 720), own.shape[1], own.shape[0])
    # H.264 smears the strokes' edges; all that is drawn has a mean of more than twice that.
    assert np.abs(own.astype(int) - expected).mean() < min(1.5, expected.mean() / 2)
    assert [int(panels(frame)[4].max()) > 100 for frame in strip] == [index != 4 for index in range(FRAMES)]


def test_the_sound_is_cut_to_the_aligned_video(folder):
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    seconds = read_sound(folder.aligned)[2]
    assert seconds == pytest.approx(FRAMES / 10, abs=AAC_BLOCKS)


def test_with_a_later_align_frame_video_and_sound_start_there(folder):
    write_video(folder.video, FRAMES, rate=10, sound=0.5)  # the tone is over with frame 5
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    assert read_sound(folder.aligned)[2] == pytest.approx(0.5, abs=AAC_BLOCKS)
    folder.run("--keypoints", folder.keypoints, "--align_frame", 3)
    assert read_sound(folder.aligned)[2] == pytest.approx(0.2, abs=AAC_BLOCKS)
    assert probe(folder.aligned).frames == FRAMES - 3
    assert [frame_number(panels(frame)[3]) for frame in frames_of(folder.demo)] == [3, 4, 5, 6, 7]


def test_max_frame_limits_the_frames_and_zero_means_all(folder, capsys):
    folder.save()
    folder.run("--keypoints", folder.keypoints, "--max_frame", 5)
    assert "using 5 of 8 frames" in capsys.readouterr().out
    assert probe(folder.aligned).frames == 5
    folder.run("--keypoints", folder.keypoints, "--max_frame", 0)
    assert "using" not in capsys.readouterr().out
    assert probe(folder.aligned).frames == FRAMES


def test_frames_without_a_person_are_empty_counted_and_reported(folder, capsys):
    folder.save(missing=(2, 3, 4, 6))
    folder.run("--keypoints", folder.keypoints)
    assert "the dancer was not found in 4 of 8 frames, drawn empty: 2-4, 6" in capsys.readouterr().out
    bright = [int(frame.max()) > 100 for frame in frames_of(folder.aligned)]
    assert bright == [True, True, False, False, False, True, False, True]


def test_detected_keypoints_are_those_that_are_saved_and_give_the_same_video(folder, capsys):
    detector = folder.detect("--save_keypoints", folder.keypoints, missing=(5,))
    assert detector.calls == 1 + FRAMES
    saved = load_keypoints(folder.keypoints)
    points, scores = dance(FRAMES, (5,), aspect=4 / 3)
    np.testing.assert_array_equal(saved.video_keypoints.points, points)
    np.testing.assert_array_equal(saved.video_keypoints.scores, scores)
    first = frames_of(folder.aligned), frames_of(folder.demo)
    folder.run("--keypoints", folder.keypoints)
    np.testing.assert_array_equal(first[0], frames_of(folder.aligned))
    np.testing.assert_array_equal(first[1], frames_of(folder.demo))


def test_for_another_picture_only_the_picture_is_detected_again(folder):
    folder.save()
    Image.fromarray(corners(90, 80)).save(folder.image)
    points, scores = dance(1, aspect=90 / 80)
    detector = folder.detect("--keypoints", folder.keypoints, detector=Detector((points[0], scores[0])))
    assert detector.calls == 1
    assert probe(folder.aligned).width == 864


def test_scale_from_video_differs_where_the_align_frame_is_foreshortened(folder):
    points, scores = dance(FRAMES, aspect=4 / 3)
    points[0] = dance(1, aspect=4 / 3, arms=0.05)[0][0]
    folder.save(video_keypoints=Keypoints(points, scores))
    folder.run("--keypoints", folder.keypoints)
    as_published = frames_of(folder.aligned)
    folder.run("--keypoints", folder.keypoints, "--scale_from", "video")
    over_the_video = frames_of(folder.aligned)
    lit = [int((frames[4].max(axis=-1) > 60).sum()) for frames in (as_published, over_the_video)]
    assert lit[0] > 1.2 * lit[1]  # arms three times too long in `as_published`


def test_scale_from_video_measures_the_frames_before_the_align_frame_too(folder):
    points, scores = dance(FRAMES, aspect=4 / 3)
    points[4:] = dance(1, aspect=4 / 3, arms=0.05)[0][0]
    folder.save(video_keypoints=Keypoints(points, scores))
    folder.run("--keypoints", folder.keypoints, "--align_frame", 4)
    as_published = frames_of(folder.aligned)
    folder.run("--keypoints", folder.keypoints, "--align_frame", 4, "--scale_from", "video")
    over_the_video = frames_of(folder.aligned)
    lit = [int((frames[0].max(axis=-1) > 60).sum()) for frames in (as_published, over_the_video)]
    assert lit[0] > 1.2 * lit[1]  # with the video's lengths the arms are as long as the picture's


def test_default_inputs_are_found_from_another_folder(folder):
    settings = parse([])
    for path in (settings.imgfn_refer, settings.vidfn, settings.yolox_config, settings.dwpose_config):
        assert path.is_file() and ROOT in path.parents
    (folder.path / "assets/images").mkdir(parents=True)
    here = folder.image.rename(folder.path / "assets/images/ref.png")
    assert parse([]).imgfn_refer.resolve() == here  # the working folder has priority


def test_a_turned_dance_of_one_frame_and_a_grey_picture_work(folder):
    write_rotated_video(folder.video, frames=1)
    write_picture(folder.image, "grey", 60, 80)
    folder.save(frames=1, video_keypoints=Keypoints(*dance(1, aspect=3 / 4)))
    folder.run("--keypoints", folder.keypoints)
    assert (probe(folder.aligned).frames, probe(folder.aligned).width) == (1, 576)


def test_names_with_spaces_and_other_scripts_work(folder):
    folder.image = folder.image.rename(folder.path / "ein Bild ü.png")
    folder.video = folder.video.rename(folder.path / "踊り 1.mp4")
    folder.save()
    folder.run("--keypoints", folder.keypoints, "--outfn", "neue Ordner/Übersicht.mp4")
    assert folder.outputs() == ["assets/poses/align/img_ein Bild ü_video_踊り 1.mp4"]
    assert probe(folder.path / "neue Ordner/Übersicht.mp4").frames == FRAMES


def no_prefetch(items, depth):
    """Replaces `prefetch`: every item is computed when it is requested."""
    yield from items


def test_prefetch_does_not_change_the_frames(folder, monkeypatch):
    """Compared before encoding, because x264 itself does not always write the same bytes."""
    written = []

    class RecordingWriter(VideoWriter):
        def write(self, frame):
            written[-1].setdefault(self.path, []).append(frame.copy())
            super().write(frame)

    monkeypatch.setattr("musepose.pose.runner.VideoWriter", RecordingWriter)
    for _ in range(2):
        written.append({})
        folder.detect("--align_frame", 1, missing=(5,))
        monkeypatch.setattr("musepose.pose.runner.prefetch", no_prefetch)
        monkeypatch.setattr("musepose.pose.box_tracking.prefetch", no_prefetch)
    prefetched, plain = written
    assert prefetched.keys() == plain.keys() and len(prefetched) == 2
    for path, frames in plain.items():
        np.testing.assert_array_equal(np.stack(prefetched[path]), np.stack(frames))


class BoxCounter(Detector):
    """Counts the boxes that it is given."""

    boxes = 0

    def detect_inside(self, pictures, boxes, box_scores):
        self.boxes += len(boxes)
        return self.detect(pictures)


def test_with_det_every_people_are_searched_in_some_frames_only(folder):
    image, (points, scores) = dance(1, aspect=IMAGE_ASPECT), dance(FRAMES, aspect=4 / 3)
    detector = BoxCounter((image[0][0], image[1][0]), *zip(points, scores, strict=True))
    folder.detect("--det_every", 3, "--save_keypoints", folder.keypoints, detector=detector)
    assert (detector.calls, detector.boxes) == (1 + FRAMES, FRAMES - 3)
    np.testing.assert_array_equal(load_keypoints(folder.keypoints).video_keypoints.points, points)


def test_the_progress_bars_count_every_frame(folder, capsys):
    folder.detect("--align_frame", 2)
    bars = capsys.readouterr().err
    assert f"{FRAMES}/{FRAMES}" in bars and f"{FRAMES - 2}/{FRAMES - 2}" in bars


def test_the_mm_models_are_built_and_run_as_the_flags_say(folder):
    """Random tiny weights give random detections: the run must end with both files, or with one of two errors."""
    write_video(folder.video, 2)
    flags = [part for name, path in tiny_files(folder.path).items() for part in (f"--{name}", path)]
    flags += ["--device", "cpu", "--detect_resolution", 64, "--save_keypoints", folder.keypoints]
    try:
        status = folder.run(*flags, load=load_detector)
    except UserError as error:
        assert "no limb is visible" in str(error) or "the align frame" in str(error)
    else:
        assert status == 0
        assert probe(folder.aligned).frames == probe(folder.demo).frames == 2
    found = load_keypoints(folder.keypoints)
    assert found.video_keypoints.scores.shape == (2, 133) and found.detect_resolution == 64
    assert found.image_keypoints.scores.max() > 0.3
