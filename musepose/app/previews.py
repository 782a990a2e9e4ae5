"""Pictures for the page: skeletons over the picture, a frame of the dance, the middle frame while sampling."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from musepose.app.jobs import Job
from musepose.inference.cases import Job as Case
from musepose.media.image import read_image
from musepose.media.video_reader import read_frames_at
from musepose.pose.fitting import Fitted
from musepose.pose.preview import draw_over
from musepose.utils.files import complete_file

if TYPE_CHECKING:
    import torch

HEIGHT = 640  # pixels
DIMMED = 0.75  # of the picture under a skeleton
PREVIEWS = 6  # while sampling


def save_picture(pixels: np.ndarray, folder: Path, name: str) -> Path:
    """Write RGB uint8 pixels as WebP; other content gets another name, so that no browser shows an older one."""
    path = folder / f"{name}-{hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}.webp"
    if not path.exists():
        with complete_file(path) as partial:
            Image.fromarray(pixels).save(partial, "WEBP", quality=85)
    return path


def over_picture(picture: Image.Image, fitted: Fitted, frame: int, folder: Path) -> Path:
    """The aligned skeleton of a frame of the dance over the picture."""
    return save_picture(draw_over(picture, fitted.aligned(frame), HEIGHT, DIMMED), folder, f"frame-{frame}")


def own_pose(picture: Image.Image, fitted: Fitted, folder: Path) -> Path:
    """The picture with the skeleton that was found in it."""
    return save_picture(draw_over(picture, fitted.picture, HEIGHT, DIMMED), folder, "own-pose")


def dance_frame(path: Path, number: int, folder: Path) -> Path | None:
    """A frame of the dance, counted from the video's start; None beyond its end."""
    frames = read_frames_at(path, [number])
    if number not in frames:
        return None
    picture = Image.fromarray(frames[number])
    picture.thumbnail((HEIGHT, HEIGHT))
    return save_picture(np.asarray(picture), folder, f"dance-{number}")


class StepPreviews:
    """The pipeline's callback: the middle frame as the model sees it without noise, every few steps."""

    def __init__(self, job: Job, steps: int, frames: int) -> None:
        self._job, self._middle = job, frames // 2
        self._every = max(1, steps // PREVIEWS)
        self._last = steps - 1  # decoded anyway

    def __call__(self, pipeline: Any, step: int, timestep: int, tensors: Mapping[str, "torch.Tensor"]) -> None:
        if step % self._every or step == self._last:
            return
        from musepose.pipelines.images import to_bytes
        from musepose.pipelines.schedulers import predicted_original

        one = slice(self._middle, self._middle + 1)
        clean = predicted_original(pipeline.scheduler, tensors["prediction"][one], tensors["sample"][one], timestep)
        with pipeline.offloader.restored():
            pixels = to_bytes(pipeline.decode(clean)).numpy()[0]
        self._job.preview = save_picture(pixels, self._job.folder, f"step-{step + 1}")


def save_still(case: Case, folder: Path) -> tuple[Path, Path]:
    """The reference and the result's middle frame, of the same size."""
    middle = case.frames // 2
    frame = read_frames_at(case.result, [middle])[middle]
    reference = read_image(case.reference).resize(frame.shape[1::-1], Image.Resampling.LANCZOS)
    return save_picture(np.asarray(reference), folder, "reference"), save_picture(frame, folder, "middle")
