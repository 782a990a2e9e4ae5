"""The detector that the options name: its files checked, and the detector made of them."""

import importlib.util
from pathlib import Path

from musepose.pose.detectors.base import Detector
from musepose.pose.detectors.blazepose.models import FETCH_HINT, LITERT_HINT, MODEL_FILES
from musepose.pose.options import DETECTORS, DetectorFiles
from musepose.utils.errors import UserError
from musepose.utils.files import require_file
from musepose.utils.options import option_specs
from musepose.utils.published import source_hint


def chosen(files: DetectorFiles) -> str:
    """The name of the detector that is asked for."""
    return files.detector or DETECTORS[0]


def detector_files(files: DetectorFiles, name: str | None = None) -> list[Path]:
    """What the detector is made of."""
    if (name or chosen(files)) == "blazepose":
        return [files.blazepose_dir / one.file for one in MODEL_FILES]
    return [files.yolox_config, files.yolox_ckpt, files.dwpose_config, files.dwpose_ckpt]


def check_detector_files(files: DetectorFiles, name: str | None = None) -> None:
    """Raises UserError: a file of the detector is missing, or LiteRT. Imports neither torch nor mm."""
    if (name or chosen(files)) == "blazepose":
        for path in detector_files(files, "blazepose"):
            require_file(path, f"{FETCH_HINT}, or give another folder with --blazepose_dir")
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise UserError(f"--detector blazepose needs LiteRT, which is not installed: {LITERT_HINT}")
        return
    for one in option_specs(DetectorFiles):
        if one.name.endswith("config"):
            require_file(getattr(files, one.name), f"check the path, or give another with {one.flags[0]}")
        elif one.name.endswith("ckpt"):
            path = getattr(files, one.name)
            remedies = (source_hint(path), f"give another with {one.flags[0]}", "take --detector blazepose")
            require_file(path, ", or ".join(filter(None, remedies)))


def load_chosen(
    files: DetectorFiles, device: str | None, detect_resolution: int = 512, name: str | None = None
) -> Detector:
    """Make the detector. Raises UserError as it does. Torch and mm are imported for DWPose only."""
    if (name or chosen(files)) == "blazepose":
        from musepose.pose.detectors.blazepose.detector import BlazePoseDetector

        return BlazePoseDetector(files.blazepose_dir)
    from musepose.pose.detectors.dwpose.detector import PoseDetector

    paths = (files.yolox_config, files.yolox_ckpt, files.dwpose_config, files.dwpose_ckpt)
    return PoseDetector(*paths, device=device, detect_resolution=detect_resolution)
