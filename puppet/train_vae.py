"""Train the puppets' autoencoder: pictures of 192 x 192 ↔ latents of 24 x 24, as small as Stable Diffusion's is big.

    accelerate launch --cpu --num_processes 2 -m puppet.train_vae [--resume latest]

The published project never trains its autoencoder, so this script is the puppet world's own.
"""

import math
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from einops import rearrange
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from musepose.cli.entry import Parser, run_script
from musepose.training.checkpoints import States, seeded
from musepose.utils.files import require_file
from puppet.scenes import SPAN, make_scene
from puppet.world import HELD_OUT

POOL = 256  # pictures that a process holds; each step one is replaced by a fresh one
MEASURED = 512  # pictures that the latents' mean and deviation are taken from
JUDGED = 64  # held-out pictures of the closing figures


def picture(number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Some moment of scene `number`: image (size, size, 3) uint8 RGB, and how much of each pixel is figure, uint8."""
    moment = np.random.default_rng([4, number]).uniform(0, SPAN)
    shown = make_scene(number, size).at(moment)
    return shown.image, shown.people[0].mask


class Pool:
    """The newest POOL pictures of an endless row; which they are depends on the step alone."""

    def __init__(self, step: int, rank: int, ranks: int, size: int):
        self.size = size
        self.number = partial(self._number, rank=rank, ranks=ranks)
        self.pictures = deque((picture(self.number(step + i), size) for i in range(POOL)), maxlen=POOL)

    @staticmethod
    def _number(index: int, rank: int, ranks: int) -> int:
        return (index * ranks + rank) % HELD_OUT

    def crops(self, step: int, rank: int, crop: int, batch: int) -> tuple[Tensor, Tensor]:
        """→ images (batch, 3, crop, crop) in [-1, 1] and masks (batch, 1, crop, crop) in [0, 1], mostly of figures."""
        rng = np.random.default_rng([5, step, rank])
        images, masks = [], []
        for index in rng.choice(POOL, batch, replace=False):
            image, mask = self.pictures[index]
            y, x = rng.integers(0, self.size - crop + 1, 2)
            if rng.random() < 0.7 and mask.any():
                rows, columns = np.nonzero(mask > 127)
                aim = rng.integers(len(rows))
                y, x = np.clip((rows[aim] - crop // 2, columns[aim] - crop // 2), 0, self.size - crop)
            images.append(image[y : y + crop, x : x + crop])
            masks.append(mask[y : y + crop, x : x + crop])
        self.pictures.append(picture(self.number(step + POOL), self.size))
        return _images(images), torch.from_numpy(np.stack(masks))[:, None] / 255


def _images(pictures: list[np.ndarray]) -> Tensor:
    return rearrange(torch.from_numpy(np.stack(pictures)), "b h w c -> b c h w") / 127.5 - 1


def reconstruction_loss(output: Tensor, images: Tensor, masks: Tensor, figure_weight: float) -> Tensor:
    """L1 + MSE, a pixel of the figure counting `figure_weight` times one of the background."""
    weights = 1 + (figure_weight - 1) * masks
    error = output - images
    return ((error.abs() + error.square()) * weights).sum() / (3 * weights.sum())


def train(config: DictConfig, resume: str | None) -> None:
    solver = config.solver
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=solver.mixed_precision)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(config.seed)
    vae = build_vae(config)
    optimizer = torch.optim.AdamW(vae.parameters(), solver.learning_rate, weight_decay=solver.weight_decay)
    total = sum(phase.steps for phase in config.phases)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate, config=config))
    ema = EMAModel(vae.parameters(), decay=solver.ema_decay)
    model, optimizer = accelerator.prepare(Autoencode(vae), optimizer)
    accelerator.register_for_checkpointing(ema, schedule)
    states = States(accelerator, config.output_dir, config.total_limit)
    done = states.load(resume)
    pool = Pool(done, rank, ranks, config.size)
    mean_loss = 0.0
    ends = np.cumsum([phase.steps for phase in config.phases])
    for step in range(done, total):
        phase = config.phases[int(np.searchsorted(ends, step, side="right"))]
        images, masks = (t.to(accelerator.device) for t in pool.crops(step, rank, phase.crop, phase.batch))
        noise = torch.randn(
            phase.batch,
            vae.config.latent_channels,
            phase.crop // 8,
            phase.crop // 8,
            generator=seeded(config.seed, step, rank),
        ).to(images.device)
        output, kl = model(images, noise)
        loss = reconstruction_loss(output.float(), images, masks, solver.figure_weight)
        accelerator.backward(loss + solver.kl_weight * kl)
        accelerator.clip_grad_norm_(model.parameters(), solver.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        ema.step(vae.parameters())
        mean_loss += loss.item() / config.log_steps
        if (step + 1) % config.log_steps == 0:
            accelerator.print(f"step {step + 1}/{total}  loss {mean_loss:.4f}", flush=True)
            mean_loss = 0.0
        if (step + 1) % config.checkpointing_steps == 0 or step + 1 == total:
            states.save(step + 1)
    if accelerator.is_main_process:
        ema.copy_to(vae.parameters())
        finish(vae.cpu().eval(), config)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def learning_rate(step: int, config: DictConfig) -> float:
    """The factor after `step` steps: a cosine to zero over each cycle of phases, the first step of which restarts it.

    SGDR's warm restarts (Loshchilov & Hutter 2017). The very first steps are warmed up.
    """
    begin = end = 0
    for phase in config.phases:
        if phase.get("restart") and step >= end:
            begin = end
        elif phase.get("restart"):
            break
        end += phase.steps
    warm = min(1, (step + 1) / config.solver.warmup_steps)
    return warm * (0.5 + 0.5 * math.cos(math.pi * min((step - begin) / (end - begin), 1)))


def build_vae(config: DictConfig) -> AutoencoderKL:
    levels = len(config.model.block_out_channels)
    return AutoencoderKL(
        **OmegaConf.to_container(config.model),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
        sample_size=config.size,
        scaling_factor=1.0,  # `finish` sees to latents of unit variance
    )


class Autoencode(torch.nn.Module):
    """Encoding and decoding as one forward pass, which is what data-parallel training wraps."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """→ the pictures again, and the mean Kullback-Leibler distance of a latent from the unit Gaussian."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return self.vae.decode(latents).sample, kl


@torch.no_grad()
def finish(vae: AutoencoderKL, config: DictConfig) -> None:
    """Give the latents mean 0 and deviation 1, write the model, and say how well it reconstructs held-out pictures."""
    numbers = range(HELD_OUT - MEASURED, HELD_OUT)
    latents = torch.cat([vae.encode(_images([picture(n, config.size)[0]])).latent_dist.mean for n in numbers])
    normalise_latents(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    vae.half().save_pretrained(config.save_dir)
    vae = AutoencoderKL.from_pretrained(config.save_dir, torch_dtype=torch.float32)
    frame, figure = [], []
    for number in range(HELD_OUT, HELD_OUT + JUDGED):
        image, mask = picture(number, config.size)
        images, mask = _images([image]), torch.from_numpy(mask) / 255
        error = ((vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1) - images) / 2).square().mean(1)[0]
        frame.append(-10 * math.log10(error.mean()))
        figure.append(-10 * math.log10((error * mask).sum() / mask.sum()))
    print(
        f"wrote {config.save_dir}: {JUDGED} held-out pictures, PSNR {np.mean(frame):.2f} dB, "
        f"on the figure {np.mean(figure):.2f} dB",
        flush=True,
    )


def normalise_latents(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Fold the latents' statistics (c,) into the two 1x1 convolutions beside them; the pictures stay the same."""
    channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.bias[:channels] -= mean
    encode.bias[:channels] /= deviation
    encode.weight[:channels] /= deviation[:, None, None, None]
    encode.bias[channels:] -= 2 * deviation.log()  # the log variance
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= deviation[None, :, None, None]


def main() -> None:
    parser = Parser(prog="-m puppet.train_vae", description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/puppet/train_vae.yaml"))
    parser.add_argument("--resume", help="latest, or the folder of a training state")
    arguments = parser.parse_args()
    train(OmegaConf.load(require_file(arguments.config, "name a config")), arguments.resume)


if __name__ == "__main__":
    run_script(main)
