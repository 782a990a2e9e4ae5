"""Hidden files of a job that several processes share."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from musepose.inference.cases import Job
from musepose.inference.job_parts import JobParts, missing_stretches, remove_parts
from musepose.inference.options import Settings
from musepose.inference.record import with_records
from musepose.media.segments import SEGMENT_FRAMES
from musepose.media.video_reader import VideoInfo
from musepose.utils.errors import UserError


@pytest.fixture
def job(tmp_path) -> Job:
    for name in ("ref.png", "pose.mp4", "weights.pth"):
        (tmp_path / name).write_text("content")
    pose = VideoInfo(tmp_path / "pose.mp4", 8, 8, 20, Fraction(15), False)
    return Job(tmp_path / "ref.png", pose, 10, Fraction(15), None, tmp_path / "result.mp4", (64, 64))


def parts(job: Job, **changes) -> JobParts:
    weights = {"unet": job.reference.with_name("weights.pth")}
    return JobParts(*with_records([job], replace(Settings(), **changes), weights))


def finish(made: JobParts, frames: range) -> None:
    stretch = made.job_of(frames)
    stretch.result.write_text("video")
    stretch.comparison.write_text("video")


def test_finished_stretches_have_both_videos(job):
    made = parts(job)
    assert made.finished() == []
    finish(made, range(5, 10))
    finish(made, range(0, 3))
    made.job_of(range(3, 5)).result.write_text("video")
    made.job_of(range(0, 3)).result.with_name(f"{made.job_of(range(0, 3)).result.stem}-12345678.part").write_text("")
    assert made.finished() == [range(0, 3), range(5, 10)]
    assert all(path.name.startswith(".") for path in job.result.parent.glob("*.part"))


@pytest.mark.parametrize("change", ["settings", "weights", "picture", "poses", "length"])
def test_other_pictures_have_other_parts(job, change):
    finish(parts(job), range(0, 3))
    other, changes = job, {}
    if change == "settings":
        changes = {"seed": 1}
    elif change == "length":
        other = replace(job, frames=9)
    else:
        name = {"weights": "weights.pth", "picture": "ref.png", "poses": "pose.mp4"}[change]
        job.reference.with_name(name).write_text("other content")
    assert parts(other, **changes).finished() == []
    parts(other, **changes).remove_others()
    assert not list(job.result.parent.glob(".*"))


def test_settings_that_change_no_picture_keep_the_parts(job):
    finish(parts(job), range(0, 3))
    same = parts(job, output=job.result.parent, device="cuda:3", vram="low", split="frames", no_audio=True)
    assert same.finished() == [range(0, 3)]


def test_files_count_by_content_and_the_sound_not_at_all(job):
    finish(parts(job), range(0, 3))
    for name in ("weights.pth", "ref.png", "pose.mp4"):
        os.utime(job.reference.with_name(name), (1, 1))
    assert parts(replace(job, audio=job.pose.path)).finished() == [range(0, 3)]


def test_latents(job):
    made, latents = parts(job), torch.arange(6.0).reshape(3, 2, 1, 1)
    assert not made.has_latents()
    made.save_latents(latents)
    assert made.has_latents() and made.load_latents(range(3)).equal(latents)
    assert made.load_latents(range(1, 2)).equal(latents[1:2])
    made.latents.write_bytes(made.latents.read_bytes()[:-3])
    with pytest.raises(UserError, match="cannot be read .*: delete it and start again"):
        made.load_latents(range(1))
    assert not made.has_latents() and not made.latents.exists()


def test_all_parts_of_a_job_are_removed_and_no_other_files(job):
    finish(parts(job), range(0, 3))
    parts(job, seed=5).save_latents(torch.zeros(1))
    other = replace(job, result=Path(job.result.parent, "result2.mp4"))
    finish(parts(other), range(0, 3))
    remove_parts(job)
    assert parts(other).finished() == [range(0, 3)]
    assert len(list(job.result.parent.glob(".*"))) == 2


def test_missing_frames_are_divided_evenly():
    """Consecutive ones for each process, around the finished stretches, in pieces of bounded length."""
    assert missing_stretches(10, [], 2) == [[range(0, 5)], [range(5, 10)]]
    assert missing_stretches(10, [range(0, 5)], 2) == [[range(5, 7)], [range(7, 10)]]
    assert missing_stretches(10, [range(2, 4), range(6, 8)], 3) == [
        [range(0, 2)],
        [range(4, 6)],
        [range(8, 10)],
    ]
    assert missing_stretches(2, [range(0, 2)], 2) == [[], []]
    assert missing_stretches(1, [], 3) == [[], [], [range(0, 1)]]
    long = missing_stretches(2 * SEGMENT_FRAMES + 1, [], 1)[0]
    assert [len(one) for one in long] == [SEGMENT_FRAMES, SEGMENT_FRAMES, 1]
