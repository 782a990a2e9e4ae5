"""What was detected so far, in a file beside the output until the run is complete: the next run continues from it."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from musepose.pose.detectors.choice import detector_files
from musepose.pose.job import Job
from musepose.pose.keypoint_file import Source, open_arrays
from musepose.pose.types import BODY_AND_FEET, KEYPOINTS, People
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file
from musepose.utils.reporter import Reporter

FORMAT = "musepose unfinished keypoints 1"
SAVED_EVERY = 60  # seconds, against kills and power cuts; all other ends save at once
SHAPES = {
    "boxes": (4,),
    "box_scores": (),
    "keypoints": (KEYPOINTS, 2),
    "scores": (KEYPOINTS,),
    "depth": (KEYPOINTS,),
    "metres": (BODY_AND_FEET, 3),
}


class Leftover:
    """All people that a detector found in the picture and in the frames of the dance from the first used one on."""

    def __init__(self, job: Job, reporter: Reporter) -> None:
        self.path = leftover_path(job.aligned_path)
        self.image: People | None = None
        self.video: list[People] = []
        self._image_key = self._key(job, picture=job.image_source.sha256)
        self._video_key = self._key(
            job,
            video=job.video_source.sha256,
            resampling=getattr(job.dance, "resampling", None),
            first=job.first,
            every=job.settings.det_every,
        )
        self._reporter, self._saved, self._changed = reporter, time.monotonic(), False
        self._load(job)

    def detect(self, found: Iterable[People]) -> Iterator[People]:
        """Yield what is found in the next frames, and keep it."""
        for people in found:
            self.video.append(people)
            self._changed = True
            if time.monotonic() - self._saved > SAVED_EVERY:
                self.save()
            yield people

    def set_image(self, people: People) -> People:
        self.image, self._changed = people, True
        return people

    def save(self) -> None:
        """Write the file. A disk that is full is a warning: this is no reason to end a run."""
        self._saved = time.monotonic()
        if not self._changed:
            return
        frames = [*([] if self.image is None else [self.image]), *self.video]
        arrays = {
            "format": FORMAT,
            "image_key": self._image_key if self.image is not None else "",
            "video_key": self._video_key,
            "counts": [len(people.boxes) for people in frames],
            "fallback": [people.fallback for people in frames],
            "size": [people.size for people in frames],
        }
        for name in SHAPES:
            parts = [getattr(people, name) for people in frames if len(people.boxes)]
            if parts and all(part is not None for part in parts):
                arrays[name] = np.concatenate(parts)
        try:
            with complete_file(self.path) as partial, open(partial, "wb") as file:
                np.savez(file, **arrays)
        except UserError as error:
            self._reporter.warn(f"warning: what was detected is not kept: {error}")
        else:
            self._changed = False

    def keep(self) -> None:
        """Save at an early end, and say so."""
        if self.video:
            self.save()
            if self.path.exists():
                self._reporter.warn(f"kept {len(self.video)} detected frames for the next run: {self.path}")

    def _load(self, job: Job) -> None:
        """Take over what fits; whatever else is there is made anew."""
        try:
            if not self.path.is_file():
                return
            with open_arrays(self.path, FORMAT, "") as arrays:
                frames = _unpack(arrays)
                image = str(arrays["image_key"])
                video = str(arrays["video_key"])
        except (UserError, OSError):
            return
        first = [frames.pop(0)] if image and frames else [None]
        if image == self._image_key:
            self.image = first[0]
        if video != self._video_key:
            return
        if job.detector == "dwpose":  # every search is a new start
            frames = frames[: len(frames) // job.settings.det_every * job.settings.det_every or None]
            self.video = frames if len(frames) >= job.settings.det_every else []
        elif len(frames) >= job.frames:  # BlazePose follows people from frame to frame: continuing differs
            self.video = frames
        del self.video[job.frames :]

    @staticmethod
    def _key(job: Job, **sources: object) -> str:
        files = detector_files(job.settings, job.detector)
        digests = "".join(Source.of(file).sha256 for file in files if file.is_file())
        settings = {
            "detector": job.detector,
            "files": hashlib.sha256(digests.encode()).hexdigest(),
            "resolution": job.settings.detect_resolution,
        }
        return json.dumps(settings | sources, sort_keys=True)


def remove_leftover(job: Job) -> None:
    """The run is complete."""
    with suppress(OSError):
        leftover_path(job.aligned_path).unlink(missing_ok=True)


def leftover_path(output: Path) -> Path:
    """The file beside the aligned pose video."""
    name = f"{output.name}.unfinished.npz"
    if len(name.encode("utf-8", "surrogateescape")) > 255:
        name = f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.unfinished.npz"
    return output.with_name(name)


def _unpack(arrays: np.lib.npyio.NpzFile) -> list[People]:
    """The people of each frame. Raises ValueError: shapes that do not fit each other."""
    counts, fallback, size = arrays["counts"], arrays["fallback"], arrays["size"]
    if not (counts.ndim == fallback.ndim == 1 and len(counts) == len(fallback) and size.shape == (len(counts), 2)):
        raise ValueError("counts of another shape")
    if (counts < 0).any():
        raise ValueError("negative counts")
    total = int(counts.sum())
    found = {name: arrays[name] for name in SHAPES if name in arrays}
    for name, array in found.items():
        if array.shape != (total, *SHAPES[name]) or not np.isfinite(array).all():
            raise ValueError(f"{name} of the shape {array.shape}, or not finite")
    if total and not {"boxes", "box_scores", "keypoints", "scores"} <= found.keys():
        raise ValueError("keypoints are missing")
    frames, start = [], 0
    for number, count in enumerate(counts.tolist()):
        parts = {name: array[start : start + count] for name, array in found.items()}
        if not count:
            parts = {name: np.zeros((0, *shape), np.float32) for name, shape in SHAPES.items() if name in found}
            parts |= {name: np.zeros((0, *SHAPES[name]), np.float32) for name in list(SHAPES)[:4]}
        frames.append(People(**parts, fallback=bool(fallback[number]), size=tuple(size[number].tolist())))
        start += count
    return frames
