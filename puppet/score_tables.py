"""Tables and a filmstrip of the results of `puppet.evaluate`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musepose.evaluation.metrics import mean_or_none
from musepose.evaluation.pairs import PCK_THRESHOLD
from musepose.evaluation.report import number, table
from puppet.cross_identity_score import SAME_LENGTH

FIGURES = {
    "psnr": ("PSNR", ".1f"),
    "figure": ("on the figure", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "gradient_energy": ("gradient energy", ".2f"),
}
IMAGE_ROWS = {
    "vae": "VAE alone (upper bound)",
    "model": "the model",
    "reference": "reference image unchanged",
    "other_reference": "another character's reference",
    "other_poses": "another motion's poses",
}
# Row → key of the model's metrics over the same frames (some rows use fewer).
SAME_FRAMES = {"reference": "model", "other_reference": "model_short", "other_poses": "model_short"}
MOTION_ROWS = {"vae": "VAE alone", "stage_1": "stage 1 alone", "stage_2": "with motion modules"}
CLIPS = {"one_window": "one window", "three_windows": "three windows"}
GAP = 4  # pixels, in the filmstrip


def worst_tenth(values: Sequence[float]) -> float:
    """Mean of the lowest tenth of the values, at least one."""
    return float(np.mean(np.sort(values)[: max(1, round(len(values) / 10))]))


def summarise(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Means, and means of the worst tenth of the characters, of the records of `puppet.evaluate.run`."""
    characters = measured["characters"]
    image: dict[str, Any] = {}
    for row in IMAGE_ROWS:
        image[row] = {name: _spread([c["image"][row][name] for c in characters]) for name in FIGURES}
        if row in SAME_FRAMES:
            ours = SAME_FRAMES[row]
            gains = [c["image"][ours]["figure"] - c["image"][row]["figure"] for c in characters]
            image[row]["model_better"] = _spread(gains)
    motion = {clip: _motion([c[clip] for c in characters if clip in c]) for clip in CLIPS}
    limbs, joints = ([value for pair in measured["pairs"] for value in pair[name]] for name in ("limbs", "joints"))
    return {
        "image": image,
        "motion": motion,
        "across": {
            "pairs": len(measured["pairs"]),
            "not_aligned": sum(not pair["limbs"] for pair in measured["pairs"]),
            "limb_error": mean_or_none(limbs),
            "limbs_right": mean_or_none([error <= SAME_LENGTH for error in limbs]),
            "joints_right": mean_or_none(joints),
        },
        "detector": measured["detector"],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "worst_tenth": worst_tenth(values)}


def _motion(clips: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """For each model: the ratio of its mean change to the ground truth's, and mean errors."""
    summary = {}
    for name in MOTION_ROWS:
        rows = [clip[name] for clip in clips if name in clip]
        if rows:
            mean = {key: mean_or_none([row[key] for row in rows if row[key] is not None]) for key in rows[0]}
            ratio = mean["change"] / mean["true_change"] if mean["true_change"] else None
            summary[name] = {"change_ratio": ratio, **mean}
    return summary


def tables(summary: Mapping[str, Any], options: Mapping[str, Any], seconds: float) -> str:
    """The summary as Markdown."""
    size, count = options["size"], options["characters"]
    titles = [part for title, _ in FIGURES.values() for part in (title, "worst tenth")]
    rows = [(label, _image_cells(summary["image"][row])) for row, label in IMAGE_ROWS.items()]
    parts = [
        f"{count} held-out characters, {options['clip_frames']} frames each, {size} x {size}; PSNR in dB. "
        "Gradient energy: on the figure, relative to the ground truth's. Last columns: the model's PSNR on the figure "
        "minus the row's, over the same frames.",
        table(f"held out, {size}²", [*titles, "model better", "worst tenth"], rows),
    ]
    motion = [
        (f"{title}: {MOTION_ROWS[name]}", _motion_cells(row))
        for clip, title in CLIPS.items()
        for name, row in summary["motion"][clip].items()
    ]
    if motion:
        frames = f"{options['motion']} characters, windows of {options['context_frames']} frames"
        parts += [
            f"Change from frame to frame, {frames}; errors in levels of 255.",
            table("motion", ["change / ground truth's", "error of change", "at seams", "elsewhere"], motion),
        ]
    detector = summary["detector"]
    if detector:
        percent = [number(detector[name], ".1f") for name in ("found", "joints", "wrists", "hands", "face")]
        parts.append(
            "The detector on {} images: all figures found in {} %; of the visible keypoints of those found, within "
            "5 % of the torso length: {} % of the body, {} % of the hands' wrists, {} % of the hands, {} % of the "
            "face.".format(detector["frames"], *percent)
        )
    across = summary["across"]
    if across["pairs"]:
        limbs, error, joints = (_percent(across[name]) for name in ("limbs_right", "limb_error", "joints_right"))
        parts.append(
            f"Cross-identity, {across['pairs']} pairs, {across['not_aligned']} not aligned: "
            f"{limbs} of the aligned limb lengths are within {SAME_LENGTH:.0%} of the target's "
            f"(mean error {error}), "
            f"{joints} of the joints in the generated frames within {PCK_THRESHOLD:.0%} of the torso length."
        )
    return "\n\n".join([*parts, f"Measured in {seconds / 60:.1f} minutes."])


def _image_cells(row: Mapping[str, Any]) -> list[str]:
    cells = [number(row[name][part], form) for name, (_, form) in FIGURES.items() for part in ("mean", "worst_tenth")]
    better = row.get("model_better", {})
    return cells + [number(better.get(part), ".1f") for part in ("mean", "worst_tenth")]


def _motion_cells(row: Mapping[str, Any]) -> list[str]:
    return [number(row.get(key), form) for key, form in _MOTION_COLUMNS.items()]


_MOTION_COLUMNS = {"change_ratio": ".2f", "error": ".2f", "seam_error": ".2f", "rest_error": ".2f"}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def filmstrip(characters: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Rows of reference, pose, result, ground truth; two characters side by side. uint8 RGB on white."""
    rows = [c["filmstrip"] for c in characters if "filmstrip" in c]
    side = len(rows[0][0])
    down = -(-len(rows) // 2)
    across = min(2, len(rows)) * 4
    canvas = np.full((down * (side + GAP) - GAP, across * (side + GAP) - GAP, 3), 255, np.uint8)
    for index, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            y, x = (index // 2) * (side + GAP), (index % 2 * 4 + column) * (side + GAP)
            canvas[y : y + side, x : x + side] = picture
    return canvas
