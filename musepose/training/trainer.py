"""The training loop that both stages share."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from musepose.models.weights import load_models
from musepose.training.checkpoints import States
from musepose.training.config import TrainConfig
from musepose.training.data.cache import FrameCache
from musepose.training.data.dataset import FrameReader, Samples, StepSampler
from musepose.training.data.encoding import Encoder
from musepose.training.data.manifest import Clip
from musepose.training.loss import Objective
from musepose.training.model import save_models, select, weight_paths
from musepose.training.optimizers import make_optimizer
from musepose.training.stages import Stage
from musepose.training.validation import sample_videos
from musepose.utils.errors import UserError
from musepose.utils.options import DTYPES
from musepose.utils.progress import progress_bar

PATIENCE = timedelta(hours=3)  # that processes wait for the first one while it samples videos
BANDS = 5  # equal parts of the timesteps, whose losses are told apart


class Training:
    """One run of a stage: everything set up and, where asked for, taken up from a state."""

    def __init__(self, stage: Stage, config: TrainConfig, clips: list[Clip], resume: str | None):
        self.stage, self.config = stage, config
        self.accelerator = accelerator = make_accelerator(config)
        set_seed(config.seed)
        self.objective = Objective(config, frames_share_timestep=stage.is_clip)
        self.encoder = self._load_frozen()
        self.samples = Samples(clips, stage.chooser(config.data), self._frame_source(clips), config.seed)

        self.model = stage.build(config)
        self.trained = select(self.model, stage.parameters(self.model))
        if config.solver.gradient_checkpointing:
            for unet in (self.model.reference_unet, self.model.denoising_unet):
                unet.enable_gradient_checkpointing()
        if accelerator.device.type == "cpu":
            self.model.pose_guider.to(memory_format=torch.channels_last)  # twice as fast there, the UNets are not
        for parameter in self.model.parameters():  # what is frozen needs no float32
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(self._frozen_dtype())
        self.optimizer, self.schedule = self._optimizer()
        decay = config.solver.ema_decay
        self.ema = None if decay is None else EMAModel(self.trained, decay=decay)
        self.prepared, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        if self.ema is not None:
            accelerator.register_for_checkpointing(self.ema)
        accelerator.register_for_checkpointing(self.schedule)
        self.states = States(accelerator, Path(config.output_dir) / "states", config.total_limit)
        self.done = self.states.load(resume)
        if self.ema is not None:  # which a state brings back on the CPU
            self.ema.to(accelerator.device)
        self._start_tracker()

    def run(self) -> None:
        """Train up to `solver.max_train_steps`; save states, models, samples and losses on the way."""
        config, accelerator, total = self.config, self.accelerator, self.config.solver.max_train_steps
        bands = torch.zeros(2, BANDS)
        batches = self._batches()
        if self.done:  # the run before may have been killed right behind its state
            self._show(self.done)
        shown = accelerator.is_main_process
        with progress_bar(total=total, initial=self.done, desc=self.stage.name, shown=shown) as bar:
            for step in range(self.done + 1, total + 1):
                for _ in range(config.solver.gradient_accumulation_steps):
                    bands += self.micro_step(next(batches))
                self.schedule.step()
                if self.ema is not None:
                    self.ema.step(self.trained)
                bar.update()
                if step % config.log_steps == 0:
                    bar.set_postfix(loss=f"{self._log(bands, step):.4f}", refresh=False)
                    bands.zero_()
                if step % config.checkpointing_steps == 0 or step == total:
                    self.states.save(step)
                self._show(step)
        accelerator.end_training()

    def _show(self, step: int) -> None:
        """Save and sample after `step` steps, where it is time to."""
        config, last = self.config, step >= self.config.solver.max_train_steps
        if last or step % config.save_model_step_interval == 0:
            self.save_models()
        if config.val.test_cases and (last or step % config.val.validation_steps == 0):
            self.validate(step)

    def micro_step(self, samples: dict) -> Tensor:
        """Forward, backward and, at the end of an accumulation, the optimiser's step. → (2, BANDS) losses, counts."""
        accelerator, device = self.accelerator, self.accelerator.device
        batch = self.encoder.batch(samples, device)
        latents = batch.pop("latents")
        draws = self.objective.draw(samples["seed"].tolist(), latents.shape[1:])
        draws = type(draws)(*(t.to(device) for t in (draws.noise, draws.timesteps, draws.dropped)))
        with accelerator.accumulate(self.prepared):
            noisy = self.objective.noisy(latents, draws)
            with accelerator.autocast():  # the prepared model sees to it itself, but not under DeepSpeed
                prediction = self.prepared(noisy, draws.timesteps, **batch, dropped=draws.dropped)
            losses = self.objective.losses(prediction, latents, draws)
            accelerator.backward(losses.mean())
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.trained, self.config.solver.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return sum_by_band(losses.detach(), draws.timesteps, self.objective.steps)

    def save_models(self) -> None:
        """Write the models as they are sampled with: after EMA, where there is one."""
        folder = self.config.model_folder
        if self.accelerator.is_main_process:
            with self._averaged():
                save_models(self.model, folder, self.config.save_dtype, self.stage.stage1_folder(self.config))
        self.accelerator.wait_for_everyone()

    def validate(self, step: int) -> None:
        if self.accelerator.is_main_process:
            # On a GPU the weights are of several precisions, which autocast reconciles.
            autocast = self.accelerator.autocast() if self.accelerator.device.type != "cpu" else nullcontext()
            with self._averaged(), autocast:
                folder = Path(self.config.output_dir) / "samples" / f"step-{step:07d}"
                sample_videos(self.model, self.encoder, self.config, folder)
        self.accelerator.wait_for_everyone()

    def _load_frozen(self) -> Encoder:
        device = self.accelerator.device
        frozen = load_models(weight_paths(self.config, Path()), device, self._frozen_dtype(), ("vae", "image_encoder"))
        autocast = device.type == "cpu" and self.config.solver.mixed_precision == "bf16"
        return Encoder(frozen["vae"], frozen["image_encoder"], self.config.data, autocast)

    def _frozen_dtype(self) -> torch.dtype:
        """Of what is not trained: float32 on a CPU, and where there is no autocast to bring precisions together."""
        if self.accelerator.device.type == "cpu" or self.config.solver.mixed_precision == "no":
            return torch.float32
        return getattr(torch, DTYPES[self.config.weight_dtype])

    def _frame_source(self, clips: list[Clip]) -> FrameReader | FrameCache:
        if self.config.data.cache_latents is None:
            return FrameReader(clips, self.config.data)
        cache = FrameCache(clips, self.config, self.encoder.digest())
        cache.fill(self.accelerator, self.encoder.encode_pictures)
        return cache

    def _optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        solver = self.config.solver
        optimizer = make_optimizer(self.model.named_parameters(), solver)
        steps = {"num_warmup_steps": solver.lr_warmup_steps, "num_training_steps": solver.max_train_steps}
        return optimizer, get_scheduler(solver.lr_scheduler, optimizer, **steps)

    def _batches(self) -> Iterator[dict]:
        config, accelerator = self.config, self.accelerator
        solver, data = config.solver, config.data
        accumulation = solver.gradient_accumulation_steps
        sampler = StepSampler(
            self.done * accumulation,
            solver.max_train_steps * accumulation,
            data.train_bs,
            accelerator.process_index,
            accelerator.num_processes,
        )
        return iter(DataLoader(self.samples, data.train_bs, sampler=sampler, num_workers=data.num_workers))

    def _log(self, bands: Tensor, step: int) -> float:
        """Report the losses since the last report, summed over the processes. → their mean."""
        losses, counts = self.accelerator.reduce(bands.to(self.accelerator.device)).cpu()
        mean = (losses.sum() / counts.sum()).item()
        width = self.objective.steps // BANDS
        told = {"loss": mean, "learning_rate": self.schedule.get_last_lr()[0]}
        told |= {
            f"loss/t{i * width:03d}-{(i + 1) * width - 1:03d}": (losses[i] / counts[i]).item()
            for i in range(BANDS)
            if counts[i]
        }
        self.accelerator.log(told, step)
        return mean

    def _start_tracker(self) -> None:
        if self.accelerator.log_with:
            self.accelerator.init_trackers(self.stage.name)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the model, for a while."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.trained)
        self.ema.copy_to(self.trained)
        try:
            yield
        finally:
            self.ema.restore(self.trained)


