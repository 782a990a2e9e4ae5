"""Several processes look for damage, each in its stretch of the pictures: what they find is what one finds."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clocked import write_recording
from media import rewrite, write_video

from musepose.inference.cases import Job, Plan
from musepose.inference.distributed_runner import find_damage
from musepose.inference.options import Settings
from musepose.media import damage, video_reader
from musepose.media.damage import Seen, UsedVideo, damaged_frames, divide, fit, judge, look
from musepose.media.video_reader import probe
from musepose.utils.errors import UserError

PICTURES = [number / 30 for number in range(60)]
KEYS = {"g": "10", "sc_threshold": "0"}


def zeros(*numbers: int):
    return lambda number, content: bytes(len(content)) if number in numbers else content


def half(*numbers: int):
    """The end of a packet is lost: FFmpeg conceals it, and says so."""
    return lambda number, content: (
        content[: len(content) // 2] + bytes(len(content) - len(content) // 2) if number in numbers else content
    )


def lost(*numbers: int):
    return lambda number, content: None if number in numbers else content


def noise(tmp_path: Path, **options: str) -> Path:
    pictures = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8) for n in range(60)]
    return write_video(tmp_path / "noise.mp4", pictures, stream_options=KEYS | options)


def recording(tmp_path: Path, **changes) -> Path:
    name = "a.webm" if changes.get("container") == "webm" else "a.mkv"
    return write_recording(tmp_path / name, PICTURES, **{"options": KEYS} | changes)


FILES = {
    "whole": lambda folder: noise(folder),
    "a picture": lambda folder: rewrite(noise(folder), zeros(14)),
    "the end of a picture": lambda folder: rewrite(noise(folder, bf="0"), half(14)),
    "a key picture": lambda folder: rewrite(noise(folder), zeros(30)),
    "the end of a key picture": lambda folder: rewrite(noise(folder, bf="0"), half(30)),
    "all key pictures but the first": lambda folder: rewrite(noise(folder), zeros(10, 20, 30, 40, 50)),
    "the last before a key picture": lambda folder: rewrite(noise(folder, bf="0"), zeros(29, 39)),
    "lost pictures": lambda folder: rewrite(recording(folder), lost(14, 29, 30, 45)),
    "the first pictures": lambda folder: recording(folder, damaged=[0, 12]),
    "every second of key pictures": lambda folder: rewrite(noise(folder, g="1"), zeros(*range(1, 60, 2))),
    "open groups": lambda folder: rewrite(noise(folder, **{"x264-params": "open-gop=1"}), half(15, 32)),
    "refreshed without key pictures": lambda folder: noise(folder, **{"x264-params": "intra-refresh=1"}),
    "VP9": lambda folder: rewrite(
        recording(folder, container="webm", codec="libvpx-vp9", options={"g": "12", "lag-in-frames": "0"}),
        zeros(17, 18),
    ),
    "a file that does not allow seeking": lambda folder: rewrite(
        write_video(folder / "a.ts", 60, container="mpegts", stream_options=KEYS | {"bf": "0"}), half(14)
    ),
    "pictures at variable times": lambda folder: rewrite(
        write_video(folder / "a.mp4", 30, times=[n * 33 + n % 3 * 10 for n in range(30)]), zeros(12)
    ),
}


def outcome(path: Path, count: int, frames: int | None = None) -> list[int] | str | None:
    """What `count` processes find, or the error; None: their stretches do not fit."""
    try:
        if count == 1:
            return damaged_frames(probe(path), frames)
        video = UsedVideo.of(probe(path), frames)
        shares = divide([video], count)
        assert [number for share in shares for _, part in share for number in part] == list(range(video.pictures))
        seen = [look(video, part) for share in shares for _, part in share]
        return judge(video, seen) if fit(seen) else None
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
def test_stretches_find_what_one_process_finds(tmp_path, name):
    path = FILES[name](tmp_path)
    for frames in (None, 37):
        alone = outcome(path, 1, frames)
        assert bool(alone) == (name not in ("whole", "refreshed without key pictures", "the first pictures"))
        for count in (3, 64):
            assert outcome(path, count, frames) == alone, (frames, count)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_stretches_find_any_damage_of_the_file(tmp_path, container):
    """Bytes anywhere in the pictures, from one to a run; where stretches do not fit, one process decodes all."""
    path = write_video(tmp_path / "a.bin", 60, container=container, stream_options=KEYS | {"bf": "2"})
    whole, found = path.read_bytes(), []
    for seed in range(24):
        random = np.random.default_rng(seed)
        data, run = bytearray(whole), int(random.choice([1, 20, 400]))
        start = int(random.integers(len(data) // 10, len(data) * 9 // 10 - run))
        data[start : start + run] = random.integers(0, 256, run, np.uint8).tobytes() if seed % 2 else bytes(run)
        path.write_bytes(data)
        together = outcome(path, 3)
        if together is not None:
            found.append(together)
            assert together == outcome(path, 1), seed
    assert len(found) > 18 and sum(map(bool, found)) > 6


def test_a_process_decodes_little_more_than_its_stretch(tmp_path, monkeypatch):
    path = noise(tmp_path)
    decoded = []
    decode = video_reader.decode_stored

    def counted(*arguments):
        for number, picture in decode(*arguments):
            decoded.append(number)
            yield number, picture

    for module in (damage, video_reader):
        monkeypatch.setattr(module, "decode_stored", counted)
    video = UsedVideo.of(probe(path))
    for share in divide([video], 3):
        ((_, part),) = share
        decoded.clear()
        look(video, part)
        assert set(part) <= set(decoded) <= set(range(part.start, part.stop + 1))


def test_videos_are_divided_together():
    """Each begins at a cut of its own; short ones go to one process each."""
    long, short = SimpleNamespace(pictures=100, cuts=list(range(0, 100, 10))), SimpleNamespace(pictures=20, cuts=[0])
    assert divide([long], 2) == [[(0, range(0, 50))], [(0, range(50, 100))]]
    assert divide([long, short, short], 2) == [
        [(0, range(0, 70))],
        [(0, range(70, 100)), (1, range(20)), (2, range(20))],
    ]
    assert divide([short] * 3, 3) == [[(place, range(20))] for place in range(3)]
    assert divide([short], 3) == [[], [], [(0, range(20))]]


@pytest.mark.parametrize(
    ("next_whole", "damaged", "fits"),
    [(True, (), True), (False, (10,), True), (True, (10,), False), (False, (), False)],
)
def test_stretches_fit_if_they_agree_about_the_picture_between_them(next_whole, damaged, fits):
    assert fit([Seen(range(0, 10), (), next_whole), Seen(range(10, 20), damaged, False)]) == fits


class Alone:
    """The only process of a group."""

    rank, count = 0, 1

    def gather(self, value):
        return [value]

    def together(self, work):
        return work()


def plan_of(*paths: Path) -> Plan:
    jobs = [
        Job(Path("r.png"), probe(path), 60, Fraction(30), None, Path(f"{n}.mp4"), (64, 64))
        for n, path in enumerate([*paths, paths[0]])
    ]
    return Plan(Settings(), {}, tuple(jobs))


def test_what_does_not_fit_is_decoded_by_one_process(tmp_path, monkeypatch):
    """As if the key picture in the middle looked damaged to who comes from before it only."""
    from musepose.inference import distributed_runner

    path, looked = rewrite(noise(tmp_path), zeros(14)), []

    def doubtful(video, pictures):
        looked.append(pictures)
        return Seen(pictures, look(video, pictures).damaged, False)

    monkeypatch.setattr(distributed_runner, "look", doubtful)
    monkeypatch.setattr(distributed_runner, "divide", lambda videos, count: [[(0, range(30)), (0, range(30, 60))]])
    plan = find_damage(plan_of(path), Alone())
    assert looked == [range(30), range(30, 60), range(60)]
    assert {job.damaged for job in plan.jobs} == {tuple(damaged_frames(probe(path)))}
