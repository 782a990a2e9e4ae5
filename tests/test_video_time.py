"""Pictures and sound stay together, whatever a recording's clock does: the picture that is taken when a beep sounds is
shown when it sounds in the video that the project writes."""

from fractions import Fraction

import numpy as np
import pytest
from clocked import through_the_project, write_recording
from media import frame_number, write_video

from musepose.media.damage import damaged_frames
from musepose.media.video_reader import probe, read_frames, read_frames_at

ONSET = 0.005  # seconds by which a beep's beginning is known: AAC spreads it


def steady(rate: float, count: int, start: float = 0) -> list[float]:
    return [start + number / rate for number in range(count)]


def check_together(path, folder, picture: int, beep: int = 0) -> tuple[list[int], Fraction]:
    """The beep sounds within half a frame of the picture's first frame. → numbers of the frames, rate."""
    numbers, rate, beeps = through_the_project(path, folder)
    assert abs(beeps[beep] - numbers.index(picture) / rate) <= 1 / (2 * rate) + ONSET
    return numbers, rate


RATES = [30, 25, 24, 60, 15, 12.5, 30000 / 1001, 24000 / 1001, 60000 / 1001]


@pytest.mark.parametrize("rate", RATES)
def test_a_steady_rate_is_kept_exactly(tmp_path, rate):
    """Matroska rounds times to milliseconds, and here says a wrong rate."""
    exact = Fraction(rate).limit_denominator(1001)
    path = write_recording(tmp_path / "a.mkv", steady(rate, 90), 3, [1.0], rate=exact)
    numbers, found = check_together(path, tmp_path, round(rate) if rate in (30, 25, 24, 60, 15) else round(rate + 0.01))
    assert found == exact and numbers == list(range(90)) and probe(path).resampling is None


UNEVEN = [0.0]
while UNEVEN[-1] < 3.9:  # a screen recording: bursts of 30 a second, and pauses
    UNEVEN.append(UNEVEN[-1] + (0.1333 if len(UNEVEN) % 6 == 0 else 1 / 30))


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_variable_rate_keeps_its_tempo(tmp_path, container):
    beep = UNEVEN[40]
    path = write_recording(tmp_path / "a.bin", UNEVEN, 4, [beep], container=container)
    numbers, rate = check_together(path, tmp_path, 40)
    assert rate == 30
    assert [numbers.index(n) for n in range(len(UNEVEN))] == [int(time * 30 + 0.5) for time in UNEVEN]


def test_webm_from_a_browser_has_jitter(tmp_path):
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 90)
    times = [max(0.0, time + shift) for time, shift in zip(steady(30, 90), jitter, strict=True)]
    path = write_recording(tmp_path / "a.webm", times, container="matroska", codec="libvpx", options={"g": "30"})
    info = probe(path)
    assert info.rate == 30 and abs(info.frames - 90) <= 1


def test_milliseconds_of_a_phone_are_thirty_a_second(tmp_path):
    times = [time for number, time in enumerate(steady(30, 90)) if number % 17 != 5]  # a frame in 17 is dropped
    assert probe(write_recording(tmp_path / "a.mkv", times, rate=28)).rate == 30


def test_a_late_last_frame_changes_no_rate(tmp_path):
    path = write_recording(tmp_path / "a.mp4", [*steady(30, 46), 49 / 30], container="mp4")
    info = probe(path)
    assert (info.rate, info.frames) == (30, 50)
    assert [frame_number(frame) for frame in read_frames(path)] == [*range(46), 45, 45, 45, 46]


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_a_recording_that_begins_between_key_frames(tmp_path, container):
    """Its first key frame is picture 24; the sound before it is dropped."""
    late = {"move_picture": lambda time: time if time > 0.5 else None}
    path = write_recording(tmp_path / "a.bin", steady(30, 90), 3, [2.0], container=container, **late)
    numbers, _ = check_together(path, tmp_path, 60)
    assert numbers == list(range(24, 90)) and "between key frames" in probe(path).notes[0]


def test_a_pause_under_continuous_sound_stays(tmp_path):
    times = [time if time < 1 else time + 4 for time in steady(30, 60)]
    numbers, rate = check_together(write_recording(tmp_path / "a.mkv", times, 6, [5.5]), tmp_path, 45)
    assert len(numbers) == 180 and numbers.count(29) == 121
    assert not any("clock" in note for note in probe(tmp_path / "a.mkv").notes)


def jump(seconds: float, at: float = 1.0):
    return lambda time: time if time < at - 0.001 else time + seconds


@pytest.mark.parametrize("seconds", [2, 12, 3600])
@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
def test_a_clock_that_jumps_in_both_is_bridged(tmp_path, container, seconds):
    moved = {"move_picture": jump(seconds), "move_sound": jump(seconds)}
    path = write_recording(tmp_path / "a.bin", steady(30, 90), 3, [0.5, 2.0], container=container, **moved)
    for beep, picture in enumerate((15, 60)):
        numbers, rate = check_together(path, tmp_path, picture, beep)
    assert numbers == list(range(90)) and rate == 30
    (note,) = probe(path).notes
    assert f"jumps by {seconds}" in note


def test_a_jump_where_the_two_stop_at_different_times(tmp_path):
    """The recorder stops the sound 0.2 s after the picture."""
    moved = {"move_picture": jump(60), "move_sound": jump(60, 1.2)}
    path = write_recording(tmp_path / "a.mkv", steady(30, 90), 3, [0.5, 2.0], **moved)
    numbers, _ = check_together(path, tmp_path, 60, 1)
    assert len(numbers) <= 96


