"""Loading the full-size weights from float16 files, compared with reading the files alone."""

import json
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import ROOT, Table, median_times, peak_memory
from benchmarks.models import BUILD, CLIP, VAE, full_size
from musepose.models.weights import WeightPaths

UNET_CONFIG = {"cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]}
LOAD = (
    "import sys, torch; from pathlib import Path; from musepose.models.weights import WeightPaths, load_models; "
    "load_models(WeightPaths.published(Path(sys.argv[1])), 'cpu', torch.float16)"
)


def loading() -> Table:
    """All five models, random float16 weights in the published layout: seconds and resident peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_full_size(folder)
        files = [path for path in folder.rglob("*") if path.suffix in (".pth", ".bin")]
        size = sum(path.stat().st_size for path in files) / 2**30
        imports = ["-c", LOAD.rsplit(";", 1)[0], str(folder)]
        peaks: list[float] = []
        times = median_times(
            {
                "reading the files": lambda: [path.read_bytes() for path in files] and None,
                "importing": lambda: peak_memory(imports),
                "importing and loading": lambda: peaks.append(peak_memory(["-c", LOAD, str(folder)])[0]),
            },
            3,
        )
    load = times["importing and loading"] - times["importing"]
    rows = [*times.items(), ("loading alone", load)]
    remarks = [f"{size:.1f} GiB of files; resident peak {max(peaks) / 1024:.1f} GiB; the files are in the page cache."]
    return Table("Loading, full size, float16", ("what", "seconds"), rows, remarks)


def write_full_size(folder: Path) -> None:
    """Save random weights under the published file names."""
    paths = WeightPaths.published(folder, inference_config=ROOT / "configs" / "inference_v2.yaml")
    for path in (paths.base_model / "unet", paths.vae, paths.image_encoder, paths.denoising_unet.parent):
        path.mkdir(parents=True)
    (paths.base_model / "unet" / "config.json").write_text(json.dumps(UNET_CONFIG))
    (paths.vae / "config.json").write_text(json.dumps(VAE))
    (paths.image_encoder / "config.json").write_text(json.dumps(CLIP))
    state = {name: full_size(name, torch.float16).state_dict() for name in BUILD}
    torch.save(state["vae"], paths.vae / "diffusion_pytorch_model.bin")
    torch.save(state["image_encoder"], paths.image_encoder / "pytorch_model.bin")
    torch.save(state["pose_guider"], paths.pose_guider)
    torch.save(state["reference_unet"], paths.reference_unet)
    denoising = state["denoising_unet"]
    torch.save({k: v for k, v in denoising.items() if "motion_modules" not in k}, paths.denoising_unet)
    torch.save({k: v for k, v in denoising.items() if "motion_modules" in k}, paths.motion_module)
