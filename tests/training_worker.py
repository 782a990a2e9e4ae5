"""One of several processes: only the last one has a loss that is not finite, and a state that it cannot read."""

import gc
import sys
from pathlib import Path

import torch
from tiny_states import TinyTraining

import musepose.training.checkpoints as checkpoints
from musepose.training.finite import FiniteCheck
from musepose.utils.errors import UserError


def main(folder: Path) -> None:
    training = TinyTraining(folder)
    accelerator = training.accelerator
    is_last = accelerator.process_index == accelerator.num_processes - 1
    training.train(2)
    check, said = FiniteCheck(accelerator), []
    check.check_loss(torch.tensor(1.0), 6)
    try:
        check.check_loss(torch.tensor(float("nan") if is_last else 1.0), 7)
    except UserError as error:
        said.append(str(error))
    read_state = checkpoints.read_state

    def read(accelerator, path, parts):
        if is_last and path.name == "step-0000002":
            raise ValueError("a bad disk")
        read_state(accelerator, path, parts)

    checkpoints.read_state = read
    done = training.states.load("latest")
    (folder / f"said-{accelerator.process_index}").write_text(f"{done} {' '.join(said)}")
    group = torch.distributed.group.WORLD
    accelerator.end_training()
    # One by getrefcount, one by `group`; without the third DDP would hold the last when `training` is freed.
    del training, accelerator, check
    gc.collect()
    assert sys.getrefcount(group) > 2


main(Path(sys.argv[1]))
