"""Measures videos against their truths: PSNR, SSIM, change from frame to frame, and more where networks are given.

    python evaluate.py --pairs result.mp4 truth.mp4 --json scores.json
    python evaluate.py --pairs results/ truths/ --resize --poses
    python evaluate.py --pairs pairs.csv --lpips lpips_alex.pt --fvd i3d_torchscript.pt

Judges puppet weights on characters that nothing was trained on:

    python evaluate.py --puppets --json output/puppets.json --filmstrip output/puppets.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from musepose.cli.entry import Parser, run_script
from musepose.utils.errors import UserError
from musepose.utils.options import Setting, parse_setting

GENERAL = (
    Setting(("--json",), str, None, "write all figures to this file"),
    Setting(("--device",), str, "cpu", "cpu, cuda, cuda:1, mps, ..., for the networks"),
    Setting(("--yolox_config",), str, None, "mm config of the person detector"),
    Setting(("--dwpose_config",), str, None, "mm config of the pose network"),
)
PAIRS = (
    Setting(("--frames",), int, None, "compare only the first N frames; by default lengths must match", low=1),
    Setting(("--truth_step",), int, 1, "compare with every Nth frame of the truth", low=1),
    Setting(("--resize",), bool, False, "bring results to their truth's size; by default sizes must match"),
    Setting(("--poses",), bool, False, "detect the dancer in both, and compare joints"),
    Setting(("--yolox_ckpt",), str, None, "weights of the person detector"),
    Setting(("--dwpose_ckpt",), str, None, "weights of the pose network"),
    Setting(("--lpips",), str, None, "TorchScript file: pictures, pictures (n,3,h,w) in [-1,1] -> n distances"),
    Setting(("--fvd",), str, None, "TorchScript file: clips (n,3,f,224,224) in [-1,1] -> features, such as I3D's"),
    Setting(("--fvd_frames",), int, 16, "frames of a clip for --fvd", low=1),
)
PUPPETS = (
    Setting(("--weights",), str, "pretrained_weights/puppet", "folder of the puppet weights"),
    Setting(("--inference_config",), str, "configs/puppet/inference.yaml", "motion modules and noise schedule"),
    Setting(("--stage_1_config",), str, "configs/puppet/inference_stage_1.yaml", "the same without motion modules"),
    Setting(("--stage",), int, 2, "1 judges the model without motion modules", low=1, high=2),
    Setting(("--size",), int, 192, "sampling width and height", low=16, high=1024, multiple=8),
    Setting(("--steps",), int, 2, "denoising steps", low=1, high=1000),
    Setting(("--cfg",), float, 1.0, "guidance scale; no guidance up to 1", low=0),
    Setting(("--shared_noise",), float, 1.0, "portion of the noise that all frames share", low=0, high=1),
    Setting(("--context_frames",), int, 16, "frames denoised together, in the clips of three windows", low=2, high=128),
    Setting(("--context_overlap",), int, 4, "frames that two neighbouring windows share", low=0),
    Setting(("--characters",), int, 100, "how many held-out characters", low=1, high=100_000),
    Setting(("--clip_frames",), int, 8, "frames of each character", low=2),
    Setting(("--baseline_frames",), int, 2, "of them for the wrong references and poses", low=1),
    Setting(("--motion",), int, 6, "how many characters over three windows, and with stage 1 alone", low=0),
    Setting(("--across",), int, 8, "how many pairs of dancer and picture, where there is a detector", low=0),
    Setting(("--set_ups",), int, 50, "how many set-ups of one or two figures the detector is judged on", low=0),
    Setting(("--workers",), int, 2, "processes of one thread each; 1: none, and all threads", low=1, high=256),
    Setting(("--filmstrip",), str, None, "write a picture of the first ten characters to this file, .png"),
)
DETECTOR_OF_PUPPETS = {"yolox_config": "configs/puppet/yolox.py", "dwpose_config": "configs/puppet/dwpose.py"}


def parse(arguments: Sequence[str] | None) -> dict[str, Any]:
    """The flags that were given, checked; `pairs` or `puppets` says what is to be done."""
    parser = Parser(
        prog="evaluate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task = parser.add_mutually_exclusive_group(required=True)
    text = "RESULT TRUTH [RESULT TRUTH ...], a folder of results and one of truths, or a list: .txt or .csv"
    task.add_argument("--pairs", nargs="+", metavar="PATH", help=text)
    task.add_argument("--puppets", action="store_true", help="judge puppet weights")
    groups = (("for both", GENERAL), ("for --pairs", PAIRS), ("for --puppets", PUPPETS))
    for title, settings in groups:
        group = parser.add_argument_group(title)
        for setting in settings:
            default = "" if setting.kind is bool or setting.default is None else f" (default {setting.default})"
            how = {"action": "store_true"} if setting.kind is bool else {"metavar": "X"}
            group.add_argument(*setting.flags, help=setting.help + default, default=None, **how)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value not in (None, False)}
    wrong, task_name = (PAIRS, "--pairs") if "puppets" in given else (PUPPETS, "--puppets")
    for setting in wrong:
        if setting.name in given:
            raise UserError(f"{setting.flags[0]} belongs to {task_name}: leave it out")
    for setting in (*GENERAL, *PAIRS, *PUPPETS):
        if setting.name in given:
            given[setting.name] = parse_setting(setting, given[setting.name], setting.flags[0])
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    for name in ("json", "filmstrip"):
        if name in given:
            _check_output(Path(given[name]), ".png" if name == "filmstrip" else ".json")
    return _puppets(given) if given.pop("puppets", False) else _pairs(given)


def _check_output(path: Path, suffix: str) -> None:
    from musepose.utils.files import check_writable

    if path.suffix.lower() != suffix:
        raise UserError(f"cannot write {path.name}: end its name in {suffix}")
    check_writable(path)


def _pairs(given: dict[str, Any]) -> int:
    """Everything is checked before torch is imported, and only where a network is wanted."""
    from musepose.evaluation.pairs import check_pairs, compare, find_pairs
    from musepose.evaluation.report import pair_table, save_json, summary

    step, resize = given.get("truth_step", 1), given.get("resize", False)
    pairs = check_pairs(find_pairs(given["pairs"]), given.get("frames"), step, resize)
    instruments = _instruments(given)
    if instruments.fvd:
        instruments.fvd.check(pair.frames for pair in pairs)
    rows = []
    for number, pair in enumerate(pairs, 1):
        print(f"[{number}/{len(pairs)}] {pair.result.path}: {pair.frames} frames", flush=True)
        rows.append(compare(pair, instruments))
    means = summary(rows, instruments.fvd.distance() if instruments.fvd else None)
    print(f"\n{pair_table(rows, means)}")
    if "json" in given:
        save_json(Path(given["json"]), {"pairs": rows, "all": means})
        print(f"\nwrote {given['json']}")
    return 0


def _instruments(given: dict[str, Any]) -> Any:
    from musepose.evaluation.pairs import Instruments

    detector_flags = ("yolox_config", "yolox_ckpt", "dwpose_config", "dwpose_ckpt")
    for flag, user in (*((flag, "poses") for flag in detector_flags), ("fvd_frames", "fvd")):
        if flag in given and user not in given:
            raise UserError(f"--{flag} is of no use without --{user}: give both or neither")
    if not {"poses", "lpips", "fvd"} & given.keys():
        return Instruments()
    from musepose.evaluation.networks import Fvd, Lpips
    from musepose.utils.device import choose_device

    device = choose_device(given.get("device", "cpu"))
    lpips = Lpips(Path(given["lpips"]), device) if "lpips" in given else None
    fvd = Fvd(Path(given["fvd"]), device, given.get("fvd_frames", 16)) if "fvd" in given else None
    detector = None
    if "poses" in given:
        import pose_align
        from musepose.pose.detectors.dwpose.detector import PoseDetector

        defaults = pose_align.parse([])
        files = (given.get(flag, getattr(defaults, flag)) for flag in detector_flags)
        yolox_config, yolox_ckpt, dwpose_config, dwpose_ckpt = map(Path, files)
        detector = PoseDetector(yolox_config, yolox_ckpt, dwpose_config, dwpose_ckpt, device=str(device))
    return Instruments(lpips, fvd, detector)


def _puppets(given: dict[str, Any]) -> int:
    from PIL import Image

    from musepose.evaluation.report import save_json
    from musepose.utils.files import complete_file
    from puppet.evaluate import run
    from puppet.score_options import Options
    from puppet.score_tables import filmstrip, summarise, tables

    values = {setting.name: setting.default for setting in (*GENERAL, *PUPPETS)} | DETECTOR_OF_PUPPETS | given
    kinds = {field.name: field.type for field in fields(Options)}
    measured = run(Options(**{name: kind(values[name]) for name, kind in kinds.items()}))
    summary = summarise(measured)
    print(f"\n{tables(summary, measured['options'], measured['seconds'])}")
    if "filmstrip" in given:
        with complete_file(given["filmstrip"]) as partial:
            Image.fromarray(filmstrip(measured["characters"])).save(partial, format="PNG", optimize=True)
        print(f"\nwrote {given['filmstrip']}")
    if "json" in given:
        for record in measured["characters"]:
            record.pop("filmstrip", None)
        save_json(Path(given["json"]), {**summary, **measured})
        print(f"\nwrote {given['json']}")
    return 0


if __name__ == "__main__":
    run_script(main)
