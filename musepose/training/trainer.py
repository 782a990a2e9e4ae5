"""The training loop of both stages."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor

from musepose.models.weights import load_models
from musepose.training.checkpoints import Checkpoints
from musepose.training.config import TrainConfig
from musepose.training.data.cache import FrameCache
from musepose.training.data.dataset import ClipDataset, FrameReader, StepSampler
from musepose.training.data.encoding import Encoder
from musepose.training.data.loading import load_batches
from musepose.training.data.manifest import Clip
from musepose.training.finite import FiniteCheck
from musepose.training.loss import DenoisingLoss, figure_weights
from musepose.training.model import save_models, set_trainable, weight_paths
from musepose.training.optimizers import make_optimizer
from musepose.training.schedule import Continuation, make_schedule
from musepose.training.stages import Stage
from musepose.training.state_files import StateParts
from musepose.training.validation import sample_videos
from musepose.utils.errors import UserError
from musepose.utils.meeting import meet
from musepose.utils.options import DTYPES
from musepose.utils.progress import progress_bar

logger = logging.getLogger(__name__)

PROCESS_TIMEOUT = timedelta(hours=3)  # the other processes wait while the main process samples validation videos
TIMESTEP_BINS = 5  # the loss is logged for each of these equal ranges of timesteps


class Trainer:
    """One training run of a stage, from scratch or resumed from a checkpoint."""

    def __init__(self, stage: Stage, config: TrainConfig, clips: list[Clip], resume: str | None):
        self.stage, self.config = stage, config
        self.accelerator = accelerator = make_accelerator(config)
        set_seed(config.seed)
        self.loss = DenoisingLoss(config, frames_share_timestep=stage.is_clip)
        self.encoder = self._load_frozen()
        self.samples = ClipDataset(clips, stage.chooser(config.data), self._frame_source(clips), config.seed)

        self.model = stage.build(config)
        self.trained = set_trainable(self.model, stage.parameters(self.model))
        if config.solver.gradient_checkpointing:
            for unet in (self.model.reference_unet, self.model.denoising_unet):
                unet.enable_gradient_checkpointing()
        if accelerator.device.type == "cpu":
            self.model.pose_guider.to(memory_format=torch.channels_last)  # twice as fast on a CPU; the UNets are not
        for parameter in self.model.parameters():  # frozen weights need no float32
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(self._frozen_dtype())
        self.optimizer = make_optimizer(self.model.named_parameters(), config.solver)
        self.schedule = make_schedule(self.optimizer, config.solver)
        decay = config.solver.ema_decay
        self.ema = None if decay is None else EMAModel(self.trained, decay=decay)
        self.prepared, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        parts = StateParts([self.prepared], [self.optimizer], [self.schedule])
        if self.ema is not None:
            parts.others.insert(0, self.ema)
        self.finite = FiniteCheck(accelerator)
        continuation = Continuation(self.optimizer, self.schedule)
        self.checkpoints = Checkpoints(accelerator, Path(config.output_dir) / "states", config.total_limit, parts)
        self.done = self.checkpoints.load(resume)  # finished steps
        if self.done:
            for line in continuation.restore():
                accelerator.print(line, flush=True)
        if self.ema is not None:  # loading a checkpoint puts it on the CPU, with the checkpoint's decay
            self.ema.decay = decay
            self.ema.to(accelerator.device)
        self._start_tracker()

    def run(self) -> None:
        """Train up to `solver.max_train_steps`; write checkpoints, models, validation videos and logs on the way."""
        config, accelerator, total = self.config, self.accelerator, self.config.solver.max_train_steps
        binned = torch.zeros(2, TIMESTEP_BINS)
        batches = self._batches()
        if self.done:  # the run before may have been killed right after it wrote the checkpoint
            self._save_and_validate(self.done)
        shown = accelerator.is_main_process
        with progress_bar(total=total, initial=self.done, desc=self.stage.name, shown=shown) as bar:
            for step in range(self.done + 1, total + 1):
                for _ in range(config.solver.gradient_accumulation_steps):
                    binned += self.micro_step(next(batches))
                self.schedule.step()
                if self.ema is not None:
                    self.ema.step(self.trained)
                self.done = step
                bar.update()
                if step % config.log_steps == 0:
                    bar.set_postfix(loss=f"{self._log(binned, step):.4f}", refresh=False)
                    binned.zero_()
                if step % config.checkpointing_steps == 0 or step == total:
                    self.finite.check_weights(self.trained, step)
                    self.checkpoints.save(step)
                self._save_and_validate(step)
        self._track(accelerator.end_training)

    def _save_and_validate(self, step: int) -> None:
        """Save the models and run validation if they are due after `step` steps."""
        config, last = self.config, step >= self.config.solver.max_train_steps
        if last or step % config.save_model_step_interval == 0:
            self.finite.check_weights(self.trained, step)
            self.save_models()
        if config.val.test_cases and (last or step % config.val.validation_steps == 0):
            self.validate(step)

    def micro_step(self, samples: dict) -> Tensor:
        """Forward, backward and, at the end of an accumulation, an optimizer step. → (2, TIMESTEP_BINS) losses, counts.

        `samples` is a batch of ClipDataset. Raises UserError: loss or gradients are not finite.
        """
        accelerator, device, step = self.accelerator, self.accelerator.device, self.done + 1
        batch = self.encoder.batch(samples, device)
        latents = batch.pop("latents")
        noise_sample = self.loss.sample(samples["seed"].tolist(), latents.shape[1:]).to(device)
        timesteps = noise_sample.timesteps
        with accelerator.accumulate(self.prepared):
            noisy = self.loss.add_noise(latents, noise_sample)
            with accelerator.autocast():  # the prepared model autocasts itself, except under DeepSpeed
                prediction = self.prepared(noisy, timesteps, **batch, dropped=noise_sample.dropped)
            weights = figure_weights(batch["poses"], latents.shape[-2:], self.config.figure_weight)
            losses = self.loss.per_frame(prediction, latents, noise_sample, weights)
            self.finite.check_loss(losses.detach(), step)
            accelerator.backward(losses.mean())
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(self.trained, self.config.solver.max_grad_norm)
                self.finite.check_gradients(norm, step)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return sum_by_timestep_bin(losses.detach(), timesteps, self.loss.num_train_timesteps)

    def save_models(self) -> None:
        """Write the models, with EMA weights if EMA is on."""
        folder = self.config.model_folder
        if self.accelerator.is_main_process:
            with self._ema_weights():
                save_models(self.model, folder, self.config.save_dtype, self.stage.stage1_folder(self.config))
        self.accelerator.wait_for_everyone()

    def validate(self, step: int) -> None:
        """Sample the validation cases into output_dir/samples."""
        if self.accelerator.is_main_process:
            # On a GPU frozen and trained weights have different types: autocast casts them.
            autocast = self.accelerator.autocast() if self.accelerator.device.type != "cpu" else nullcontext()
            with self._ema_weights(), autocast:
                folder = Path(self.config.output_dir) / "samples" / f"step-{step:07d}"
                sample_videos(self.model, self.encoder, self.config, folder)
        self.accelerator.wait_for_everyone()

    def _load_frozen(self) -> Encoder:
        device = self.accelerator.device
        frozen = load_models(weight_paths(self.config, Path()), device, self._frozen_dtype(), ("vae", "image_encoder"))
        autocast = device.type == "cpu" and self.config.solver.mixed_precision == "bf16"
        return Encoder(frozen["vae"], frozen["image_encoder"], self.config.data, autocast)

    def _frozen_dtype(self) -> torch.dtype:
        """The type of frozen weights: float32 on a CPU and without autocast, else `weight_dtype`."""
        if self.accelerator.device.type == "cpu" or self.config.solver.mixed_precision == "no":
            return torch.float32
        return getattr(torch, DTYPES[self.config.weight_dtype])

    def _frame_source(self, clips: list[Clip]) -> FrameReader | FrameCache:
        if self.config.data.cache_latents is None:
            return FrameReader(clips, self.config.data)
        cache = FrameCache(clips, self.config, self.encoder.digest())
        cache.fill(self.accelerator, self.encoder.encode_pictures)
        return cache

    def _batches(self) -> Iterator[dict]:
        accelerator, solver, data = self.accelerator, self.config.solver, self.config.data
        accumulation = solver.gradient_accumulation_steps
        sampler = StepSampler(
            self.done * accumulation,
            solver.max_train_steps * accumulation,
            data.train_bs,
            accelerator.process_index,
            accelerator.num_processes,
        )
        return load_batches(self.samples, data.train_bs, sampler, data.num_workers)

    def _log(self, binned: Tensor, step: int) -> float:
        """Log the losses since the last call, over all processes. → their mean."""
        losses, counts = self.accelerator.reduce(binned.to(self.accelerator.device)).cpu()
        mean = (losses.sum() / counts.sum()).item()
        width = self.loss.num_train_timesteps // TIMESTEP_BINS
        metrics = {"loss": mean, "learning_rate": self.schedule.get_last_lr()[0]}
        metrics |= {
            f"loss/t{i * width:03d}-{(i + 1) * width - 1:03d}": (losses[i] / counts[i]).item()
            for i in range(TIMESTEP_BINS)
            if counts[i]
        }
        if self.tracks:
            self._track(lambda: self.accelerator.log(metrics, step))
        return mean

    def _track(self, write: Callable[[], None]) -> None:
        """Call a function of the tracker. If its files cannot be written, the training goes on without it."""
        try:
            write()
        except OSError as error:
            if self.tracks:
                logger.warning("the log of losses ends at step %d (%s): the training goes on", self.done, error)
            self.tracks = False

    def _start_tracker(self) -> None:
        if self.config.report_to == "tensorboard":
            quiet_log_writers()
        self.tracks = bool(self.accelerator.log_with)
        self._track(lambda: self.accelerator.init_trackers(self.stage.name))

    @contextmanager
    def _ema_weights(self) -> Iterator[None]:
        """The model holds the EMA weights inside this context."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.trained)
        self.ema.copy_to(self.trained)
        try:
            yield
        finally:
            self.ema.restore(self.trained)


