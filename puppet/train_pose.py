"""Train the puppets' person detector (YOLOX) and keypoint network (RTMPose), one after the other or in parallel.

    OMP_NUM_THREADS=1 python -m puppet.train_pose --part yolox [--resume latest]
    OMP_NUM_THREADS=1 python -m puppet.train_pose --part dwpose [--resume latest]

MusePose uses DWPose's weights, so this script exists for the puppets only. Random numbers depend on the seed and the
step only: an interrupted and resumed run ends with the same weights as an uninterrupted one.
"""

from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from musepose.cli.entry import Parser, run_script
from musepose.models.state_dicts import read_checkpoint, require_all, take_matching
from musepose.pose.detectors.dwpose import mm_compat
from musepose.training.checkpoints import Checkpoints
from musepose.training.finite import FiniteCheck
from musepose.training.optimizers import Muon
from musepose.training.state_files import StateParts
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file, project_file, require_file
from musepose.utils.folder_lock import locked_folder
from musepose.utils.saving import open_to_save
from puppet.pose_networks import Dwpose, Yolox, half_tensors
from puppet.pose_pictures import SHOTS, Shot, make_shots
from puppet.pose_samples import LEAST_SHOWN, DetectionBatch, KeypointBatch, detection_batch, keypoint_batch
from puppet.train_settings import check_continuous, constant_then_decay, read_settings
from puppet.world import HELD_OUT

CONFIG = project_file(Path("configs/puppet/train_pose.yaml"))
PARTS = {"yolox": Yolox, "dwpose": Dwpose}
OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}


class Pool:
    """A sliding window over the numbered set-ups; its content depends on the step only."""

    def __init__(self, step: int, set_ups: int):
        self.set_ups = set_ups
        self.shots = deque((s for n in range(set_ups) for s in make_shots((step + n) % HELD_OUT)), set_ups * SHOTS)

    def advance(self, step: int) -> None:
        """Replace the oldest set-up after `step` finished steps."""
        self.shots.extend(make_shots((step + self.set_ups - 1) % HELD_OUT))


def sample_batch(
    pool: Pool, network: nn.Module, batch: int, rng: np.random.Generator
) -> DetectionBatch | KeypointBatch:
    """A random, augmented batch for one of the networks."""
    if isinstance(network, Yolox):
        return detection_batch([pool.shots[i] for i in rng.choice(len(pool.shots), batch)], network.side, rng)
    figures = visible_figures(pool.shots)
    chosen = [figures[i] for i in rng.choice(len(figures), batch)]
    return keypoint_batch(chosen, network.size, network.flip_indices, rng)


def held_out_batches(network: nn.Module, set_ups: int, batch: int = 32) -> list[DetectionBatch | KeypointBatch]:
    """Batches of held-out images without augmentation, for the evaluations in the log."""
    shots = [shot for n in range(set_ups) for shot in make_shots(HELD_OUT + n)]
    if isinstance(network, Yolox):
        return [detection_batch(shots[i : i + batch], network.side) for i in range(0, len(shots), batch)]
    figures = visible_figures(shots)
    return [
        keypoint_batch(figures[i : i + batch], network.size, network.flip_indices)
        for i in range(0, len(figures), batch)
    ]


def visible_figures(shots) -> list[tuple[Shot, int]]:
    return [(shot, i) for shot in shots for i in np.flatnonzero(shot.shown >= LEAST_SHOWN)]


def evaluate(network: nn.Module, batches: list) -> str:
    """Mean metrics over held-out batches, as one line."""
    network.eval()
    figures = [network.evaluate(batch) for batch in batches]
    return "  ".join(f"{name} {np.mean([f[name] for f in figures]):.2f} %" for name in figures[0])


def ema_with_warmup(average: Tensor, value: Tensor, steps: Tensor, decay: float) -> Tensor:
    """Exponential moving average with a smaller decay in the first steps."""
    kept = min(decay, (1 + float(steps)) / (10 + float(steps)))
    return average * kept + value * (1 - kept) if average.is_floating_point() else value


