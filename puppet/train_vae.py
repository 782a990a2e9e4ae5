"""Train the puppets' small autoencoder: images of 192 x 192 ↔ latents of 24 x 24.

    python -m puppet.train_vae [--resume latest] [key=value ...]
    python -m puppet.train_vae --harvest [key=value ...]

The learning rate is constant in all phases; a short decay follows, with a discriminator against blur, and the model is
saved. --harvest runs only the decay, from the newest state of a running or stopped training, and keeps that state.
Several processes: torchrun --nproc-per-node 2 -m puppet.train_vae ...
MusePose does not train its autoencoder, so this script exists for the puppets only.
"""

import argparse
from collections import deque
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from einops import rearrange
from omegaconf import DictConfig
from torch import Tensor

from musepose.cli.entry import Parser, run_script
from musepose.evaluation.metrics import psnr, to_float
from musepose.training.checkpoints import Checkpoints, list_checkpoints, step_of
from musepose.training.config import OPTIMIZERS, Solver
from musepose.training.finite import FiniteCheck
from musepose.training.optimizers import make_optimizer
from musepose.training.seeding import seeded_generator
from musepose.training.state_files import StateParts
from musepose.utils import launch
from musepose.utils.errors import UserError
from musepose.utils.files import project_file
from musepose.utils.folder_lock import locked_folder
from musepose.utils.meeting import meet
from puppet.image_score import gradient_energy
from puppet.scenes import SPAN, make_scene
from puppet.train_settings import check_continuous, constant_then_decay, read_settings
from puppet.vae_losses import PatchDiscriminator, hinge_loss, reconstruction_loss, weighted_mean
from puppet.vae_model import Autoencode, build_vae, normalise_latents, save_vae
from puppet.world import HELD_OUT

CONFIG = project_file(Path("configs/puppet/train_vae.yaml"))
POOL = 256  # images held by a process; each step replaces one
MEASURED = 512  # images from which the latents' mean and standard deviation are computed
EVALUATED = 64  # held-out images of the final evaluation


