"""The page's jobs, folders and timings, without a browser and without Gradio."""

import os
import threading
import time
from pathlib import Path

import pytest
from tolerance import near

from musepose.app.folders import new_token, remove_old, safe_name, take_input
from musepose.app.jobs import DONE, FAILED, QUEUED, RUNNING, STOPPED, Job, JobQueue, JobReporter, Stage
from musepose.app.timings import Timings, Work
from musepose.utils.errors import UserError

PATIENCE = 30  # seconds; only a broken test waits so long


@pytest.fixture
def queue(tmp_path):
    return JobQueue(tmp_path, most=3)


def submitted(queue, work, visit="me", **more) -> Job:
    return queue.submit(Job(visit, "align", queue.folder(), work, **more))


def finished(job: Job) -> Job:
    end = time.monotonic() + PATIENCE
    while not job.finished:
        assert time.monotonic() < end
        time.sleep(0.01)
    return job


class Held:
    """Work that waits until it is released, stage by stage."""

    def __init__(self):
        self.entered, self.released = threading.Event(), threading.Event()

    def __call__(self, job):
        with JobReporter(job).stage("denoising", 2) as update:
            update(1)
            self.entered.set()
            assert self.released.wait(PATIENCE)
            update(2)
        return "result"


def test_one_job_runs_at_a_time_and_the_others_know_their_place(queue):
    first, second, third = (Held() for _ in range(3))
    jobs = [submitted(queue, work) for work in (first, second, third)]
    assert first.entered.wait(PATIENCE)
    assert [job.state for job in jobs] == [RUNNING, QUEUED, QUEUED]
    assert [queue.place(job) for job in jobs] == [0, 1, 2]
    assert not second.entered.is_set()
    for work in (first, second, third):
        work.released.set()
    assert [finished(job).state for job in jobs] == [DONE] * 3
    assert [job.result for job in jobs] == ["result"] * 3


def test_a_running_job_stops_at_its_next_item_and_the_next_one_starts(queue):
    held, other = Held(), Held()
    other.released.set()
    job, following = submitted(queue, held), submitted(queue, other)
    assert held.entered.wait(PATIENCE)
    queue.stop(job)
    held.released.set()
    assert (finished(job).state, job.result, job.stage.done) == (STOPPED, None, 2)
    assert finished(following).state == DONE


def test_a_waiting_job_that_is_stopped_never_runs(queue):
    held, never = Held(), Held()
    submitted(queue, held)
    waiting, last = submitted(queue, never), submitted(queue, lambda job: 1)
    queue.stop(waiting)
    assert (waiting.state, queue.place(last)) == (STOPPED, 1)
    held.released.set()
    finished(last)
    assert not never.entered.is_set()


def test_an_error_is_one_line_without_paths_of_the_machine(queue):
    def work(job):
        raise UserError(f"{job.folder}/me.png shows nobody:\n give another")

    job = finished(submitted(queue, work))
    assert (job.state, job.error) == (FAILED, "me.png shows nobody: give another")


def test_an_unexpected_error_ends_the_job_only(queue, caplog):
    job = finished(submitted(queue, lambda job: 1 / 0))
    assert (job.state, job.error) == (FAILED, "ZeroDivisionError: division by zero")
    assert "a job failed" in caplog.text  # with the traceback, for the server's owner
    assert finished(submitted(queue, lambda job: 5)).result == 5


def test_closing_stops_all_jobs_and_waits_for_the_running_one(queue):
    held = Held()
    running, waiting = submitted(queue, held), submitted(queue, held)
    assert held.entered.wait(PATIENCE)
    threading.Timer(0.1, held.released.set).start()
    queue.close()
    assert (running.state, waiting.state) == (STOPPED, STOPPED)


def test_more_jobs_than_allowed_are_refused(queue):
    held = Held()
    jobs = [submitted(queue, held) for _ in range(3)]
    with pytest.raises(UserError, match="3 jobs are waiting already"):
        submitted(queue, held)
    held.released.set()
    for job in jobs:
        finished(job)


