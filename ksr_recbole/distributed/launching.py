"""Starting a run's processes on this machine, watching them, and ending all if one ends.

The processes are started by ``torch.multiprocessing.spawn``, as RecBole's and those of PyTorch's
elastic launcher are.  ``docs/distributed.md`` says why that launcher is not used here.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from torch.multiprocessing import spawn
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessException,
    ProcessExitedException,
)

from ksr_recbole.compat import silence_upstream_warnings
from ksr_recbole.distributed import group
from ksr_recbole.distributed.hosts import Hosts
from ksr_recbole.distributed.meeting import Meeting, connect
from ksr_recbole.errors import EXIT_STATUS, ProcessEndedError, UserError, one_line
from ksr_recbole.processes import leaving_interruptions, serve_parent, threads_per_worker
from ksr_recbole.text import say
from ksr_recbole.threads import THREAD_VARIABLES, given_variables

TICK_SECONDS = 0.5
"""How often the commands on several machines look whether the run has failed on another."""

LINGER_SECONDS = 5.0
"""How long a process that lost its peer waits before exiting, so that the original failure is
reported first."""

END_SECONDS = 10.0
"""How long processes may take to end before they are killed."""

_LOST = 75
_TERMINATED = 143


def launch(
    work: Callable[..., Any], arguments: Sequence[Any], hosts: Hosts, device: str = "cpu"
) -> Any:
    """Call ``work(*arguments)`` in every process of a run.

    Args:
        work: a function that can be imported, since the processes are new ones.
        arguments: pickled for each of them.
        hosts: the processes; those of this machine are started.
        device: ``"cpu"`` (Gloo) or ``"cuda"`` (NCCL for what lies on GPUs).

    Returns:
        What ``work`` returned in the first process of this machine.

    Raises:
        UserError: raised by ``work``, or a process ended, here or on another machine.
        ProcessException: ``work`` raised another error; the message has its traceback.
        KeyboardInterrupt: Ctrl-C; its ``checkpoint`` is the file that the main process named.
    """
    meeting = Meeting(hosts)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    start = (hosts, meeting.address, meeting.port, backend)
    pipes = [get_context("spawn").Pipe(duplex=False) for _ in range(hosts.nproc)]
    reports = _Reports([receiver for receiver, _ in pipes])
    senders = [sender for _, sender in pipes]
    if not hosts.first:
        last = hosts.offset + hosts.nproc - 1
        told = f"Processes {hosts.offset} to {last} of {hosts.world_size} start here"
        say(f"{told}; process 0, at {hosts.ip}, shows the progress.", sys.stderr)
    with _environment(hosts, meeting.interface), leaving_interruptions():
        context = spawn(_process, (*start, senders, work, arguments), hosts.nproc, join=False)
    for sender in senders:
        sender.close()
    try:
        return _watch(context, reports, meeting, hosts)
    except KeyboardInterrupt as interruption:
        reports.collect()  # what was told since the last look
        interruption.checkpoint = reports.checkpoint  # type: ignore[attr-defined]
        how = "add --resume to continue" if reports.checkpoint else "start it again"
        meeting.post(f"The run was interrupted on another machine; {how}.")
        raise
    finally:
        _end(context)
        meeting.leave()


# In the parent ----------------------------------------------------------------------------------


class _Reports:
    """What the processes have told their parent."""

    def __init__(self, receivers: list[Connection]) -> None:
        self._receivers = receivers
        self.checkpoint: str | None = None
        self.errors: list[Exception] = []
        self.result: Any = None

    def collect(self) -> None:
        """Take in what has come; large results are sent only as they are received."""
        for receiver in list(self._receivers):
            try:
                while receiver.poll():
                    name, value = receiver.recv()
                    if name == "error":
                        self.errors.append(value)
                    else:
                        setattr(self, name, value)
            except EOFError:  # the process has ended
                self._receivers.remove(receiver)


def _watch(context: ProcessContext, reports: _Reports, meeting: Meeting, hosts: Hosts) -> Any:
    """Wait for the processes' end; if one fails, here or elsewhere, say which and why."""
    # The parent tells in its own words what PyTorch would log about ending processes.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    while True:
        try:
            done = context.join(timeout=TICK_SECONDS)
        except ProcessException as failure:
            reports.collect()
            error = _cause(failure, reports, meeting, hosts)
            meeting.post(_posted(error))
            raise error from None
        reports.collect()
        if done:
            return reports.result
        if told := meeting.posted():
            raise ProcessEndedError(told)


