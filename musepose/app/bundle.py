"""The zip of a result: picture, aligned pose video, keypoints, and the YAML from which test_stage_2.py repeats it."""

import zipfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from musepose.inference.cases import WEIGHT_KEYS, Plan
from musepose.inference.options import Settings
from musepose.utils.files import PROJECT, complete_file
from musepose.utils.options import option_specs

# Settings that belong to the run, not to the result.
LEFT_OUT = ("output", "overwrite", "split", "device", "vram", "compile")
CONFIG = "musepose.yaml"
README = """The result of MusePose's page, and what it was made of. The same video again, from this folder:

    python PATH-OF-MUSEPOSE/test_stage_2.py --config {config}

The same picture and dance aligned again: --keypoints {keypoints} of pose_align.py.
"""


def write_config(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a YAML file that test_stage_2.py reads."""
    from omegaconf import OmegaConf

    with complete_file(path) as partial:
        OmegaConf.save(OmegaConf.create(dict(values)), partial)
    return path


def repeating_config(plan: Plan) -> dict[str, Any]:
    """The YAML's values: every setting as it was, paths relative to the zip's folder and to the project."""
    values: dict[str, Any] = {}
    for key, (field, _) in WEIGHT_KEYS.items():
        path = plan.weights[field]
        values[key] = f"./{path.relative_to(PROJECT)}" if path.is_relative_to(PROJECT) else str(path)
    for one in option_specs(Settings):
        value = getattr(plan.settings, one.name)
        if one.name not in LEFT_OUT and one.key is not None and value is not None:
            values[one.key] = str(value) if isinstance(value, Fraction) else value
    (case,) = plan.jobs
    return values | {"test_cases": {f"./{case.reference.name}": [f"./aligned/{case.pose.path.name}"]}}


def write_bundle(path: Path, plan: Plan, keypoints: Path) -> Path:
    """Write the zip of a finished plan of one job."""
    (case,) = plan.jobs
    config = write_config(path.with_name(CONFIG), repeating_config(plan))
    files = {
        case.reference: case.reference.name,
        case.pose.path: f"aligned/{case.pose.path.name}",
        keypoints: keypoints.name,
        config: config.name,
        case.result: case.result.name,
        case.comparison: case.comparison.name,
    }
    with complete_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for file, name in files.items():
            archive.write(file, name)
        archive.writestr("README.txt", README.format(config=config.name, keypoints=keypoints.name))
    return path