def test_a_visit_sees_its_own_jobs(queue):
    mine, other = submitted(queue, lambda job: 1), submitted(queue, lambda job: 2, visit="you")
    assert queue.of_visit("me", "align") == [mine] and queue.of_visit("you", "align") == [other]
    assert queue.get("no such") is queue.get(None) is None
    finished(other)


def test_the_time_that_is_left():
    stage = Stage("denoising", 10)
    assert stage.left is None
    stage.done, stage.seconds, stage.started = 4, 8.0, time.monotonic() - 8
    assert 11 < stage.left <= 12


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("me.JPG", "me.jpg"),
        ("../../etc/passwd", "passwd.png"),
        ("..\\boot.ini", "boot.ini"),
        ("my photo (1): final.png", "my_photo_1_final.png"),
        (".png", "png.png"),
        ("тест.webp", "picture.webp"),
        ("x" * 300 + ".png", "x" * 60 + ".png"),
    ],
)
def test_file_names_are_made_safe(given, expected):
    assert safe_name(given, "picture.png") == expected


def test_inputs_stay_when_the_upload_is_removed(tmp_path):
    upload = tmp_path / "upload" / "me.png"
    upload.parent.mkdir()
    upload.write_text("picture")
    taken = take_input(upload, tmp_path / "job", "picture.png")
    other = take_input(upload, tmp_path / "job", "dance.mp4")
    upload.unlink()
    assert (taken.name, other.name) == ("me.png", "dance_me.png")
    assert taken.read_text() == other.read_text() == "picture"


def test_tokens_cannot_be_guessed():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100 and all(len(token) >= 22 for token in tokens)


def test_old_folders_are_removed_but_those_of_waiting_jobs_and_their_inputs(queue):
    held = Held()
    align = finished(submitted(queue, lambda job: 1))
    running, waiting = submitted(queue, held), submitted(queue, held, needs=(align.id,))
    gone, fresh, file = queue.root / "gone", queue.root / "fresh", queue.root / "timings.json"
    assert held.entered.wait(PATIENCE)
    for folder in (gone, fresh, waiting.folder):
        folder.mkdir()
    file.write_text("{}")
    link = queue.root / "link"
    link.symlink_to(fresh)
    day = 24 * 3600
    for path in (gone, running.folder, waiting.folder, align.folder, file):
        os.utime(path, (time.time() - 2 * day,) * 2)
    assert remove_old(queue.root, day, queue.active()) == ["gone"]
    assert all(path.exists() for path in (fresh, running.folder, waiting.folder, align.folder, file, link))
    held.released.set()
    finished(waiting)


def test_timings_predict_from_the_jobs_done(tmp_path):
    timings, work = Timings(tmp_path / "timings.json"), Work(2, 32, 24, 1000.0, 100.0)
    assert timings.seconds("puppets cpu", work) is None
    timings.record("puppets cpu", work, 1, 10, 2)
    assert timings.seconds("puppets cpu", work) == near(13)
    assert timings.seconds("puppets cpu", Work(2, 32, 24, 2000.0, 100.0)) == near(23)
    timings.record("puppets cpu", work, 1, 20, 2)  # the newest job counts half
    assert Timings(tmp_path / "timings.json").seconds("puppets cpu", work) == near(18)
    assert timings.seconds("puppets cuda:0", work) is None


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"denoising": "x", "decoding": 1}}', "\x00"])
def test_a_damaged_file_of_timings_is_none(tmp_path, text):
    path = Path(tmp_path, "timings.json")
    path.write_text(text)
    work = Work(1, 1, 1, 1.0, 1.0)
    assert Timings(path).seconds("a", work) is None
    Timings(path).record("a", work, 2, 3, 1)
    assert Timings(path).seconds("a", work) == near(6)
