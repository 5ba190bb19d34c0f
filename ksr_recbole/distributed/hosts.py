"""Which processes a run consists of and which of them are started here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hosts:
    """The processes of a run.

    Attributes:
        nproc: processes started on this machine.
        world_size: processes in all.
        ip: address or name of the machine that starts process 0.
        port: where that machine listens, or ``None`` for a free port (one machine only).
        offset: number of the first process started here.
    """

    nproc: int = 1
    world_size: int = 1
    ip: str = "localhost"
    port: int | None = None
    offset: int = 0

    @property
    def distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.world_size > 1

    @property
    def several(self) -> bool:
        """Whether some of the processes are started by another command."""
        return self.world_size > self.nproc

    @property
    def first(self) -> bool:
        """Whether process 0 is started here."""
        return self.offset == 0
