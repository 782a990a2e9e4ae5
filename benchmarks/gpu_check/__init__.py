"""One command that makes good use of a quarter of an hour on a GPU: see `python -m benchmarks.gpu_check --help`.

Needs no torch: what a check consists of, in the order in which it is done, the most important first.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A function of a module of this package, and the part of the check that it belongs to."""

    part: int
    module: str
    about: str


SECTIONS = {
    "golden": Section(1, "accuracy", "golden cases in float32, TF32 off"),
    "start": Section(1, "accuracy", "the CPU's noise gives the same start"),
    "halves": Section(1, "accuracy", "float16 and bfloat16 against float32, PSNR"),
    "videos": Section(2, "video", "whole videos: seconds, share of the matrix rate, memory beside the estimate"),
    "profiled": Section(3, "layers", "where a step's time goes"),
    "attention": Section(3, "layers", "back-ends of attention by head size"),
    "memory_formats": Section(3, "layers", "channels_last"),
    "norms": Section(3, "layers", "GroupNorm and SiLU"),
    "training_steps": Section(4, "training", "a training step of each stage: seconds, peak"),
    "cuda_tests": Section(4, "suite", "the tests marked requires_cuda"),
    "pose_stage": Section(4, "suite", "frames a second of the pose stage, where the mm packages are"),
    "compile_starts": Section(3, "compiled", "--compile on and off, first and second start"),
}
DEVICE_LOST = 75  # exit status of a worker that cannot go on, but whose successor may
