"""Memory: the estimated GPU peak of each memory plan, and host memory by video length."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Table, peak_memory
from benchmarks.models import full_size_pipeline
from musepose.inference.cases import WEIGHT_KEYS
from musepose.inference.memory_estimate import Workload, peak_bytes
from musepose.memory.plan import GIB, PLANS


def plans() -> Table:
    """Estimated peak of every memory plan, float16, 48 frames, 512 and 768 pixels, and the time the estimate takes."""
    pipeline = full_size_pipeline(torch.float16, "meta")
    rows = []
    for side in (512, 768):
        for plan in PLANS:
            start = time.perf_counter()
            stages = peak_bytes(pipeline, plan, Workload(side, side, 48, 48, guided=True))
            seconds = time.perf_counter() - start
            rows.append((f"{side} x {side}, {plan.name}", *(stages[name] / GIB for name in STAGES), seconds))
    columns = ("plan", *(f"{name}, GiB" for name in STAGES), "estimated in, s")
    remarks = ["Counted, not measured on a GPU; models included. The published system is said to take 16 and 28 GB."]
    return Table("Peak memory of a guided sampling, full size, float16, 48 frames", columns, rows, remarks)


STAGES = ("reference", "denoising", "decoding")


# The program with no-op networks: the memory of everything else can be measured within minutes.
WITHOUT_NETWORKS = """
import sys, torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
forward = UNet.forward
def predict(self, sample, *rest, **options):
    return sample * 0.5 if self.config.has_output else forward(self, sample, *rest, **options)
UNet.forward = predict
AutoencoderKL.decode = lambda self, z: DecoderOutput(sample=F.interpolate(z[:, :3] * 0 + 0.5, scale_factor=8))
PoseGuider.forward = lambda self, x: x.new_zeros(len(x), 32, x.shape[2] // 8, x.shape[3] // 8)
from musepose.cli.test_stage_2 import main
sys.exit(main(sys.argv[1:]))
"""


def stage_2_memory() -> Table:
    """Peak resident memory of test_stage_2.py, 512 x 512, float32: tiny models; no-op networks, up to 3,000 frames."""
    from PIL import Image

    from random_models.tiny_weights import write_published_layout

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_published_layout(folder / "weights")
        config: dict = {key: str(getattr(paths, field)) for key, (field, _) in WEIGHT_KEYS.items()}
        Image.effect_noise((64, 64), 100).convert("RGB").save(folder / "ref.png")
        for program, frames in (("whole", 48), ("without networks", 300), ("without networks", 3000)):
            _write_video(folder / f"{frames}.mp4", frames)
            config["test_cases"] = {str(folder / "ref.png"): [str(folder / f"{frames}.mp4")]}
            (folder / "config.yaml").write_text(json.dumps(config))
            command = ["test_stage_2.py"] if program == "whole" else ["-c", WITHOUT_NETWORKS]
            command += ["--config", str(folder / "config.yaml"), "--output", str(folder / program), "--device", "cpu"]
            command += ["-W", "512", "-H", "512", "-L", str(frames), "--skip", "0", "--steps", "1", "--cfg", "1"]
            rows.append((f"{frames} frames, {program}", *peak_memory([*command, "--dtype", "fp32"])))
    more = rows[2][1] - rows[1][1]
    remarks = [
        f"3,000 frames take {more:.0f} MiB more than 300, {1 + more / rows[0][1]:.2f} x the whole program's peak. "
        "The networks process one window at a time, so their share does not depend on the length."
    ]
    title = "Host memory of test_stage_2.py, 512 x 512, float32"
    return Table(title, ("what", "peak, MiB", "seconds"), rows, remarks)


def _write_video(path: Path, frames: int) -> None:
    from musepose.media.video_writer import VideoWriter

    with VideoWriter(path, 512, 512, 30) as writer:
        for index in range(frames):
            writer.write(np.full((512, 512, 3), index % 200, np.uint8))
