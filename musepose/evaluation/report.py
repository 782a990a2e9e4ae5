"""Metrics as a Markdown table and as a JSON file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musepose.evaluation.metrics import mean_or_none
from musepose.utils.files import complete_file

# metric -> column title and format
PAIR_COLUMNS = {
    "frames": ("frames", "d"),
    "psnr": ("PSNR dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "lpips": ("LPIPS", ".4f"),
    "change_ratio": ("change ratio", ".3f"),
    "change_error": ("change error", ".3f"),
    "pose_distance": ("pose distance", ".4f"),
    "pose_near": ("joint PCK", ".3f"),
}
SUMMED = ("frames",)


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A Markdown table with aligned columns; `title` heads the column of row names."""
    cells = [[title, *columns], *([name, *values] for name, values in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def summary(pairs: Sequence[Mapping[str, Any]], fvd: float | None) -> dict[str, Any]:
    """The mean of each metric over the pairs that have it, with equal weights. `fvd` is one value for all pairs."""
    means: dict[str, Any] = {}
    for name in PAIR_COLUMNS:
        values = [pair[name] for pair in pairs if pair.get(name) is not None]
        means[name] = sum(values) if name in SUMMED else mean_or_none(values)
    return means | {"fvd": fvd}


def pair_table(pairs: Sequence[Mapping[str, Any]], means: Mapping[str, Any]) -> str:
    """One row per pair, then the means. Columns without a value are omitted."""
    names = [name for name in PAIR_COLUMNS if means[name] is not None]
    titles, forms = zip(*(PAIR_COLUMNS[name] for name in names), strict=True)
    labelled = [(Path(pair["result"]).name, pair) for pair in pairs] + [("all", means)]
    rows = [
        (label, [number(row.get(name), form) for name, form in zip(names, forms, strict=True)])
        for label, row in labelled
    ]
    text = table("video", titles, rows)
    return text if means["fvd"] is None else f"{text}\n\nFVD {means['fvd']:.2f}"


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`. Raises UserError if that fails."""
    with complete_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
