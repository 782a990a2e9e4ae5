"""The pose stage: frames per second compared with mm's own calls, the error of `--det_every`, memory by length."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.measure import ROOT, Table, median_times, peak_memory, with_speedups

DETECTOR = {
    "yolox_config": "configs/puppet/yolox.py",
    "yolox_ckpt": "pretrained_weights/puppet/dwpose/yolox.pth",
    "dwpose_config": "configs/puppet/dwpose.py",
    "dwpose_ckpt": "pretrained_weights/puppet/dwpose/dwpose.pth",
}
DANCE = ROOT / "assets/videos/dance.mp4"
FULL_SIZE_FRAMES = 4
EVERY = (1, 2, 4, 8)
DANCERS, CLIP_FRAMES, SIDE, RATE = 8, 60, 512, 30
SHORT, LONG = 300, 3000  # frames


def pose_stage() -> Table:
    """Frames per second of detection and of pose_align.py as a whole: mm's calls frame by frame against ours."""
    from musepose.media.video_reader import read_frames
    from musepose.pose.box_tracking import find_people
    from musepose.pose.detectors.dwpose.detector import PoseDetector

    frames = list(read_frames(DANCE))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, files, some in (
            ("puppets' models", _puppet_files(), frames),
            ("full-size models, random weights", _full_size_files(Path(folder)), frames[:FULL_SIZE_FRAMES]),
        ):
            theirs, ours = mm_calls(files), PoseDetector(**files)
            variants = {
                "`inference_detector` and `inference_topdown`, frame by frame": lambda f=some, w=theirs: [*map(w, f)],
                "`PoseDetector`, frame by frame": lambda f=some, w=ours: [*map(w, f)],
                "`find_people`, in batches": lambda f=some, w=ours: list(find_people(w, f)),
                "`find_people`, every 4th": lambda f=some, w=ours: list(find_people(w, f, 4)),
            }
            rows += _rates(f"{name}: ", median_times(variants), len(some))
        run = cache(lambda: PoseDetector(**_puppet_files()))
        variants = {
            "without prefetch": lambda: _without_prefetch(lambda: _align(Path(folder), run())),
            "with prefetch": lambda: _align(Path(folder), run()),
        }
        rows += _rates("`pose_align.py`, puppets' models: ", median_times(variants), len(frames))
    return Table("Pose stage", ("variant", "frames per second", "times the first"), rows)


def det_every() -> Table:
    """Keypoint error and speed of `--det_every N`, on held-out puppets."""
    from musepose.pose.box_tracking import find_people
    from musepose.pose.detectors.dwpose.detector import PoseDetector
    from musepose.pose.person_tracking import follow
    from musepose.pose.runner import gather_keypoints

    detector, clips = PoseDetector(**_puppet_files()), [_clip(n) for n in range(DANCERS)]
    found, detections = {}, {}

    def detect_all(every: int) -> None:
        with mock.patch.object(detector, "detect", side_effect=detector.detect) as detect:
            found[every] = [gather_keypoints(follow(find_people(detector, frames, every))) for frames, *_ in clips]
        detections[every] = sum(len(call.args[0]) for call in detect.call_args_list)

    seconds = median_times({every: lambda n=every: detect_all(n) for every in EVERY})
    frames = DANCERS * CLIP_FRAMES
    rows = []
    for every in EVERY:
        from_truth, from_first, reported = [], [], []
        for (_, points, visible), mine, base in zip(clips, found[every], found[EVERY[0]], strict=True):
            torso = np.linalg.norm(points[:, [5, 6]].mean(1) - points[:, [11, 12]].mean(1), axis=-1)[:, None]
            shown, base_shown = mine.scores > 0.3, base.scores > 0.3
            from_truth.append((np.linalg.norm(mine.points - points, axis=-1) / torso)[shown & visible])
            from_first.append((np.linalg.norm(mine.points - base.points, axis=-1) / torso)[shown & base_shown])
            reported.append(shown[visible])
        cells = [f(100 * np.concatenate(d)) for d in (from_truth, from_first) for f in (np.mean, _percentile_95)]
        share = 100 * float(np.concatenate(reported).mean())
        rows.append((every, *map(float, cells), share, detections[every], frames / seconds[every]))
    columns = ("N", "mean", "95th percentile", "from N = 1: mean", "95th percentile", "points reported", "YOLOX calls")
    return Table(
        "`--det_every N`",
        (*columns, "frames per second"),
        rows,
        (
            f"{DANCERS} held-out puppets, {CLIP_FRAMES} frames each at {RATE} per second, {SIDE} x {SIDE}. Distances "
            "of visible keypoints from the ground truth, and from those of N = 1, in per cent of the torso length; "
            "points reported, in per cent of the visible ones. Detection alone, frames in memory.",
        ),
    )