def picture(number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A random moment of scene `number`: image (size, size, 3) uint8 RGB, and the figure's mask (size, size) uint8."""
    moment = np.random.default_rng([4, number]).uniform(0, SPAN)
    shown = make_scene(number, size).at(moment)
    return shown.image, shown.people[0].mask


class Pool:
    """A sliding window of POOL numbered images; its content depends on the step only."""

    def __init__(self, step: int, rank: int, ranks: int, size: int):
        self.size = size
        self.number = partial(self._number, rank=rank, ranks=ranks)
        self.pictures = deque((picture(self.number(step + i), size) for i in range(POOL)), maxlen=POOL)

    @staticmethod
    def _number(index: int, rank: int, ranks: int) -> int:
        return (index * ranks + rank) % HELD_OUT

    def crops(self, step: int, rank: int, crop: int, batch: int) -> tuple[Tensor, Tensor]:
        """→ images (batch, 3, crop, crop) in [-1, 1], masks (batch, 1, crop, crop) in [0, 1]; mostly around figures."""
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


class Training:
    """One training run, new or resumed.

    First the phases, at a constant learning rate, with states in `output_dir`; then the decay, with states in a
    subfolder, so that a harvest does not change the states of the phases.
    """

    def __init__(self, config: DictConfig, resume: str | None, harvest: bool):
        self.config, solver = config, config.solver
        self.begin = sum(phase.steps for phase in config.phases)
        if harvest:
            resume = "latest"
            self.begin = newest_state(config.output_dir)
        meet()
        self.accelerator = accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision=solver.mixed_precision
        )
        torch.manual_seed(config.seed)
        self.vae = build_vae(config).to(memory_format=torch.channels_last)
        optimizer = optimizer_for(self.vae, solver)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            partial(constant_then_decay, warmup=solver.warmup_steps, begin=self.begin, decay=config.decay.steps),
        )
        self.ema = EMAModel(self.vae.parameters(), decay=solver.ema_decay)
        self.model, self.optimizer = accelerator.prepare(Autoencode(self.vae), optimizer)
        self.parts = StateParts([self.model], [self.optimizer], [self.ema, self.schedule])
        self.finite = FiniteCheck(accelerator)
        self.critic = None
        self.states = Checkpoints(accelerator, config.output_dir, config.total_limit, self.parts)
        decays = self.states.folder / f"decay-{self.begin:07d}"
        self.decays = Checkpoints(accelerator, decays, config.total_limit, self.parts)
        self.done = self._load(resume)
        self.ema.to(accelerator.device)  # a state loads it on the CPU

    def _load(self, resume: str | None) -> int:
        """Load a state. → finished steps. Raises UserError: as Checkpoints.load; the settings do not fit the state."""
        in_decay = resume == "latest" and bool(list_checkpoints(self.decays.folder))
        if in_decay or (resume is not None and Path(resume).parent.resolve() == self.decays.folder.resolve()):
            self._add_critic()
            done = self.decays.load(resume)
        else:
            done = self.states.load(resume)
        if done > self.begin + self.config.decay.steps or (done > self.begin and self.critic is None):
            raise UserError(
                f"the state is of step {done}, the phases end at {self.begin}: give them more steps, or --harvest"
            )
        if done:
            check_continuous(self.schedule, self.config.solver.learning_rate)
        return done

    def _add_critic(self) -> None:
        """Add the discriminator of the decay. From then on, states include it."""
        decay = self.config.decay
        critic = PatchDiscriminator(decay.critic_channels).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(critic.parameters(), decay.critic_learning_rate, betas=(0.5, 0.9))
        self.critic, self.critic_optimizer = self.accelerator.prepare(critic, optimizer)
        self.parts.models.append(self.critic)
        self.parts.optimizers.append(self.critic_optimizer)

    def run(self) -> None:
        config, accelerator = self.config, self.accelerator
        rank, ranks = accelerator.process_index, accelerator.num_processes
        pool = Pool(self.done, rank, ranks, config.size)
        ends = np.cumsum([phase.steps for phase in config.phases])
        total = self.begin + config.decay.steps
        mean_loss = 0.0
        for step in range(self.done, total):
            is_decay = step >= self.begin
            if is_decay and self.critic is None:
                self._add_critic()
            phase = config.decay if is_decay else config.phases[int(np.searchsorted(ends, step, side="right"))]
            mean_loss += self._step(pool, step, phase) / config.log_steps
            if (step + 1) % config.log_steps == 0:
                accelerator.print(f"step {step + 1}/{total}  loss {mean_loss:.4f}", flush=True)
                mean_loss = 0.0
            if (step + 1) % config.checkpointing_steps == 0 or step + 1 in (self.begin, total):
                self.finite.check_weights((p for model in self.parts.models for p in model.parameters()), step + 1)
                (self.decays if is_decay else self.states).save(step + 1)
        if accelerator.is_main_process:
            self.ema.copy_to(self.vae.parameters())
            normalise_and_save(self.vae.cpu().eval(), config)
        accelerator.wait_for_everyone()
        accelerator.end_training()

    def _step(self, pool: Pool, step: int, phase: DictConfig) -> float:
        """One optimizer step. → the reconstruction loss."""
        config, solver, accelerator = self.config, self.config.solver, self.accelerator
        rank, side = accelerator.process_index, phase.crop // 8
        images, masks = (t.to(accelerator.device) for t in pool.crops(step, rank, phase.crop, phase.batch))
        images = images.contiguous(memory_format=torch.channels_last)
        shape = phase.batch, self.vae.config.latent_channels, side, side
        noise = torch.randn(shape, generator=seeded_generator(config.seed, step, rank)).to(images.device)
        output, kl = self.model(images, noise)
        output = output.float()
        loss = reconstruction_loss(output, images, masks, solver.figure_weight)
        whole = loss + solver.kl_weight * kl
        if self.critic is not None:
            self.critic.requires_grad_(False)
            whole = whole - config.decay.adversarial_weight * weighted_mean(
                self.critic(output).float(), masks, solver.figure_weight
            )
            self.critic.requires_grad_(True)
        self.finite.check_loss(whole.detach(), step + 1)
        accelerator.backward(whole)
        norm = accelerator.clip_grad_norm_(self.model.parameters(), solver.max_grad_norm)
        self.finite.check_gradients(norm, step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.step(self.vae.parameters())
        if self.critic is not None:
            answers = self.critic(torch.cat([images, output.detach()])).float().chunk(2)
            loss_of_critic = hinge_loss(*answers, masks, solver.figure_weight)
            self.finite.check_loss(loss_of_critic.detach(), step + 1)
            accelerator.backward(loss_of_critic)
            self.critic_optimizer.step()
            self.critic_optimizer.zero_grad()
        return loss.item()


def newest_state(folder: str) -> int:
    """Finished steps of the newest state of the phases. Raises UserError: there is none."""
    states = list_checkpoints(Path(folder))
    if not states:
        raise UserError(f"{folder} holds no state to harvest: train first")
    return step_of(states[-1])


def optimizer_for(vae: AutoencoderKL, solver: DictConfig) -> torch.optim.Optimizer:
    """The optimizer of the settings. Raises UserError: unknown optimizer."""
    if solver.optimizer not in OPTIMIZERS:
        raise UserError(f"solver.optimizer is {solver.optimizer}: give {' or '.join(OPTIMIZERS)}")
    settings = Solver(
        optimizer=solver.optimizer,
        learning_rate=solver.learning_rate,
        adam_beta2=solver.adam_beta2,
        adam_weight_decay=solver.weight_decay,
    )
    return make_optimizer(vae.named_parameters(), settings)


@torch.no_grad()
def normalise_and_save(vae: AutoencoderKL, config: DictConfig) -> None:
    """Normalise the latents to mean 0 and deviation 1, save the model, evaluate it on held-out images."""
    numbers = range(HELD_OUT - MEASURED, HELD_OUT)
    latents = torch.cat([vae.encode(_images([picture(n, config.size)[0]])).latent_dist.mean for n in numbers])
    normalise_latents(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    save_vae(vae.half(), Path(config.save_dir))
    vae = AutoencoderKL.from_pretrained(config.save_dir, torch_dtype=torch.float32)
    frame, figure, energy = [], [], []
    for number in range(HELD_OUT, HELD_OUT + EVALUATED):
        image, mask = picture(number, config.size)
        images, weights = _images([image]), mask / 255
        output = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)[0]
        output = (output.permute(1, 2, 0).numpy() + 1) / 2
        frame.append(psnr(output, to_float(image)))
        figure.append(psnr(output, to_float(image), weights))
        energy.append(gradient_energy(output, weights) / gradient_energy(to_float(image), weights))
    print(
        f"wrote {config.save_dir}: {EVALUATED} held-out images, PSNR {np.mean(frame):.2f} dB, on the figure "
        f"{np.mean(figure):.2f} dB, gradient energy on the figure {np.mean(energy):.3f} of the ground truth's",
        flush=True,
    )


def main() -> None:
    parser = Parser(
        prog="-m puppet.train_vae", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--resume", help="latest, or the folder of a training state")
    which.add_argument("--harvest", action="store_true", help="run only the decay, from the newest state")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as solver.learning_rate=1e-4")
    arguments = parser.parse_args()
    config = read_settings(arguments.config, arguments.overrides, CONFIG)
    lock = locked_folder(Path(config.output_dir), "training") if launch.rank() == 0 else nullcontext()
    with lock:
        Training(config, arguments.resume, arguments.harvest).run()


if __name__ == "__main__":
    run_script(main)
