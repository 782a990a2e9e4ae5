"""Batches of a data set, from worker processes or from this one."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from musepose.utils.errors import UserError

logger = logging.getLogger(__name__)

LOCKS = 8  # more than a worker and its queues have
FEWER = "lower data.num_workers (0: no worker processes), or data.train_bs"


def load_batches(samples: Dataset, size: int, sampler: Sampler, workers: int) -> Iterator[dict[str, Any]]:
    """Batches of `size` samples: nested dictionaries of stacked tensors.

    Where workers cannot start, this process loads. Raises UserError: as the data set does, or a worker dies.
    """
    reason = _why_not(workers)
    if reason is not None:
        logger.warning("no data loader workers can start here (%s): the training's own process loads", reason)
        workers = 0
    try:
        for batch in DataLoader(_Caught(samples), size, sampler=sampler, num_workers=workers, collate_fn=_stack):
            if isinstance(batch, UserError):
                raise batch
            yield _to_tensors(batch)
    except (OSError, RuntimeError) as error:
        text = " ".join(str(error).split())
        is_of_workers = isinstance(error, OSError) or "DataLoader worker (pid" in text
        if not workers or not is_of_workers or "Original Traceback" in text:  # of the data set's code
            raise
        raise UserError(f"the data loader's workers do not work here ({text[:200]}): {FEWER}") from error


def _why_not(workers: int) -> str | None:
    """Why workers cannot start here, or None. Their locks need a little of /dev/shm, and PyTorch would leave errors."""
    try:
        locks = [torch.multiprocessing.get_context().Lock() for _ in range(LOCKS * (workers + 1) if workers else 0)]
    except OSError as error:
        return str(error)
    del locks
    return None


class _Caught(Dataset):
    """A data set that returns its UserErrors: raised in a worker, they would come with its traceback as their text."""

    def __init__(self, samples: Dataset):
        self.samples = samples

    def __getitem__(self, number: int) -> Any:
        try:
            return self.samples[number]
        except UserError as error:
            return error


def _stack(samples: list) -> Any:
    """→ nested dictionaries of stacked NumPy arrays, or the first UserError among the samples.

    Workers send arrays through pipes. Tensors would travel in shared memory, of which containers have 64 MB.
    """
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    first = samples[0]
    if isinstance(first, dict):
        return {key: _stack([sample[key] for sample in samples]) for key in first}
    return np.stack([np.asarray(sample) for sample in samples])


def _to_tensors(batch: Any) -> Any:
    return {k: _to_tensors(v) for k, v in batch.items()} if isinstance(batch, dict) else torch.from_numpy(batch)