def sum_by_band(losses: Tensor, timesteps: Tensor, steps: int) -> Tensor:
    """Losses and timesteps b f → (2, BANDS): the sum of the losses in each band of timesteps, and their number."""
    band = (timesteps.flatten() * BANDS // steps).cpu()
    losses = losses.flatten().float().cpu()
    sums = torch.zeros(BANDS).index_add(0, band, losses)
    return torch.stack([sums, torch.bincount(band, minlength=BANDS).float()])


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Raises UserError: the tracker is unknown or not installed, or the precision is not to be had here."""
    tracker = None if config.report_to == "none" else config.report_to
    try:
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=config.solver.mixed_precision,
            gradient_accumulation_steps=config.solver.gradient_accumulation_steps,
            log_with=tracker,
            project_dir=config.output_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"{error}: change report_to or solver.mixed_precision") from error
    if accelerator.device.type == "cpu" and config.solver.mixed_precision == "fp16":
        raise UserError("solver.mixed_precision is fp16, which needs a GPU: give bf16 or no")
    if tracker and not accelerator.log_with:
        raise UserError(f"report_to: {tracker} is not installed: `pip install {tracker}`, or give none")
    if accelerator.state.deepspeed_plugin is not None:
        settings = AcceleratorState().deepspeed_plugin.deepspeed_config
        settings["train_micro_batch_size_per_gpu"] = config.data.train_bs
        settings["gradient_clipping"] = config.solver.max_grad_norm  # its engine clips, not the accelerator
    return accelerator
