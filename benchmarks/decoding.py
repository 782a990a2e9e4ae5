"""The full-size VAE's decoder on a CPU: frame by frame and in batches."""

import torch

from benchmarks.measure import Table, median_times, with_speedups
from benchmarks.models import full_size

FRAMES, SIDE = 4, 256


@torch.no_grad()
def decoding() -> Table:
    """4 frames of 256 x 256, float32 and bfloat16: in batches of one, two and four."""
    rows = []
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        model = full_size("vae", dtype)
        latents = torch.randn(FRAMES, 4, SIDE // 8, SIDE // 8, dtype=dtype)
        variants = {
            f"{name}, {size} together": lambda size=size, model=model, latents=latents: [
                model.decode(part).sample for part in latents.split(size)
            ]
            for size in (1, 2, 4)
        }
        rows += [
            (variant, seconds / FRAMES, ratio) for variant, seconds, ratio in with_speedups(median_times(variants, 3))
        ]
    title = f"VAE decoding on a CPU, full size, {SIDE} x {SIDE}"
    return Table(title, ("variant", "seconds per frame", "one by one / this"), rows)
