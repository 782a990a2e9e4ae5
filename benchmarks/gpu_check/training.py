"""Part 4: a training step of each stage, on random data."""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu_check.scale import NOISE, Check, tiny
from benchmarks.models import BUILD, full_size, random_model
from musepose.models.unet import UNet
from musepose.training.config import Data, Solver, TrainConfig
from musepose.training.data.encoding import Encoder
from musepose.training.data.manifest import Clip
from musepose.training.model import Animator
from musepose.training.stages import STAGE_1, STAGE_2, Stage
from musepose.training.trainer import Trainer

STEPS = 3  # timed, after one warm-up step


class RandomFrames:
    """Replaces FrameReader: random images and poses."""

    def __init__(self, data: Data):
        self.side = data.train_width

    def __call__(self, index: int, frames: Sequence[int]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        pictures = torch.randint(256, (len(frames), 3, self.side, self.side), generator=generator, dtype=torch.uint8)
        clip = torch.randn(1, 3, 224, 224, generator=generator)
        return {"pixels": pictures / 127.5 - 1, "clip_pixels": clip, "poses": pictures.flip(0)}


class TrainerWithoutFiles(Trainer):
    """A training with random frozen models and random data instead of files."""

    def __init__(self, check: Check, stage: Stage, config: TrainConfig):
        self.check = check
        clips = [Clip(Path(), Path(), None, 10 * check.scale.frames, Fraction(30), *2 * [config.data.train_width])]
        super().__init__(stage, config, clips, None)

    def _load_frozen(self) -> Encoder:
        dtype = self._frozen_dtype()
        if self.check.scale.tiny:
            models = tiny(dtype, self.accelerator.device, "vae", "image_encoder")
        else:
            models = {n: full_size(n, dtype, str(self.accelerator.device)) for n in ("vae", "image_encoder")}
        return Encoder(models["vae"], models["image_encoder"], self.config.data)

    def _frame_source(self, clips: list[Clip]) -> RandomFrames:
        return RandomFrames(self.config.data)


def training_steps(check: Check) -> None:
    """Stage 2 with the published settings except sizes; stage 1 with and without gradient checkpointing."""
    scale = check.scale
    trainings = (
        (STAGE_2, 1, True),
        (STAGE_1, scale.pairs, True),
        (STAGE_1, scale.pairs, False),  # may not fit
    )
    for stage, count, checkpointing in trainings:
        shape = f"{scale.frames} frames" if stage.is_clip else f"{count} pairs"
        how = "gradient checkpointing" if checkpointing else "no gradient checkpointing"
        what = f"a step of {stage.name}, {shape} of {scale.training_side} x {scale.training_side}, {how}"
        with check.guarded(4, what), tempfile.TemporaryDirectory() as folder:
            check.release()
            own = replace(stage, build=lambda _, stage=stage: animator(check, stage))
            training = TrainerWithoutFiles(check, own, config(check, count, checkpointing, folder))
            check.report.add(4, what, **one_step(check, training))
            training.accelerator.free_memory()
            del training
        check.release()


def config(check: Check, count: int, checkpointing: bool, folder: str) -> TrainConfig:
    """The published recipe with the sizes of the check."""
    scale = check.scale
    sizes = {"train_width": scale.training_side, "train_height": scale.training_side, "n_sample_frames": scale.frames}
    precision = "no" if check.device.type == "cpu" else "fp16"
    return TrainConfig(
        data=Data(meta_paths=[], train_bs=count, **sizes),
        solver=Solver(max_train_steps=STEPS + 1, mixed_precision=precision, gradient_checkpointing=checkpointing),
        noise_scheduler_kwargs=NOISE,
        base_model_path="",
        vae_model_path="",
        image_encoder_path="",
        report_to="none",
        output_dir=folder,
    )


def animator(check: Check, stage: Stage) -> Animator:
    """The networks of a stage, float32, random, frozen: the training unfreezes what it trains."""
    if check.scale.tiny:
        models = tiny(torch.float32, "cpu", "reference_unet", "denoising_unet", "pose_guider")
        if not stage.is_clip:
            sizes = {k: v for k, v in models["denoising_unet"].config.items() if not k.startswith("_")}
            models["denoising_unet"] = UNet(**sizes | {"motion_module": None})
        parts = [models[name] for name in ("reference_unet", "denoising_unet", "pose_guider")]
    else:
        with torch.device("meta"):
            denoising = BUILD["denoising_unet"] if stage.is_clip else UNet
            empty: list[nn.Module] = [BUILD["reference_unet"](), denoising(), BUILD["pose_guider"]()]
        parts = [random_model(model, torch.float32, str(check.device)) for model in empty]
    return Animator(*parts).requires_grad_(False)


def one_step(check: Check, training: Trainer) -> dict[str, float | None]:
    """→ median seconds of a step, seconds of its encoding and of the first step, peak GiB, loss; ok: losses finite."""
    batches = list(training._batches())
    check.reset_peak()
    seconds, losses = [], []
    for batch in batches:
        check.synchronize()
        start = time.perf_counter()
        bands = training.micro_step(batch)
        check.synchronize()
        seconds.append(time.perf_counter() - start)
        losses.append((bands[0].sum() / bands[1].sum()).item())
    peak = check.peak()
    start = time.perf_counter()
    training.encoder.batch(batches[0], training.accelerator.device)
    check.synchronize()
    encoding = time.perf_counter() - start
    times = {"seconds": statistics.median(seconds[1:]), "encoding_s": encoding, "first_s": seconds[0]}
    return times | {"peak_GiB": peak, "loss": losses[-1], "ok": all(map(math.isfinite, losses))}
