"""Whether a long video drifts: colours, brightness and sharpness of every 48 frames against the first 48."""

import numpy as np

from benchmarks.measure import Table
from benchmarks.sampling import WINDOW, poses, puppets, reference

FRAMES, BLOCK, SIZE, STEPS = 3024, 48, 64, 2
FIGURES = ("red", "green", "blue", "brightness", "sharpness")
SHOWN = (1, 2, 4, 8, 16, 32, 63)  # blocks of the table


def drift() -> Table:
    """3,024 frames, the same 24 poses again and again, independent noise: means of each 48 frames."""
    arguments = {"width": SIZE, "height": SIZE, "num_inference_steps": STEPS, "guidance_scale": 1.0, **WINDOW}
    blocks, part = [], []
    for picture in puppets().stream(reference(), poses(FRAMES), num_frames=FRAMES, **arguments):
        part.append(statistics(picture))
        if len(part) == BLOCK:
            blocks.append(np.mean(part, axis=0))
            part = []
    found = np.array(blocks)  # (blocks, figures)
    rows = [(f"{(n - 1) * BLOCK} to {n * BLOCK - 1}", *map(float, found[n - 1])) for n in SHOWN]
    rows.append(("largest distance from the first 48", *map(float, np.abs(found - found[0]).max(axis=0))))
    slopes, errors = zip(*(slope(column) for column in found.T), strict=True)
    rows.append(("slope over the whole video", *slopes))
    rows.append(("its standard error", *errors))
    title = f"Drift over {FRAMES:,} frames, puppets, {SIZE} x {SIZE}, {STEPS} steps, windows of 16"
    return Table(
        title, ("frames", *FIGURES), rows, ["Levels of 255; sharpness: mean square of neighbours' differences."]
    )


def statistics(picture: np.ndarray) -> list[float]:
    """FIGURES of one frame (h, w, 3) uint8."""
    values = picture.astype(np.float32)
    grey = values @ np.float32([0.299, 0.587, 0.114])
    sharpness = np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean()
    return [*values.mean(axis=(0, 1)).tolist(), float(grey.mean()), float(sharpness)]


def slope(values: np.ndarray) -> tuple[float, float]:
    """Change from the first to the last value by a fitted line, and that change's standard error."""
    (line, _), covariance = np.polyfit(np.linspace(0, 1, len(values)), values, 1, cov=True)
    return float(line), float(covariance[0, 0] ** 0.5)