@pytest.mark.parametrize("seconds, frames", [(8, 330), (12, 90), (5000, 90)])
def test_without_sound_more_than_ten_seconds_are_a_jump(tmp_path, seconds, frames):
    assert probe(write_recording(tmp_path / "a.mkv", steady(30, 90), move_picture=jump(seconds))).frames == frames


def test_the_picture_alone_jumps_while_the_sound_goes_on(tmp_path):
    """Its clock is set forward by an hour: the sound covers none of that, and goes on by its own clock."""
    path = write_recording(tmp_path / "a.mkv", steady(30, 90), 3, [2.0], move_picture=jump(3600))
    numbers, _ = check_together(path, tmp_path, 60)
    assert numbers == list(range(90))


@pytest.mark.parametrize("sound", [3.0, 2.5, 4.5])
def test_recordings_one_behind_the_other_restart_their_clock(tmp_path, sound):
    """Concatenated transport streams; the sound may be shorter or longer than the picture."""
    part = write_recording(tmp_path / "part.ts", steady(30, 90), sound, [2.0], container="mpegts")
    path = tmp_path / "a.ts"
    path.write_bytes(part.read_bytes() * 2)
    numbers, rate, beeps = through_the_project(path, tmp_path)
    assert numbers == [*range(90), *range(90)] and rate == 30
    assert beeps == pytest.approx([2, 5], abs=1 / 60 + ONSET)


def test_a_transport_stream_across_the_wrap_of_its_clock(tmp_path):
    """Its 33 bits wrap after 26.5 hours."""
    wrap = 2**33 / 90000
    path = write_recording(
        tmp_path / "a.ts",
        steady(30, 90),
        3,
        [2.0],
        container="mpegts",
        move_picture=lambda time: time + wrap - 2.4,  # the muxer adds 1.4 s
        move_sound=lambda time: time + wrap - 2.4,
    )
    numbers, _ = check_together(path, tmp_path, 60)
    assert numbers == list(range(90))


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
@pytest.mark.parametrize("lead", [0.5, -0.5])
def test_sound_that_begins_before_or_after_the_picture(tmp_path, container, lead):
    times = steady(30, 60, start=max(0.0, lead))
    late = {"move_sound": lambda time: time - min(0.0, lead)}
    beep = times[45] + min(0.0, lead)
    path = write_recording(tmp_path / "a.bin", times, 3, [beep], container=container, **late)
    assert check_together(path, tmp_path, 45)[0] == list(range(60))


@pytest.mark.parametrize("seconds", [0.8, 5.0])
def test_sound_that_ends_before_or_after_the_picture(tmp_path, seconds):
    path = write_recording(tmp_path / "a.mkv", steady(30, 60), seconds, [0.5])
    assert check_together(path, tmp_path, 15)[0] == list(range(60))


def test_sound_that_begins_after_hours_needs_no_memory(tmp_path):
    """Nor does the video get longer. Silence in one piece would be 14 GB."""
    import tracemalloc

    path = write_recording(tmp_path / "a.mp4", steady(30, 9), 1, container="mp4", move_sound=lambda time: time + 20000)
    tracemalloc.start()
    numbers, _, beeps = through_the_project(path, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers == list(range(9)) and not beeps and peak < 20e6


def test_an_hour_of_pause_needs_no_memory_at_once(tmp_path):
    """The sound goes on in large packets; frames are repeated, and made when they are asked for."""
    path = write_recording(tmp_path / "a.mkv", [0, 1 / 30, 2 / 30, 60], 61)
    info = probe(path)
    assert info.frames == 1801
    shown = read_frames_at(path, [0, 1, 2, 3, 1799, 1800])
    assert [frame_number(shown[number]) for number in sorted(shown)] == [0, 1, 2, 2, 2, 3]


def test_repeated_stamps_are_spread(tmp_path):
    """Two pictures of the same time: the second belongs between its neighbours."""
    pairs = [number // 2 / 15 for number in range(60)]
    path = write_recording(tmp_path / "a.mkv", steady(30, 60), move_picture=lambda time: pairs[round(time * 30)])
    info = probe(path)
    assert (info.frames, info.rate) == (60, 30) or (info.frames, info.rate) == (59, 30)
    assert [frame_number(frame) for frame in read_frames(path)][:59] == list(range(59))


def test_avi_has_no_times_but_an_order(tmp_path):
    path = write_video(tmp_path / "a.avi", 40, container="avi", rate=25, stream_options={"bf": "3"})  # H.264
    assert (probe(path).frames, probe(path).rate) == (40, 25)
    assert [frame_number(frame) for frame in read_frames(path)] == list(range(40))


def test_every_step_counts_frames_of_the_constant_rate(tmp_path):
    path = write_recording(tmp_path / "a.mkv", UNEVEN)
    every = [frame_number(frame) for frame in read_frames(path)]
    assert [frame_number(frame) for frame in read_frames(path, 3, 10)] == every[::3][:10]
    chosen = read_frames_at(path, [7, 50, 3, 110])
    assert {number: frame_number(frame) for number, frame in chosen.items()} == {n: every[n] for n in (7, 50, 3, 110)}
    assert damaged_frames(probe(path)) == []
