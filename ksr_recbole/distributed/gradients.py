"""Training by several processes: the gradients of their shares of a batch, added up."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from recbole.data.interaction import Interaction
from recbole.trainer.trainer import Trainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ksr_recbole import digests
from ksr_recbole.config_types import Configuration
from ksr_recbole.distributed.group import differing, summed, this_process
from ksr_recbole.distributed.sharding import WEIGHT
from ksr_recbole.errors import UserError, shown
from ksr_recbole.seeds import epoch_seed


class SummedGradients(Trainer):
    """RecBole's trainer whose loss function gives the gradient of the whole batch.

    RecBole's own way (``single_spec``) demands NCCL and takes the mean of the processes'
    gradients, which is right only for shares of equal size.  Here PyTorch's
    ``DistributedDataParallel`` adds them up, and RecBole's loop does not notice.  The
    parameters of the main process are copied to the others first.

    With one process this class does nothing.
    """

    tensorboard: Any

    def __init__(self, config: Configuration, model: nn.Module) -> None:
        super().__init__(config, model)
        self._shared_loss: DistributedDataParallel | None = None
        if this_process().size > 1:
            self._shared_loss = _shared(model)
            if not this_process().main:
                self._write_no_events()

    def _write_no_events(self) -> None:
        """Only the main process's events are for TensorBoard; RecBole's writer is always made."""
        self.tensorboard.close()
        shutil.rmtree(self.tensorboard.log_dir, ignore_errors=True)
        self.tensorboard = _NoEvents()

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable[[Interaction], Tensor] | None = None,
        show_progress: bool = False,
    ) -> Any:
        if self._shared_loss is None:
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        # Each process drops out other units, and a resumed epoch the same as before.
        torch.manual_seed(
            epoch_seed(epoch_seed(self.config["seed"], epoch_idx), this_process().rank)
        )
        loss_func = partial(self._shared_loss, loss_func or self.model.calculate_loss)
        loss = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        return float(summed(np.array(loss)))


def check_same_buffers(buffers: Mapping[str, Tensor]) -> None:
    """Make sure that all processes have trained one model; every process must call this.

    Weights are the same, since their gradients are added up.  A buffer that a model changes in
    training, such as a running mean, sees only a process's share of each batch.  So no process
    has the buffer of one process, and each would validate another model.

    Args:
        buffers: by name, those that training may change.

    Raises:
        UserError: naming a buffer that differs, in every process.
    """
    if this_process().size == 1 or not buffers:
        return
    if names := differing({name: _digest(value) for name, value in buffers.items()}):
        raise UserError(
            f"The buffer {shown(names[0])} of the model was changed in training and now differs "
            "between the processes, since each sees a part of every batch; train this model with "
            "one process (leave nproc out)."
        )


def _digest(tensor: Tensor) -> str:
    numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return digests.of_bytes(numbers.numpy().data)


class _WeightedLoss(nn.Module):
    """The loss of a share as a module, which is what ``DistributedDataParallel`` wraps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, loss_func: Callable[[Interaction], Tensor], interaction: Interaction
    ) -> Tensor:
        return loss_func(interaction) * interaction[WEIGHT][0]


def _shared(model: nn.Module) -> DistributedDataParallel:
    on_gpu = next(model.parameters()).is_cuda
    with warnings.catch_warnings():
        # PyTorch 2.13 renames broadcast_buffers; the new name is unknown to older ones.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        shared = DistributedDataParallel(
            _WeightedLoss(model),
            device_ids=[this_process().local_rank] if on_gpu else None,
            broadcast_buffers=False,  # see check_same_buffers
            find_unused_parameters=True,  # an epoch of triples does not use the GRU's
        )
    shared.register_comm_hook(None, _sum)
    return shared


def _sum(_state, bucket):  # PyTorch compares annotations with types, and ours are strings
    """The sum of the processes' gradients; without this hook it would be their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


class _NoEvents:
    """Takes what a TensorBoard writer takes from RecBole's trainer and keeps nothing."""

    def add_scalar(self, *_args: Any, **_named: Any) -> None:
        """Nothing."""

    def add_hparams(self, *_args: Any, **_named: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
