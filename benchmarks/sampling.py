"""Whole videos on a CPU with the puppets' small models: against the naive UNet, by length, by number of processes."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import ROOT, Table, median_times, peak_memory, with_speedups
from benchmarks.models import naive_unet
from musepose.media.image import read_image
from musepose.media.video_reader import read_frames
from musepose.memory.plan import PLANS
from musepose.models.weights import WeightPaths
from musepose.pipelines.context_windows import context_windows
from musepose.pipelines.pose2video import Pose2VideoPipeline

PUPPET = ROOT / "pretrained_weights" / "puppet"
SIZE = {"width": 192, "height": 192}
WINDOW = {"context_frames": 16, "context_overlap": 4}


@cache
def puppets() -> Pose2VideoPipeline:
    return Pose2VideoPipeline.from_published(
        WeightPaths.published(PUPPET, inference_config=ROOT / "configs" / "puppet" / "inference.yaml")
    )


@cache
def reference() -> Image.Image:
    return read_image(ROOT / "assets" / "images" / "ref.png")


def poses(frames: int) -> list[np.ndarray]:
    """Frames of the dance video, repeated: only their size matters here, which is a pose video's."""
    dance = list(read_frames(ROOT / "assets" / "videos" / "dance.mp4", count=24))
    return [dance[index % len(dance)] for index in range(frames)]


def sample(frames: int, **changes) -> Callable[[], object]:
    """A function that samples and decodes a whole video."""
    pipeline, pictures = puppets(), poses(frames)
    arguments = {**SIZE, **WINDOW, "num_inference_steps": 2, "num_frames": frames, **changes}

    def run() -> None:
        for _ in pipeline.stream(reference(), pictures, **arguments):
            pass

    return run


def sampling() -> Table:
    """28 frames, 2 steps, guided, encoding and decoding included: naive UNet, and each memory plan."""
    variants = {"naive UNet": naive_sampling(28)}
    for plan in PLANS:
        variants[plan.name] = _planned(sample(28), plan)
    rows = with_speedups(median_times(variants, 3))
    title = "Whole sampling, puppets, 192 x 192, 28 frames, 2 steps, guided"
    return Table(title, ("variant", "seconds", "naive / this"), rows)


def _planned(run: Callable, plan) -> Callable[[], None]:
    def go() -> None:
        puppets().offloader.plan = plan.for_device(torch.device("cpu"))
        run()
        puppets().offloader.plan = PLANS[0]

    return go


@torch.no_grad()
def naive_sampling(frames: int) -> Callable[[], None]:
    """The same video without reuse: pose features, both CFG branches and every frame are computed separately."""
    pipeline, pictures = puppets(), poses(frames)
    unet = pipeline.denoising_unet
    naive = naive_unet(unet)

    @torch.no_grad()
    def run() -> None:
        token = pipeline.embed_reference(reference())
        features = pipeline.reference_features(pipeline.encode_reference(reference(), **SIZE), token)
        bank = {name: feature[0] for name, feature in zip(unet.spatial_blocks(), features, strict=True)}
        small = [np.asarray(Image.fromarray(picture).resize((SIZE["width"], SIZE["height"]))) for picture in pictures]
        pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
        latents = pipeline.initial_noise(frames, **SIZE, seed=99)
        pipeline.scheduler.set_timesteps(2)
        for timestep in pipeline.scheduler.timesteps:
            total, count = torch.zeros_like(latents), torch.zeros(frames, 1, 1, 1)
            for window in context_windows(frames, **WINDOW):
                part = slice(window.start, window.stop)
                pose = pipeline.pose_guider(pixels[part])
                rows = [
                    naive.branch(latents[part], float(timestep), torch.zeros_like(token[0]), None, pose),
                    naive.branch(latents[part], float(timestep), token[0], bank, pose),
                ]
                total[part] += rows[0] + 3.5 * (rows[1] - rows[0])
                count[part] += 1
            latents = pipeline.scheduler.step(total / count, timestep, latents).prev_sample
        for frame in latents:
            pipeline.decode(frame[None])

    return run


def length() -> Table:
    """Processor time per frame, 48 to 960 frames, whole videos, not guided: should be constant."""
    rows = []
    sample(8, guidance_scale=1.0)()
    for frames in (48, 240, 960):
        run = sample(frames, guidance_scale=1.0)
        start = time.process_time()
        run()
        seconds = time.process_time() - start
        rows.append((frames, seconds, 1000 * seconds / frames))
    return Table("Cost by length, puppets, 192 x 192, 2 steps", ("frames", "processor seconds", "ms per frame"), rows)


def tail() -> Table:
    """--tail flush against pad for a clip much shorter than a window: 20 frames, windows of 48."""
    window = {"context_frames": 48, "context_overlap": 4}
    rows = with_speedups(median_times({name: sample(20, tail=name, **window) for name in ("pad", "flush")}, 3))
    title = "20 frames, windows of 48, puppets, 192 x 192, 2 steps, guided"
    return Table(title, ("--tail", "seconds", "pad / this"), rows)


def processes() -> Table:
    """One video with one and with two processes of one thread each: the whole command, loading included."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder))
        script = ["test_stage_2.py", "--config", str(config), "--overwrite", "--skip", "0", "-L", "120", "--steps", "6"]
        script += ["--cfg", "3.5", "--device", "cpu", "--output", str(Path(folder) / "out")]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        times = median_times(
            {
                "1 process": lambda: peak_memory(script, env=one_thread),
                "2 processes, --split frames": lambda: peak_memory([*launcher, *script], env=one_thread),
            },
            3,
            warm_up=0,
        )
    title = "120 frames, 6 steps, guided, puppets, 192 x 192; threads: 1 a process"
    return Table(title, ("variant", "seconds", "one / this"), with_speedups(times))


def _config(folder: Path) -> Path:
    """The demo's config, with absolute paths and a generated pose video."""
    from omegaconf import OmegaConf

    from musepose.media.video_writer import VideoWriter

    with VideoWriter(folder / "poses.mp4", 192, 192, 30) as writer:
        for picture in poses(120):
            writer.write(np.asarray(Image.fromarray(picture).resize((192, 192))))
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "puppet" / "demo.yaml"))
    config["test_cases"] = {str(ROOT / "assets" / "images" / "ref.png"): [str(folder / "poses.mp4")]}
    target = folder / "config.yaml"
    target.write_text(json.dumps(config))
    return target
