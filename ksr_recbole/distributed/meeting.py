"""Where the commands that start a run's processes find each other: a store of torch.distributed.

The machine that starts process 0 holds the store.  The processes form their group through it;
the commands that start and watch them tell each other there when a run has failed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, TypeVar, cast

import psutil
import torch.distributed as dist

from ksr_recbole import digests
from ksr_recbole.distributed.hosts import Hosts
from ksr_recbole.errors import ProcessEndedError, UserError
from ksr_recbole.text import say

JOIN_SECONDS = 300.0
"""How long the machines of a run wait for each other at its start."""

FAREWELL_SECONDS = 20.0
"""How long the store is kept for machines that have not taken their leave at the end."""

POST_SECONDS = 10.0
"""How long a busy machine may take to tell the others that the run has failed there."""

REPLY_SECONDS = 30.0
"""How long the machine of process 0 may take to answer before it counts as lost."""

MESSAGE_LENGTH = 600
"""How many characters of another machine's message are shown."""

_EVENTS = ("failed", "left")
_DIGITS = 64  # of a token, and of its SHA-256
_POLL_SECONDS = 0.2
_LAST_WORDS = 5.0  # seconds for a message of a command that ends, which is not answered
_LOOPBACK = "127.0.0.1"


T = TypeVar("T")


class Meeting:
    """The store of a run, as the command that starts processes sees it.

    Anyone who can reach the store can read and write in it.  So each command publishes, when it
    registers, the hashes of two random tokens, and the others remember them.  A message of the
    command counts only if it reveals the token of its hash.

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
        self._tokens = {event: secrets.token_hex(_DIGITS // 2) for event in _EVENTS}
        self._others: list[dict[str, str]] = []
        deadline = time.monotonic() + seconds
        if hosts.several:
            _check_one_address(hosts.ip)
        if hosts.first:
            listener = _listen(hosts)
            self.address, self.port = listener.getsockname()[:2]
            self._own_address = self.address
            self._store = connect(self.address, self.port, listener.detach())
        else:
            self.address, self.port = hosts.ip, hosts.port
            self._own_address = _await_store(hosts, deadline, seconds)
            try:
                self._store = _in_time(lambda: connect(self.address, self.port))
            except dist.DistError as error:
                raise UserError(
                    f"The program at {hosts.ip} port {hosts.port} (config keys ip and port) is "
                    "not the command that starts process 0, or it has ended; check which "
                    "program uses this port."
                ) from error
        if hosts.several:
            try:
                self._await_others(self._register(), deadline, seconds)
            except dist.DistError as error:
                raise ProcessEndedError(self._unreachable()) from error

    @property
    def interface(self) -> str | None:
        """Name of the network interface towards the other processes, if it can be told."""
        own = self._own_address.split("%")[0]
        if ip_address(own).is_loopback:
            own = _LOOPBACK  # any address of 127.0.0.0/8 is of the same interface
        for name, addresses in psutil.net_if_addrs().items():
            if any(a.address.split("%")[0] == own for a in addresses):
                return name
        return None

    def _register(self) -> str:
        """Reserve this machine's processes; what stands under their numbers from now on."""
        hosts = self._hosts
        size = self._swap("world_size", str(hosts.world_size))
        if size != str(hosts.world_size):
            raise UserError(
                f"Config key world_size is {hosts.world_size}, but another machine of this run "
                f"has {_shown(size)}; give the same on all machines."
            )
        card = "".join(map(_hash, self._tokens.values()))
        for rank in range(hosts.offset, hosts.offset + hosts.nproc):
            if self._swap(f"process/{rank}", card) != card:
                raise UserError(
                    f"Process {rank} of {hosts.world_size} is started twice; let group_offset on "
                    "each machine be the number of processes on the machines before it."
                )
        return card

    def _await_others(self, own: str, deadline: float, seconds: float) -> None:
        if self._hosts.first:
            told = f"Process 0 listens at {self.address} port {self.port} for the other machines."
            say(told, sys.stderr)
        ranks = range(self._hosts.world_size)
        while not all(cards := [self._swap(f"process/{rank}") for rank in ranks]):
            if time.monotonic() > deadline:
                raise UserError(
                    f"Only {len(list(filter(None, cards)))} of {len(cards)} processes (world_size) "
                    f"were started within {seconds:.0f} seconds; start the others with the same "
                    "ip, port and world_size and their own group_offset."
                )
            time.sleep(_POLL_SECONDS)
        self._others = [_card(text) for text in set(cards) - {own}]

    def _swap(self, key: str, new: str = "") -> str:
        """The text under a key, which is ``new`` if there was none; it does not wait for one."""
        text = _in_time(lambda: self._store.compare_set(key, "", new))
        return text.decode(errors="replace")

    def _unreachable(self) -> str:
        return (
            f"The command that started process 0, at {self.address} port {self.port}, has ended "
            "or cannot be reached any more; see what it printed there."
        )

    def _announce(self, event: str, text: str = "") -> None:
        token = self._tokens[event]
        with suppress(dist.DistError):
            _in_time(lambda: self._store.set(f"{event}/{_hash(token)}", token + text), _LAST_WORDS)

    def _announced(self, event: str) -> list[str]:
        """The texts of the other commands that announced an event; all else is ignored."""
        hashes = [card[event] for card in self._others]
        texts = [self._swap(f"{event}/{expected}") for expected in hashes]
        return [
            _shown(text[_DIGITS:])
            for expected, text in zip(hashes, texts, strict=True)
            if _hash(text[:_DIGITS]) == expected
        ]

    def post(self, sentence: str) -> None:
        """Tell the other machines that the run has failed here."""
        if self._hosts.several:
            self._announce("failed", sentence)

    def posted(self) -> str | None:
        """Why the run has failed on another machine, or ``None`` if it has not."""
        try:
            return next(iter(self._announced("failed")), None)
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
        if self._hosts.several:
            self._announce("left")
        deadline = time.monotonic() + FAREWELL_SECONDS
        with suppress(dist.DistError):
            while self._hosts.first and len(self._announced("left")) < len(self._others):
                if time.monotonic() > deadline:
                    return
                time.sleep(_POLL_SECONDS)


