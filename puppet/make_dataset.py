"""Write puppet videos, their true keypoints and their pose videos, in the format of prepare_dataset.py.

    python -m puppet.make_dataset --output data/stills --first 0 --scenes 3200 --frames 6 --spread
    python -m puppet.make_dataset --output data/clips --first 500000 --scenes 200 --frames 48

The first kind is for stage 1: moments spread over the dance, stored as a video of one frame a second, which is a mere
name for its rate. The second is for stage 2: frames in a row. A run that was cut short goes on where it stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from musepose.cli.entry import run_script
from musepose.cli.flags import parse_options
from musepose.media.video_writer import VideoWriter
from musepose.pose.draw import draw_video_frame, video_size
from musepose.pose.keypoint_file import Keypoints, Source
from musepose.training.data.clip_keypoints import ClipKeypoints, save_clip_keypoints
from musepose.training.data.manifest import Clip, save_manifest
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file
from musepose.utils.options import option
from musepose.utils.progress import progress_bar
from musepose.utils.workers import run_jobs
from puppet.scenes import SPAN, make_scene
from puppet.world import HELD_OUT, Actor, Person, Picture, render

SIZE = 384  # pixels, twice what is trained on: pictures are made smaller on the way, as a user's are
RATE = 15  # frames a second
SPREAD_RATE = 1
CRF = 14  # next to no loss
MOMENTS = 6  # a stream of random numbers of its own


@dataclass(frozen=True)
class Kind:
    """What is the same for all videos of a folder."""

    frames: int
    spread: bool  # at random moments, instead of in a row

    @property
    def rate(self) -> int:
        return SPREAD_RATE if self.spread else RATE

    def moments(self, number: int) -> np.ndarray:
        """When the frames of scene `number` are taken: (frames,) seconds, rising."""
        if self.spread:
            return np.sort(np.random.default_rng([MOMENTS, number]).uniform(0, SPAN, self.frames))
        return np.arange(self.frames) / RATE


def scene_clip(folder: Path, number: int, kind: Kind) -> Clip:
    """The clip of a scene, written or not."""
    name = f"scene-{number:07d}"
    return Clip(
        video=folder / "videos" / f"{name}.mp4",
        poses=folder / "poses" / f"{name}.mp4",
        keypoints=folder / "keypoints" / f"{name}.npz",
        frames=kind.frames,
        rate=Fraction(kind.rate),
        width=SIZE,
        height=SIZE,
    )


def pictures(number: int, kind: Kind) -> list[Picture]:
    """The frames of a scene, each with its one person."""
    scene = make_scene(number, SIZE)
    return [
        render(
            [Actor(scene.character, scene.dance.at(scene.start + moment), scene.placement)],
            SIZE,
            SIZE,
            scene.stage,
            supersample=1,  # shrinking to the size trained on smooths the edges
        )
        for moment in kind.moments(number)
    ]


def write_scene(number: int, folder: Path, kind: Kind) -> Clip:
    """Write the three files of a scene, or leave them as they are if all are there."""
    clip = scene_clip(folder, number, kind)
    if all(path.exists() for path in (clip.video, clip.poses, clip.keypoints)):
        return clip
    frames = pictures(number, kind)
    people = [frame.people[0] for frame in frames]
    with VideoWriter(clip.video, SIZE, SIZE, kind.rate, crf=CRF) as writer:
        for frame in frames:
            writer.write(frame.image)
    _write_poses(clip.poses, people, kind.rate)
    points = np.stack([person.keypoints for person in people])
    scores = np.stack([person.visible for person in people])
    save_clip_keypoints(clip.keypoints, ClipKeypoints(Source.of(clip.video), Keypoints(points, scores), 0))
    return clip


def _write_poses(path: Path, people: Sequence[Person], rate: int) -> None:
    """As pose_align.py draws a dance video that is aligned to a picture of its own size."""
    size = (SIZE, SIZE)
    with VideoWriter(path, *video_size(*size), rate) as writer:
        for person in people:
            writer.write(draw_video_frame(person.pose, size, size))


def _worker(number: int, folder: Path, kind: Kind):
    cv2.setNumThreads(1)  # the processes share the cores among themselves
    return partial(write_scene, folder=folder, kind=kind)


def make_dataset(folder: Path, numbers: Sequence[int], kind: Kind, workers: int) -> list[Clip]:
    """Write the scenes and `meta.json`. Raises UserError where the folder holds videos of another kind."""
    _claim(folder, kind)
    make_job = partial(_worker, folder=folder, kind=kind)
    done = run_jobs(make_job, numbers, workers)
    clips = list(progress_bar(done, total=len(numbers), unit="scene", smoothing=0.05))
    clips.sort(key=lambda clip: clip.video)
    save_manifest(folder / "meta.json", clips)
    return clips


def _claim(folder: Path, kind: Kind) -> None:
    """Note in the folder what kind of videos it holds, so that it never gets a mixture."""
    note, wanted = folder / "kind.json", json.dumps(asdict(kind))
    if note.exists():
        if note.read_text(encoding="utf-8") != wanted:
            raise UserError(f"{folder} holds videos with other --frames or --spread: choose another --output")
        return
    with complete_file(note) as partial_path:
        partial_path.write_text(wanted, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of puppet.make_dataset."""

    output: Path = option(help="folder to write to", metavar="DIR")
    first: int = option(0, "number of the first scene", low=0)
    scenes: int = option(help="how many scenes, one video each", low=1)
    frames: int = option(help="frames of a video", low=1)
    spread: bool = option(False, f"at random moments, instead of {RATE} a second")
    workers: int = option(2, "processes", low=1)
    held_out: bool = option(False, f"allow scenes from {HELD_OUT} on, kept for judging")


def parse(arguments: Sequence[str] | None) -> Options:
    options = parse_options(Options, "-m puppet.make_dataset", __doc__, arguments)
    if not options.spread and options.frames > SPAN * RATE:
        most = int(SPAN * RATE)
        raise UserError(f"--frames is {options.frames}, and a scene has {most}: give at most that, or --spread")
    if options.first + options.scenes > HELD_OUT and not options.held_out:
        raise UserError(f"scenes from {HELD_OUT} on are kept for judging: take smaller numbers, or give --held_out")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    kind = Kind(options.frames, options.spread)
    make_dataset(options.output, range(options.first, options.first + options.scenes), kind, options.workers)
    return 0


if __name__ == "__main__":
    run_script(main)
