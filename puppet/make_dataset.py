"""Write puppet videos, ground-truth keypoints and pose videos in the format of prepare_dataset.py.

    python -m puppet.make_dataset --output data/stills --first 0 --scenes 9600 --frames 6 --spread
    python -m puppet.make_dataset --output data/clips --first 500000 --scenes 120 --frames 32

The first kind is for stage 1: frames at random moments of the dance, stored at a nominal rate of one frame per second.
The second is for stage 2: consecutive frames. An interrupted run continues when it is started again.
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

SIZE = 384  # pixels, twice the training size: frames are downsampled in training, like real data
RATE = 15  # frames per second
SPREAD_RATE = 1
CRF = 14  # almost lossless
MOMENTS = 6  # RNG stream of the random moments


@dataclass(frozen=True)
class Kind:
    """The settings shared by all videos of a folder."""

    frames: int
    spread: bool  # at random moments instead of consecutive

    @property
    def rate(self) -> int:
        return SPREAD_RATE if self.spread else RATE

    def moments(self, number: int) -> np.ndarray:
        """Times of the frames of scene `number`: (frames,) seconds, ascending."""
        if self.spread:
            return np.sort(np.random.default_rng([MOMENTS, number]).uniform(0, SPAN, self.frames))
        return np.arange(self.frames) / RATE


def scene_clip(folder: Path, number: int, kind: Kind) -> Clip:
    """The manifest entry of a scene; its files need not exist yet."""
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


def render_frames(number: int, kind: Kind) -> list[Picture]:
    """Render the frames of a scene, each with one person."""
    scene = make_scene(number, SIZE)
    return [
        render(
            [Actor(scene.character, scene.dance.at(scene.start + moment), scene.placement)],
            SIZE,
            SIZE,
            scene.stage,
            supersample=1,  # downsampling to the training size smooths the edges
        )
        for moment in kind.moments(number)
    ]


def write_scene(number: int, folder: Path, kind: Kind) -> Clip:
    """Write the three files of a scene, unless all exist."""
    clip = scene_clip(folder, number, kind)
    if all(path.exists() for path in (clip.video, clip.poses, clip.keypoints)):
        return clip
    frames = render_frames(number, kind)
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
    """Write the pose video as pose_align.py draws it for a reference image of the same size."""
    size = (SIZE, SIZE)
    with VideoWriter(path, *video_size(*size), rate) as writer:
        for person in people:
            writer.write(draw_video_frame(person.pose, size, size))


def _worker(number: int, folder: Path, kind: Kind):
    cv2.setNumThreads(1)  # one thread per process
    return partial(write_scene, folder=folder, kind=kind)


def make_dataset(folder: Path, numbers: Sequence[int], kind: Kind, workers: int) -> list[Clip]:
    """Write the scenes and the manifest `meta.json`. Raises UserError: the folder holds videos of another kind."""
    _check_kind(folder, kind)
    make_job = partial(_worker, folder=folder, kind=kind)
    done = run_jobs(make_job, numbers, workers)
    clips = list(progress_bar(done, total=len(numbers), unit="scene", smoothing=0.05))
    clips.sort(key=lambda clip: clip.video)
    save_manifest(folder / "meta.json", clips)
    return clips


def _check_kind(folder: Path, kind: Kind) -> None:
    """Compare with the folder's kind.json, or write it. Raises UserError: the folder holds videos of another kind."""
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
    frames: int = option(help="frames per video", low=1)
    spread: bool = option(False, f"take frames at random moments instead of {RATE} per second")
    workers: int = option(2, "processes", low=1)
    held_out: bool = option(False, f"allow scenes from {HELD_OUT} on, reserved for evaluation")


def parse(arguments: Sequence[str] | None) -> Options:
    options = parse_options(Options, "-m puppet.make_dataset", __doc__, arguments)
    if not options.spread and options.frames > SPAN * RATE:
        most = int(SPAN * RATE)
        raise UserError(f"--frames is {options.frames}, a scene has {most}: give at most that, or --spread")
    if options.first + options.scenes > HELD_OUT and not options.held_out:
        raise UserError(f"scenes from {HELD_OUT} on are kept for evaluation: take smaller numbers, or give --held_out")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    kind = Kind(options.frames, options.spread)
    make_dataset(options.output, range(options.first, options.first + options.scenes), kind, options.workers)
    return 0


if __name__ == "__main__":
    run_script(main)
