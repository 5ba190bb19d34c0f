"""Where the commands that start a run's processes find each other: a store of torch.distributed.

The machine that starts process 0 holds the store.  The processes form their group through it;
the commands that start and watch them tell each other there when a run has failed.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from datetime import timedelta

import psutil
import torch.distributed as dist

from ksr_recbole.distributed.hosts import Hosts
from ksr_recbole.errors import ProcessEndedError, UserError

JOIN_SECONDS = 300.0
"""How long the machines of a run wait for each other at its start."""

FAREWELL_SECONDS = 20.0
"""How long the store is kept for machines that have not taken their leave at the end."""

POST_SECONDS = 10.0
"""How long a busy machine may take to tell the others that the run has failed there."""

_REPLY_SECONDS = 60.0
_POLL_SECONDS = 0.2
_LOOPBACK = "127.0.0.1"


class Meeting:
    """The store of a run, as the command that starts processes sees it.

    On one machine nobody else is met, and the store listens on the loopback interface only.

    Args:
        hosts: the processes of the run.
        seconds: how long to wait for the other machines.

    Attributes:
        address: where this machine's processes reach the store.
        port: its port.

    Raises:
        UserError: the port is in use, the machine of process 0 cannot be reached, or the
            machines do not fit together.
    """

    def __init__(self, hosts: Hosts, seconds: float = JOIN_SECONDS) -> None:
        self._hosts = hosts
        deadline = time.monotonic() + seconds
        if hosts.first:
            self.address, self._own_address = _LOOPBACK, _resolved(hosts)
            listener = _listen(hosts)
            self.port = listener.getsockname()[1]
            self._store = connect(self.address, self.port, listener.detach())
        else:
            self.address, self.port = hosts.ip, hosts.port
            self._own_address = _await_store(hosts, deadline, seconds)
            self._store = connect(self.address, self.port)
        if hosts.several:
            self._register()
            self._await_others(deadline, seconds)

    @property
    def interface(self) -> str | None:
        """Name of the network interface towards the other processes, if it can be told."""
        for name, addresses in psutil.net_if_addrs().items():
            if any(a.address.split("%")[0] == self._own_address for a in addresses):
                return name
        return None

    def _register(self) -> None:
        hosts = self._hosts
        size = int(self._store.compare_set("world_size", "", str(hosts.world_size)))
        if size != hosts.world_size:
            raise UserError(
                f"Config key world_size is {hosts.world_size}, but another machine of this run "
                f"said {size} first; give the same on all machines."
            )
        for rank in range(hosts.offset, hosts.offset + hosts.nproc):
            if self._store.add(f"process/{rank}", 1) > 1:
                raise UserError(
                    f"Process {rank} of {hosts.world_size} is started twice; let group_offset on "
                    "each machine be the number of processes on the machines before it."
                )
        self._store.add("joined", hosts.nproc)

    def _await_others(self, deadline: float, seconds: float) -> None:
        while (joined := self._count("joined")) < self._hosts.world_size:
            if time.monotonic() > deadline:
                raise UserError(
                    f"Only {joined} of {self._hosts.world_size} processes (world_size) were "
                    f"started within {seconds:.0f} seconds; start the others with the same ip, "
                    "port and world_size and their own group_offset."
                )
            time.sleep(_POLL_SECONDS)

    def _count(self, key: str) -> int:
        try:
            return self._store.add(key, 0)
        except dist.DistError as error:
            raise ProcessEndedError(self._unreachable()) from error

    def _unreachable(self) -> str:
        return (
            f"The command that started process 0, at {self.address} port {self.port}, has ended "
            "or cannot be reached any more; see what it printed there."
        )

    def post(self, sentence: str) -> None:
        """Tell the other machines that the run has failed, unless one has told so before."""
        if self._hosts.several:
            with suppress(dist.DistError):
                self._store.compare_set("failure", "", sentence)

    def posted(self) -> str | None:
        """Why the run has failed on another machine, or ``None`` if it has not."""
        if not self._hosts.several:
            return None
        try:
            failed = self._store.check(["failure"])
            return self._store.get("failure").decode() if failed else None
        except dist.DistError:
            return self._unreachable()

    def await_post(self) -> str | None:
        """As :meth:`posted`, giving another machine :data:`POST_SECONDS` to tell it."""
        deadline = time.monotonic() + POST_SECONDS
        while not (told := self.posted()) and self._hosts.several and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return told

    def leave(self) -> None:
        """Take leave; the machine with the store stays until the others have, for a while."""
        if not self._hosts.several:
            return
        with suppress(dist.DistError):
            left = self._store.add("left", self._hosts.nproc)
            deadline = time.monotonic() + FAREWELL_SECONDS
            while self._hosts.first and left < self._store.add("joined", 0):
                if time.monotonic() > deadline:
                    return
                time.sleep(_POLL_SECONDS)
                left = self._store.add("left", 0)


def connect(address: str, port: int, listener: int | None = None) -> dist.TCPStore:
    """The store at an address, or held by this process on an open socket."""
    return dist.TCPStore(
        address,
        port,
        is_master=listener is not None,
        timeout=timedelta(seconds=_REPLY_SECONDS),
        wait_for_workers=False,
        master_listen_fd=listener,
    )


def _listen(hosts: Hosts) -> socket.socket:
    port = hosts.port or 0
    try:
        if not hosts.several:
            return socket.create_server((_LOOPBACK, port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"Port {port} (config key port) cannot be listened on: {error.strerror}; "
            "choose another with --port=N, the same on all machines."
        ) from error


def _resolved(hosts: Hosts) -> str:
    """The address of the machine of process 0, which is this one."""
    if not hosts.several:
        return _LOOPBACK
    try:
        found = socket.getaddrinfo(hosts.ip, hosts.port, type=socket.SOCK_STREAM)
        return str(found[0][4][0])
    except OSError as error:
        raise _no_such_host(hosts.ip) from error


def _await_store(hosts: Hosts, deadline: float, seconds: float) -> str:
    """Wait until the machine of process 0 answers; this machine's address towards it."""
    while True:
        try:
            left = min(5.0, max(_POLL_SECONDS, deadline - time.monotonic()))
            with socket.create_connection((hosts.ip, hosts.port), timeout=left) as probe:
                return probe.getsockname()[0]
        except socket.gaierror as error:
            raise _no_such_host(hosts.ip) from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"Nobody answers at {hosts.ip} port {hosts.port} (config keys ip and port) "
                    f"within {seconds:.0f} seconds: {error.strerror or error}; start process 0 "
                    "there with --group_offset=0, and let no firewall come between."
                ) from error
            time.sleep(_POLL_SECONDS)


def _no_such_host(ip: str) -> UserError:
    return UserError(
        f"Config key ip is '{ip}', which is not the address or name of a machine known here; "
        "give that of the machine that starts process 0."
    )