def quiet_log_writers() -> None:
    """Print no traceback where TensorBoard's writing thread fails: its next call raises the same error, see _track."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (isinstance(failure.exc_value, OSError) and "tensorboard" in type(failure.thread).__module__):
            before(failure)

    threading.excepthook = hook


def sum_by_timestep_bin(losses: Tensor, timesteps: Tensor, steps: int) -> Tensor:
    """Losses and timesteps b f → (2, TIMESTEP_BINS): sum and number of the losses in each bin of timesteps."""
    index = (timesteps.flatten() * TIMESTEP_BINS // steps).cpu()
    losses = losses.flatten().float().cpu()
    sums = torch.zeros(TIMESTEP_BINS).index_add(0, index, losses)
    return torch.stack([sums, torch.bincount(index, minlength=TIMESTEP_BINS).float()])


def make_accelerator(config: TrainConfig) -> Accelerator:
    """The accelerator of the config.

    Raises UserError: no such tracker, no such precision on this device, or processes of the run that do not come.
    """
    tracker = None if config.report_to == "none" else config.report_to
    meet()
    try:
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=config.solver.mixed_precision,
            gradient_accumulation_steps=config.solver.gradient_accumulation_steps,
            log_with=tracker,
            project_dir=config.output_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT)],
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
        settings["gradient_clipping"] = config.solver.max_grad_norm  # DeepSpeed clips, not the accelerator
    return accelerator
