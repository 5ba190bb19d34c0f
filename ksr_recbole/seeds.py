"""Random numbers: an epoch's own seed, and generators left as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of one epoch, so that an epoch draws the same numbers in a resumed training."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


@contextmanager
def own_random_numbers(device: str) -> Iterator[None]:
    """Leave Python's, numpy's and torch's generators as they were found.

    PyKEEN seeds all three.  Were they left so, a model trained after pretraining would start
    from other weights than one that finds its vectors in the cache.
    """
    python, numpy = random.getstate(), np.random.get_state()
    on_gpu = [torch.device(device)] if torch.device(device).type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=on_gpu):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
