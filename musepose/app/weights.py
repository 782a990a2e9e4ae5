"""The weights panel: what is there, what is missing, and the command that downloads it. Nothing is downloaded here."""

from collections.abc import Iterator

from musepose.app import alignment, generation
from musepose.download.weights import GROUPS, WEIGHT_FILES
from musepose.utils.files import project_file

FOLDER = "pretrained_weights"
WHAT = {
    "musepose": "MusePose's networks",
    "dwpose": "DWPose, the pose network",
    "yolox": "YOLOX, DWPose's person detector",
    "base_unet": "the base UNet's config",
    "image_encoder": "the CLIP image encoder",
    "vae": "the autoencoder",
    "blazepose": "BlazePose",
}
NOT_PEOPLE = (
    "The published weights are not here. The puppets' models animate drawn puppets only: a photograph can be aligned, "
    "but not animated. `python download_weights.py` downloads the published weights, about 10 GB."
)


def missing_files(group: str) -> list[str]:
    """Required files of a group that are not there, or empty; their content is not read."""
    paths = [one.target for one in WEIGHT_FILES if one.group == group and not one.optional]
    found = ((path, project_file(f"{FOLDER}/{path}")) for path in paths)
    return [path for path, file in found if not file.is_file() or file.stat().st_size == 0]


def panel() -> str:
    """Markdown: a table of the groups."""
    return "\n".join(["| Weights | | |", "|---|---|---|", *_rows()])


def _rows() -> Iterator[str]:
    puppets = [alignment.missing("puppets"), generation.missing("puppets")]
    yield f"| the puppets' models and detector | {_there(not any(puppets))} | part of the repository |"
    for group in GROUPS:
        absent = missing_files(group)
        command = f"`python download_weights.py --only {group}`" if absent else ""
        yield f"| {WHAT.get(group, group)} | {_there(not absent)} | {command} |"


def _there(yes: bool) -> str:
    return "✓ there" if yes else "missing"
