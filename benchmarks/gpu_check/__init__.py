"""Checks and measurements on a GPU, in one command: see `python -m benchmarks.gpu_check --help`.

This module lists the sections in the order in which they run, the most important first. It imports no torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One section: its part of the check, and the module that holds the function of its name."""

    part: int
    module: str
    about: str


SECTIONS = {
    "golden": Section(1, "accuracy", "golden cases in float32, TF32 off"),
    "start": Section(1, "accuracy", "the initial noise equals the CPU's"),
    "halves": Section(1, "accuracy", "float16 and bfloat16 against float32, PSNR"),
    "videos": Section(2, "video", "whole videos: seconds, share of the matrix rate, measured and estimated memory"),
    "profiled": Section(3, "layers", "where a step's time goes"),
    "attention": Section(3, "layers", "back-ends of attention by head size"),
    "memory_formats": Section(3, "layers", "channels_last"),
    "norms": Section(3, "layers", "GroupNorm and SiLU"),
    "training_steps": Section(4, "training", "a training step of each stage: seconds, peak"),
    "cuda_tests": Section(4, "suite", "the tests marked requires_cuda"),
    "pose_stage": Section(4, "suite", "frames per second of the pose stage, if the mm packages are installed"),
    "compile_starts": Section(3, "compiled", "--compile on and off, first and second start"),
}
DEVICE_LOST = 75  # exit status of a worker whose CUDA context is broken: a new process may continue