def train(part: str, config: DictConfig, resume: str | None) -> Path:
    """Train one of the two networks and write its weights. → the file."""
    settings, solver = config[part], config.solver
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=solver.mixed_precision)
    torch.manual_seed(config.seed)
    network = PARTS[part](require_file(Path(settings.config), "name the mm config in the training's config"))
    if config.start_from is not None:
        load_weights(network.model, Path(config.start_from) / f"{part}.pth")
    optimizer = make_optimizer(network, settings, solver.weight_decay)
    decay = min(settings.decay_steps, settings.steps)
    rate = partial(constant_then_decay, warmup=solver.warmup_steps, begin=settings.steps - decay, decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    mean = AveragedModel(network, avg_fn=partial(ema_with_warmup, decay=solver.ema_decay), use_buffers=True)
    model, optimizer = accelerator.prepare(network, optimizer)
    parts, finite = StateParts([model], [optimizer], [mean, schedule]), FiniteCheck(accelerator)
    states = Checkpoints(accelerator, Path(config.output_dir) / part, config.total_limit, parts)
    done = states.load(resume)
    if done:
        check_continuous(schedule, settings.learning_rate)
    mean.to(accelerator.device)
    pool = Pool(done, config.pool)
    held_out = [batch.to(accelerator.device) for batch in held_out_batches(network, config.judged)]
    mean_loss = 0.0
    for step in range(done, settings.steps):
        network.train()
        batch = sample_batch(pool, network, settings.batch, np.random.default_rng([config.seed, step]))
        batch = batch.to(accelerator.device)
        torch.manual_seed(config.seed + step)  # for dropout, where a config has it
        loss = model(batch)
        finite.check_loss(loss.detach(), step + 1)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(network.parameters(), solver.max_grad_norm)
        finite.check_gradients(norm, step + 1)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        mean.update_parameters(network)
        pool.advance(step + 1)
        mean_loss += loss.item() / config.log_steps
        last = step + 1 == settings.steps
        if (step + 1) % config.log_steps == 0:
            print(f"{part} step {step + 1}/{settings.steps}  loss {mean_loss:.4f}", flush=True)
            mean_loss = 0.0
        if (step + 1) % config.judging_steps == 0 or last:
            print(f"{part} step {step + 1}/{settings.steps}  held out: {evaluate(mean.module, held_out)}", flush=True)
        if (step + 1) % config.checkpointing_steps == 0 or last:
            finite.check_weights(network.parameters(), step + 1)
            states.save(step + 1)
    path = Path(config.save_dir) / f"{part}.pth"
    with complete_file(path) as partial_path, open_to_save(partial_path) as file:
        torch.save(dict(state_dict=half_tensors(mean.module.model.cpu())), file)
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return path


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights that `train` wrote. Raises UserError: there are none, or they are of another architecture."""
    require_file(path, "correct start_from, or give null")
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    found = take_matching(wanted, read_checkpoint(path), path)
    require_all(wanted, found, path)
    model.load_state_dict(found)


def make_optimizer(network: nn.Module, settings: DictConfig, weight_decay: float) -> torch.optim.AdamW:
    """AdamW or Muon (for matrices); no weight decay on norms and biases. Raises UserError: another optimizer."""
    if settings.optimizer not in OPTIMIZERS:
        raise UserError(f"the optimizer is {settings.optimizer}: give {' or '.join(OPTIMIZERS)}")
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        dict(params=[p for p in trained if p.ndim > 1], weight_decay=weight_decay, orthogonal=True),
        dict(params=[p for p in trained if p.ndim <= 1], weight_decay=0.0, orthogonal=False),
    ]
    return OPTIMIZERS[settings.optimizer](groups, settings.learning_rate)


def main() -> None:
    parser = Parser(prog="-m puppet.train_pose", description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=list(PARTS), required=True, help="which of the two networks")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--resume", help="latest, or the folder of a training state")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the config")
    arguments = parser.parse_args()
    config = read_settings(arguments.config, arguments.set, CONFIG)
    with mm_compat.quiet(), locked_folder(Path(config.output_dir) / arguments.part, "training"):
        train(arguments.part, config, arguments.resume)


if __name__ == "__main__":
    run_script(main)
