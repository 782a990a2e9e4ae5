"""What numbers frames records how pictures became frames: files of before count only where that changes nothing."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from clocked import write_recording
from media import write_picture, write_video
from test_prepare_dataset import Folder

from musepose.media.video_reader import picture_numbers, probe
from musepose.pose.job import prepare
from musepose.pose.keypoint_file import KeypointFile, Keypoints, Source, load_keypoints, save_keypoints
from musepose.pose.options import Settings
from musepose.training.data import video_preparation
from musepose.training.data.cache import FrameCache
from musepose.training.data.manifest import Clip, check_clip_files, load_manifest, save_manifest
from musepose.utils.errors import UserError

VARIABLE = [0, 1 / 30, 2 / 30, 6 / 30, 7 / 30, 8 / 30]  # 6 pictures, 9 frames


def keypoints(count: int) -> Keypoints:
    return Keypoints(np.full((count, 133, 2), 0.5, np.float32), np.ones((count, 133), np.float32))


def job_with_keypoints(folder, video, rows: int, resampling: str | None):
    """The checked job with a keypoint file of so many rows that records `resampling`."""
    picture = write_picture(folder / "ref.png", "rgb")
    content = KeypointFile(Source.of(picture), keypoints(1), Source.of(video), keypoints(rows), 512)
    save_keypoints(folder / "k.npz", replace(content, resampling=resampling))
    outputs = {"outfn": folder / "demo.mp4", "outfn_align_pose_video": folder / "pose.mp4"}
    return prepare(Settings(imgfn_refer=picture, vidfn=video, keypoints=folder / "k.npz", **outputs))


def test_keypoints_of_counted_pictures_are_refused_where_time_changes_them(tmp_path):
    video = write_recording(tmp_path / "a.mkv", VARIABLE)
    with pytest.raises(UserError, match="by counting its pictures, which are placed by time now: leave --keypoints"):
        job_with_keypoints(tmp_path, video, 9, None)
    resampling = probe(video).resampling
    assert job_with_keypoints(tmp_path, video, 9, resampling).frames == 9
    assert load_keypoints(tmp_path / "k.npz").resampling == resampling


def test_keypoints_of_a_steady_video_stay_valid(tmp_path):
    video = write_video(tmp_path / "a.mp4", 6)
    assert job_with_keypoints(tmp_path, video, 6, None).known.resampling is None
    with np.load(tmp_path / "k.npz") as arrays:
        assert "resampling" not in arrays  # earlier versions read the file


def test_openpose_json_of_counted_pictures_is_placed_by_time(tmp_path):
    video = write_recording(tmp_path / "a.mkv", VARIABLE)
    assert picture_numbers(probe(video)) == [0, 1, 2, 2, 2, 2, 3, 4, 5]
    frames = [{"people": [{"pose_keypoints_2d": [x, 24, 1] * 18}]} for x in (10, 11, 12, 13, 14, 15)]
    (tmp_path / "k.json").write_text(json.dumps(frames))
    picture = write_picture(tmp_path / "ref.png", "rgb")
    (tmp_path / "p.json").write_text(json.dumps(frames[0]))
    outputs = {"outfn": tmp_path / "demo.mp4", "outfn_align_pose_video": tmp_path / "pose.mp4"}
    given = {"keypoints": tmp_path / "k.json", "picture_keypoints": tmp_path / "p.json"}
    job = prepare(Settings(imgfn_refer=picture, vidfn=video, **given, **outputs))
    x = [round(people.keypoints[0, 0, 0] * 64) for people in job.video_people]
    assert x == [10, 11, 12, 12, 12, 12, 13, 14, 15]


def clip_of(folder) -> Clip:
    video = write_recording(folder / "a.mkv", VARIABLE)
    info = probe(video)
    poses = write_video(folder / "poses.mp4", info.frames)
    return Clip(video, poses, None, info.frames, info.rate, info.width, info.height, info.resampling)


def test_a_manifest_records_the_resampling(tmp_path):
    clip = clip_of(tmp_path)
    save_manifest(tmp_path / "meta.json", [clip])
    assert load_manifest([tmp_path / "meta.json"]) == [clip]
    check_clip_files([clip])
    with pytest.raises(UserError, match="by counting its pictures, which are placed by time now.*prepare_dataset.py"):
        check_clip_files([replace(clip, resampling=None)])


def test_latents_of_counted_pictures_are_not_found_again(tmp_path):
    data = SimpleNamespace(cache_latents=tmp_path, train_width=64, train_height=48)
    clip = clip_of(tmp_path)
    names = [
        FrameCache([one], SimpleNamespace(data=data), "x").path(0, "latents")
        for one in (clip, replace(clip, resampling=None))
    ]
    assert names[0] != names[1]


def test_prepared_videos_of_counted_pictures_are_made_anew(tmp_path):
    folder = Folder(tmp_path)
    write_recording(folder.videos / "b.mkv", VARIABLE)
    assert folder.run() == 0
    asked, record = len(folder.asked()), folder.output / "records" / "b.json"
    content = json.loads(record.read_text())
    assert content["frames"] == 9 and content.pop("resampling")
    record.write_text(json.dumps(content))
    assert folder.run() == 0
    assert len(folder.asked()) == asked + 9  # only this video


def test_records_of_steady_videos_stay_valid(tmp_path):
    folder = Folder(tmp_path)
    assert folder.run() == 0
    asked = len(folder.asked())
    for record in (folder.output / "records").rglob("*.json"):
        content = json.loads(record.read_text())
        assert content.pop("resampling") is None
        record.write_text(json.dumps(content))
    assert folder.run() == 0 and len(folder.asked()) == asked


def test_whatever_a_broken_video_raises_the_others_are_prepared(tmp_path, monkeypatch):
    folder, measure = Folder(tmp_path), video_preparation.probe

    def fails(path):
        if path.name == "a.mp4":
            raise ZeroDivisionError("a rate of 0")
        return measure(path)

    monkeypatch.setattr(video_preparation, "probe", fails)
    assert folder.run() == 0
    assert "cannot be used (ZeroDivisionError: a rate of 0)" in json.dumps(folder.broken())
    assert [clip.video.name for clip in folder.clips()] == ["take.2.mov"]
