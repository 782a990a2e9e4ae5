"""Memory: what each plan takes on a GPU by rehearsal, and the host's memory against the length of a video."""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import ROOT, Table, peak_memory
from musepose.memory import GIB, PLANS
from musepose.rehearsal import Work, peak_bytes


def plans() -> Table:
    """What every memory plan takes in float16, 48 frames, 512 and 768 pixels, and what the rehearsal itself takes."""
    sys.path.append(str(ROOT / "tests"))
    from test_memory import full_size

    rows = []
    for side in (512, 768):
        for plan in PLANS:
            start = time.perf_counter()
            stages = peak_bytes(full_size(), plan, Work(side, side, 48, 48, guided=True))
            seconds = time.perf_counter() - start
            rows.append((f"{side} x {side}, {plan.name}", *(stages[name] / GIB for name in STAGES), seconds))
    columns = ("plan", *(f"{name}, GiB" for name in STAGES), "rehearsed in, s")
    remarks = ["Counted, not measured on a GPU; models included. The published system is said to take 16 and 28 GB."]
    return Table("Peak memory of a guided sampling, full size, float16, 48 frames", columns, rows, remarks)


STAGES = ("reference", "denoising", "decoding")


def stage_2_memory() -> Table:
    """Resident peak of test_stage_2.py for 300 and 3,000 frames at 512 x 512, tiny models."""
    sys.path.append(str(ROOT / "tests"))
    from media import write_picture
    from tiny_weights import write_published_layout

    from musepose.video import VideoWriter

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = vars(write_published_layout(folder / "weights"))
        keys = {"base_model": "pretrained_base_model_path", "vae": "pretrained_vae_path"}
        keys |= {"image_encoder": "image_encoder_path", "inference_config": "inference_config"}
        config = {keys.get(field, f"{field}_path"): str(path) for field, path in paths.items()}
        write_picture(folder / "ref.png", "rgb")
        for frames in (300, 3000):
            video = folder / f"{frames}.mp4"
            with VideoWriter(video, 512, 512, 30) as writer:
                for index in range(frames):
                    writer.write(torch.full((512, 512, 3), index % 200, dtype=torch.uint8).numpy())
            config["test_cases"] = {str(folder / "ref.png"): [str(video)]}
            (folder / "config.yaml").write_text(json.dumps(config))
            command = ["test_stage_2.py", "--config", str(folder / "config.yaml"), "--output", str(folder / "out")]
            command += ["-W", "512", "-H", "512", "-L", str(frames), "--skip", "0", "--steps", "1", "--cfg", "1"]
            peak, seconds = peak_memory([*command, "--device", "cpu", "--dtype", "fp32"])
            rows.append((frames, peak, seconds))
    remarks = [f"3,000 frames take {rows[1][1] / rows[0][1]:.2f} x the memory of 300."]
    title = "Host memory of test_stage_2.py, tiny models, 512 x 512"
    return Table(title, ("frames", "peak, MiB", "seconds"), rows, remarks)
