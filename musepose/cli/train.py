"""The command lines of train_stage_1.py and train_stage_2.py: parse, check, train."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from musepose.cli.flags import add_options, make_parser
from musepose.training.config import Command, TrainConfig, read_config, sample_name
from musepose.utils import launch
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable, project_file, require_file
from musepose.utils.folder_lock import locked_folder
from musepose.utils.options import build, option_specs
from musepose.utils.paths import refuse_inputs

if TYPE_CHECKING:
    from musepose.training.data.manifest import Clip

STAGE1_FILES = ("reference_unet.pth", "denoising_unet.pth", "pose_guider.pth")
DESCRIPTIONS = {
    "stage_1": """First training stage: reference UNet, denoising UNet and pose guider, on pairs of frames.

    accelerate launch train_stage_1.py --config configs/train_stage_1.yaml
    accelerate launch train_stage_1.py --config my.yaml --resume latest solver.learning_rate=5e-6
""",
    "stage_2": """Second training stage: the motion modules, on clips; the networks of stage 1 are frozen.

    accelerate launch train_stage_2.py --config configs/train_stage_2.yaml
    accelerate launch train_stage_2.py --config my.yaml --resume latest data.n_sample_frames=24
""",
}


def parse(stage: str, arguments: Sequence[str] | None) -> tuple[Command, list[str]]:
    """→ the flags and the overrides, in any order on the command line."""
    parser = make_parser(f"train_{stage}.py", DESCRIPTIONS[stage])
    add_options(parser, option_specs(Command))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as solver.learning_rate=1e-4")
    flags = vars(parser.parse_intermixed_args(arguments))
    return build(Command, flags), flags["overrides"]


def main(stage: str, arguments: Sequence[str] | None = None) -> None:
    """Run train_stage_1.py or train_stage_2.py; `stage` is "stage_1" or "stage_2"."""
    command, overrides = parse(stage, arguments)
    config = read_config(command.config or project_file(f"configs/train_{stage}.yaml"), overrides)
    clips = check(stage, config)
    with _locked_folders(config):
        check_resume(config, command.resume)

        from musepose.training.model import check_networks
        from musepose.training.stages import STAGE_1, STAGE_2
        from musepose.training.trainer import Trainer

        check_networks(config, clip_frames=config.data.n_sample_frames if stage == "stage_2" else None)
        Trainer({"stage_1": STAGE_1, "stage_2": STAGE_2}[stage], config, clips, command.resume).run()


@contextmanager
def _locked_folders(config: TrainConfig) -> Iterator[None]:
    """Hold the locks of the output folders, in the first of several processes."""
    folders = {Path(os.path.realpath(folder)) for folder in (config.output_dir, config.save_dir) if folder}
    with ExitStack() as locks:
        if launch.rank() == 0:
            for folder in sorted(folders):
                locks.enter_context(locked_folder(folder, "training"))
        yield


def check(stage: str, config: TrainConfig) -> "list[Clip]":
    """Check all input that needs no torch. → the clips. Raises UserError: a file is missing or does not match."""
    from musepose.training.data.manifest import (  # imported here, as --help needs no media libraries
        check_clip_files,
        load_manifest,
    )

    clips = load_manifest(config.data.meta_paths)
    if config.data.cache_latents is None:  # otherwise the latents cache reads and checks every frame
        check_clip_files(clips)
    for path in (path for clip in clips for path in (clip.video, clip.poses)):
        require_file(path, "run prepare_dataset.py again")
    require_file(config.base_model_path / "unet" / "config.json")
    for folder in (config.vae_model_path, config.image_encoder_path):
        require_file(folder / "config.json")
    require_file(config.inference_config, "check inference_config")
    if stage == "stage_1" and config.start_from:
        for name in STAGE1_FILES:
            require_file(config.start_from / name, "correct start_from, or give null")
    if stage == "stage_2":
        if not config.stage1_ckpt_dir:
            raise UserError("stage1_ckpt_dir is not given: name the folder of models that train_stage_1.py saved")
        for name in STAGE1_FILES:
            require_file(config.stage1_ckpt_dir / name, "train stage 1 first, or correct stage1_ckpt_dir")
        short = [clip for clip in clips if clip.frames < config.data.n_sample_frames]
        if short:
            raise UserError(
                f"{short[0].video} has {short[0].frames} frames, {len(short)} of {len(clips)} clips have fewer than "
                f"data.n_sample_frames, {config.data.n_sample_frames}: lower it, or remove them from the manifest"
            )
    for optional in filter(None, (config.mm_path, config.controlnet_openpose_path)):
        require_file(optional, "check the path, or give null")
    _check_cases(config)
    check_writable(Path(config.output_dir) / "states" / "step")
    check_writable(config.model_folder / "reference_unet.pth")
    if config.data.cache_latents is not None:
        check_writable(Path(config.data.cache_latents) / "latents.npy")
    _refuse_inputs(stage, config, clips)
    return clips


def _refuse_inputs(stage: str, config: TrainConfig, clips: "list[Clip]") -> None:
    """Raises UserError: what the training writes is something that it reads."""
    names = STAGE1_FILES if stage == "stage_1" else ("motion_module.pth",)
    cases = [path for case in config.val.test_cases.items() for path in (case[0], *case[1])]
    weights = [config.base_model_path / "unet", config.vae_model_path, config.image_encoder_path]
    weights += [config.inference_config, config.start_from, config.mm_path, config.controlnet_openpose_path]
    media = [path for clip in clips for path in (clip.video, clip.poses, clip.keypoints)]
    read = [*map(Path, (*config.data.meta_paths, *cases)), *weights, *media]
    refuse_inputs([config.model_folder / name for name in names], read)


def _check_cases(config: TrainConfig) -> None:
    from musepose.media.image import read_image
    from musepose.media.video_reader import probe

    names = set()
    for picture, videos in config.val.test_cases.items():
        read_image(Path(picture))
        for video in videos:
            probe(Path(video))
            name = sample_name(picture, video)
            if name in names:
                raise UserError(f"val.test_cases: two cases would both write {name}: rename a picture or a video")
            names.add(name)


def check_resume(config: TrainConfig, resume: str | None) -> None:
    """Raises UserError: no such checkpoint, or a new run would delete the checkpoints of an earlier one."""
    from musepose.training.checkpoints import find_checkpoint, list_checkpoints

    folder = Path(config.output_dir) / "states"
    find_checkpoint(folder, resume)
    if resume is None and list_checkpoints(folder):
        raise UserError(f"{folder} holds states of an earlier run: give --resume latest, or another output_dir")