def _hash(token: str) -> str:
    return digests.of_bytes(token.encode())


def _card(text: str) -> dict[str, str]:
    """The hashes that a command registered with, by event.

    Raises:
        UserError: the text is not a command's.
    """
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS * len(_EVENTS)}}}", text):
        raise UserError(
            "A program that is not part of this run, or another version of this one, took the "
            "place of one of its processes; choose another port with --port=N on all machines."
        )
    return {event: text[k * _DIGITS :][:_DIGITS] for k, event in enumerate(_EVENTS)}


def _shown(text: str) -> str:
    """Text from another machine as it may be printed: one line, bounded, no control characters."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:MESSAGE_LENGTH])
    return f"{shown}..." if len(text) > MESSAGE_LENGTH else shown


def connect(address: str, port: int, listener: int | None = None) -> dist.TCPStore:
    """The store at an address, or held by this process on an open socket."""
    return dist.TCPStore(
        address,
        port,
        is_master=listener is not None,
        timeout=timedelta(seconds=2 * REPLY_SECONDS),  # PyTorch logs pages when it gives up
        wait_for_workers=False,
        master_listen_fd=listener,
    )


def _in_time(call: Callable[[], T], seconds: float | None = None) -> T:
    """What a call of the store returns; alone it might wait without limit, and ignore Ctrl-C.

    Raises:
        DistError: the store cannot be reached, or does not answer within ``seconds``, by default
            :data:`REPLY_SECONDS`.
    """
    outcome: list[tuple[Any, dist.DistError | None]] = []

    def attempt() -> None:
        try:
            outcome.append((call(), None))
        except dist.DistError as error:
            outcome.append((None, error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(REPLY_SECONDS if seconds is None else seconds)
    value, error = outcome[0] if outcome else (None, dist.DistNetworkError("no answer"))
    if error is not None:
        raise error
    return cast(T, value)


def _check_one_address(ip: str) -> None:
    """Refuse all addresses of a machine, which do not tell on which network processes talk.

    Gloo would take the interface of the machine's name, often the loopback one.

    Raises:
        UserError: the address means all, and the environment does not name an interface.
    """
    if os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    with suppress(OSError, UnicodeError):  # told by who listens there or connects
        found = {entry[4][0] for entry in socket.getaddrinfo(ip, None)}
        if any(ip_address(str(each).split("%")[0]).is_unspecified for each in found):
            raise UserError(
                f"Config key ip is '{ip}', which means every address of the machine. Give the "
                "address of the machine that starts process 0, or set GLOO_SOCKET_IFNAME to the "
                "name of an interface."
            )


def _listen(hosts: Hosts) -> socket.socket:
    """A socket that listens at the address given, and on one machine at the loopback address.

    Raises:
        UserError: the address is not one of this machine's, or the port is in use.
    """
    port = hosts.port or 0
    try:
        found = socket.getaddrinfo(
            hosts.ip if hosts.several else _LOOPBACK, port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise _no_such_host(hosts.ip) from error
    family, _, _, _, address = found[0]
    try:
        return socket.create_server(address, family=family)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"Config key ip is '{hosts.ip}', which is {address[0]} and not an address of "
                "this machine, but process 0 is started here (group_offset 0); give one of this "
                "machine's own addresses, on all machines."
            ) from error
        raise UserError(
            f"Cannot listen on port {port} (config key port): {error.strerror}; "
            "choose another with --port=N, the same on all machines."
        ) from error


def _await_store(hosts: Hosts, deadline: float, seconds: float) -> str:
    """Wait until the machine of process 0 answers; this machine's address towards it."""
    while True:
        try:
            left = min(5.0, max(_POLL_SECONDS, deadline - time.monotonic()))
            with socket.create_connection((hosts.ip, hosts.port), timeout=left) as probe:
                return probe.getsockname()[0]
        except (socket.gaierror, UnicodeError) as error:  # the latter of an empty or long label
            raise _no_such_host(hosts.ip) from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"Nobody answers at {hosts.ip} port {hosts.port} (config keys ip and port) "
                    f"within {seconds:.0f} seconds: {error.strerror or error}; start process 0 "
                    "there with --group_offset=0, and check that no firewall blocks the port."
                ) from error
            time.sleep(_POLL_SECONDS)


def _no_such_host(ip: str) -> UserError:
    return UserError(
        f"Config key ip is '{ip}', which is not the address or name of a machine known here; "
        "give that of the machine that starts process 0."
    )
