"""Which processes a configuration asks for, and whether its run can be done by so many."""

from __future__ import annotations

import torch

from ksr_recbole import registry
from ksr_recbole.config.shared import ProcessOptions
from ksr_recbole.config_types import Configuration
from ksr_recbole.distributed.hosts import Hosts
from ksr_recbole.errors import UserError

PROCESS_KEYS = tuple(ProcessOptions.checks())
"""The config keys, with RecBole's names; ``configs/overall.yaml`` documents them."""

DEFAULT_PORT = 5678
"""RecBole's, for runs on several machines; on one machine a free port is taken."""


def read_hosts(config: Configuration) -> Hosts:
    """The processes that ``config`` asks for.

    Raises:
        UserError: a value is not possible, or two of them do not fit.
    """
    options = ProcessOptions.of(config)
    nproc, offset, port = options.nproc, options.group_offset, options.port
    world_size = options.world_size
    if world_size <= 0:  # RecBole's -1: all processes are started here
        world_size = nproc
    if world_size < nproc:
        raise UserError(
            f"Config key nproc is {nproc}, but world_size, the processes on all machines "
            f"together, is {world_size}; give a world_size of at least {nproc}, or none."
        )
    if offset + nproc > world_size:
        raise UserError(
            f"Config key group_offset is {offset}, but with nproc {nproc} and world_size "
            f"{world_size} it must be between 0 and {world_size - nproc}: it is the number "
            "of processes started on the machines before this one."
        )
    if world_size > nproc and port is None:
        port = DEFAULT_PORT
    return Hosts(nproc, world_size, options.ip, port, offset)


def check_possible(config: Configuration, hosts: Hosts) -> None:
    """Refuse what cannot be done by several processes.

    Raises:
        UserError: a model whose batches cannot be divided, or too few GPUs.
    """
    model = config["model"]
    if not registry.is_compared(model):
        raise UserError(
            f"{model} is a model of RecBole. RecBole trains it with several processes only on "
            "NVIDIA GPUs, and this project has not tested that. Use --nproc=1."
        )
    if not registry.MODELS[model].divisible:
        raise UserError(
            f"The model {model} cannot be trained by several processes: its loss needs the "
            "whole batch (norms over all rows). Run it with --nproc=1."
        )
    if config["device"].type == "cuda" and torch.cuda.device_count() < hosts.nproc:
        raise UserError(
            f"Config key nproc is {hosts.nproc}, but gpu_id '{config['gpu_id']}' gives "
            f"{torch.cuda.device_count()} GPUs here; name one for each process "
            "(--gpu_id=0,1), or none to train on CPUs (--gpu_id=)."
        )