def _cause(
    failure: ProcessException,
    reports: _Reports,
    meeting: Meeting,
    hosts: Hosts,
) -> Exception:
    """The error to raise for the first process that failed."""
    if reports.errors:
        return reports.errors[0]
    if not isinstance(failure, ProcessExitedException):
        return failure
    # The first to end is the cause, unless it ended because it had lost another.
    rank, exit_code = hosts.offset + failure.error_index, failure.exit_code
    if exit_code == _LOST:
        return ProcessEndedError(
            meeting.await_post()
            or f"Process {rank} of {hosts.world_size} lost its connection to another one; see "
            "the output of the command that started the other one."
        )
    how = failure.signal_name or f"exit status {exit_code}"
    more = f"; continue with --resume={reports.checkpoint}" if reports.checkpoint else ""
    return ProcessEndedError(
        f"Process {rank} of {hosts.world_size} ended unexpectedly ({how}), and the run with it; "
        "if memory ran out, take fewer processes (nproc) or a smaller train_batch_size"
        f"{more}."
    )


def _posted(error: Exception) -> str:
    """What the other machines print about an error: of a traceback, its last line."""
    if isinstance(error, ProcessException):
        return "A process on another machine failed; " + str(error).strip().splitlines()[-1]
    return one_line(error)


def _end(context: ProcessContext) -> None:
    """Make sure that no process is left."""
    for process in context.processes:
        if process.is_alive():
            process.terminate()
    deadline = time.monotonic() + END_SECONDS
    for process in context.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _environment(hosts: Hosts, interface: str | None) -> Iterator[None]:
    """What processes started in the block inherit: their share of the cores, and which network."""
    values = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    if interface is not None:
        values["GLOO_SOCKET_IFNAME"] = interface  # else the one of the machine's name
        if hosts.several:
            values["NCCL_SOCKET_IFNAME"] = interface
    added = {name: value for name, value in values.items() if name not in os.environ}
    own = [name for name in THREAD_VARIABLES if name not in given_variables()]
    added |= dict.fromkeys(own, str(threads_per_worker(hosts.nproc)))
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# In a process -----------------------------------------------------------------------------------


def _process(
    local_rank: int,
    hosts: Hosts,
    address: str,
    port: int,
    backend: str,
    senders: list[Connection],
    work: Callable[..., Any],
    arguments: Sequence[Any],
) -> None:
    """One process of the run; its parent learns of results and mistakes through its pipe."""
    serve_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # temporary files are removed
    silence_upstream_warnings()
    for other, sender in enumerate(senders):
        if other != local_rank:
            sender.close()
    tell = senders[local_rank].send
    here = group.Process(hosts.offset + local_rank, hosts.world_size, local_rank)
    try:
        with group.joined(connect(address, port), here, backend, tell):
            result = work(*arguments)
        if local_rank == 0:
            tell(("result", result))
    except (UserError, OSError) as error:
        tell(("error", error))
        _end_at_once(EXIT_STATUS)
    except SystemExit:  # the parent's SIGTERM
        _end_at_once(_TERMINATED)
    except Exception as error:
        if not group.lost(error):
            raise
        with suppress(SystemExit):
            time.sleep(LINGER_SECONDS)
        _end_at_once(_LOST)


def _end_at_once(status: int) -> None:
    """End without Python's own clearing up, in which threads of a broken group may abort."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