def pose_memory() -> Table:
    """Peak resident memory of pose_align.py for a video of 300 frames and one of 3,000."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in (SHORT, LONG):
            video = Path(folder) / f"{frames}.mp4"
            _write_looped(video, frames)
            flags = [part for name, path in DETECTOR.items() for part in (f"--{name}", path)]
            flags += ["--vidfn", str(video), "--max_frame", "0", "--outfn", f"{folder}/demo.mp4"]
            flags += ["--outfn_align_pose_video", f"{folder}/aligned.mp4", "--device", "cpu"]
            peak, seconds = peak_memory(["pose_align.py", *flags])
            rows.append((frames, peak, peak / rows[0][1] if rows else 1.0, frames / seconds))
    title = f"Memory of `pose_align.py`, puppets' models, {SIDE} x {SIDE}"
    return Table(
        title, ("frames", "resident peak, MiB", "times the first", "frames per second, start-up included"), rows
    )


def mm_calls(files: dict[str, Path]) -> Callable[[np.ndarray], list]:
    """Per-image detection with mmdet's and mmpose's public functions, with the same models."""
    from musepose.pose.detectors.dwpose import mm_compat
    from musepose.pose.detectors.dwpose.detector import _Network, resize_for_detection
    from musepose.pose.detectors.dwpose.nms import select_people

    mm_compat.prepare()
    with mm_compat.quiet():
        from mmdet.apis import inference_detector
        from mmpose.apis import inference_topdown

    networks = [_Network(scope, files[f"{part}_config"]) for scope, part in (("mmdet", "yolox"), ("mmpose", "dwpose"))]
    for network, part in zip(networks, ("yolox", "dwpose"), strict=True):
        network.model.load_state_dict(network.read(Path(files[f"{part}_ckpt"])))
        network.model.cfg = network.config
    yolox, dwpose = networks
    dwpose.model.dataset_meta = dwpose.dataset_meta()

    def call(rgb: np.ndarray) -> list:
        bgr = np.ascontiguousarray(resize_for_detection(rgb, 512)[..., ::-1])
        with yolox.config_errors(), mm_compat.quiet():
            found = inference_detector(yolox.model, bgr).pred_instances.cpu().numpy()
        persons = select_people(found.bboxes, found.scores, found.labels)
        with dwpose.config_errors(), mm_compat.quiet():
            return inference_topdown(dwpose.model, bgr, found.bboxes[persons])

    return call


def _puppet_files() -> dict[str, Path]:
    return {name: ROOT / path for name, path in DETECTOR.items()}


def _full_size_files(folder: Path) -> dict[str, Path]:
    from random_models.mm_weights import full_files

    return full_files(folder, people=-6.0)


def _rates(prefix: str, seconds: dict[str, float], frames: int) -> list[tuple[str, float, float]]:
    return [(prefix + name, frames / taken, ratio) for name, taken, ratio in with_speedups(seconds)]


def _align(folder: Path, detector: object) -> None:
    """A run of pose_align.py without loading the models."""
    from musepose.cli.pose_align import main

    outputs = ["--outfn", f"{folder}/demo.mp4", "--outfn_align_pose_video", f"{folder}/aligned.mp4"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(
            [*outputs, *(part for name, path in DETECTOR.items() for part in (f"--{name}", str(ROOT / path)))],
            load=lambda job: detector,
        )


def _without_prefetch(work: Callable[[], None]) -> None:
    """Run `work` in one thread, without prefetch."""

    def on_demand(items: Sequence, depth: int) -> Iterator:
        yield from items

    with (
        mock.patch("musepose.pose.runner.prefetch", on_demand),
        mock.patch("musepose.pose.box_tracking.prefetch", on_demand),
    ):
        work()


def _clip(number: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A held-out puppet's dance: frames, ground-truth keypoints (n, 133, 2) as fractions, visibility (n, 133)."""
    from puppet.scenes import make_scene
    from puppet.world import HELD_OUT

    pictures = make_scene(HELD_OUT + number, SIDE).at_all(frame / RATE for frame in range(CLIP_FRAMES))
    people = [picture.people[0] for picture in pictures]
    return (
        [picture.image for picture in pictures],
        np.stack([person.keypoints for person in people]),
        np.stack([person.visible for person in people]),
    )


def _write_looped(path: Path, frames: int) -> None:
    import cv2

    from musepose.media.video_reader import read_frames
    from musepose.media.video_writer import VideoWriter

    loop = [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in read_frames(DANCE)]
    with VideoWriter(path, SIDE, SIDE, RATE) as writer:
        for number in range(frames):
            writer.write(loop[number % len(loop)])


def _percentile_95(distances: np.ndarray) -> float:
    return np.percentile(distances, 95)
