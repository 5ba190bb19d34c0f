"""The command line of ``python -m ksr_recbole serve``."""

from __future__ import annotations

import re
import signal
import socket
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from ksr_recbole.arguments import Parser
from ksr_recbole.commands import run_command, say_loading
from ksr_recbole.errors import UserError, shown
from ksr_recbole.interruptions import handled
from ksr_recbole.paths import is_installed

if TYPE_CHECKING:
    from fastapi import FastAPI

SCRIPT = "-m ksr_recbole serve"
_NEEDED = ("fastapi", "uvicorn")
_SECONDS_TO_END = 5
"""What requests that are being answered get when the service is to end."""

_LOCAL = ("127.0.0.1", "localhost", "::1")

HOSTS = [*_LOCAL, "[::1]", "["]
"""How a request may name them.  Of an address in brackets Starlette up to 1.0 sees the first one
alone; no page has such an address as the name that it was loaded from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    about = "Serves a model directory: a page to try it on, and a JSON API (/openapi.json)."
    parser = Parser(SCRIPT, description=about)
    add = parser.add_argument
    add("directory", metavar="DIR", nargs="?", help="the model directory, as export writes it")
    add("--host", metavar="NAME", default="127.0.0.1",
        help="where to listen; 127.0.0.1 by default, which only this machine reaches")  # fmt: skip
    add("--port", metavar="N", take=_port_of, default=8000,
        help="port (default: 8000); 0 takes any free port")  # fmt: skip
    add("--device", metavar="NAME", default="cpu", help="cpu by default, or cuda")
    return run_command(_run, parser, arguments)


def _port_of(text: str, option: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) >= 1 << 16:
        raise UserError(
            f"--{option} is '{shown(text)}'; it must be a whole number from 0 to 65535."
        )
    return int(text)


def _run(given: Namespace) -> int:
    if given.directory is None:
        raise UserError(
            "No model directory is given; write one with `python -m ksr_recbole export "
            "--output=my-model`, then type `python -m ksr_recbole serve my-model`."
        )
    check_installed()
    say_loading(f"Service of {given.directory}")
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.inference.recommender import Recommender
    from ksr_recbole.serve.app import make_app
    from ksr_recbole.serve.service import Service

    service = Service(Recommender.load(given.directory, given.device))
    local = given.host in _LOCAL
    app = make_app(service, HOSTS if local else None)
    with _listening(given.host, given.port) as listener:
        name = f"[{given.host}]" if ":" in given.host else given.host
        # At once, for whoever reads it from a pipe to know the port.
        print(f"http://{name}:{listener.getsockname()[1]}/ is the page; Ctrl-C ends the service.",
              flush=True)  # fmt: skip
        if not local:
            print("Everyone who reaches this address can ask for any user's recommendations.")
        if not service.explains:
            print("This model gives no reasons: it is no KSR, or its memory has weights of 0.")
        _answer(app, listener)
    return 0


def _answer(app: FastAPI, listener: socket.socket) -> None:
    """Answer requests until a signal comes, and then those that are under way."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """End once; a second Ctrl-C would cut answers off, with tracebacks."""
            if not self.should_exit:
                super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, log_level="warning", server_header=False, backlog=4096, lifespan="off",
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )  # fmt: skip
    server = Server(config)

    def end(*_: object) -> None:
        server.handle_exit(signal.SIGTERM, None)

    with handled(end):  # a closed terminal too, which uvicorn leaves to others
        server.run(sockets=[listener])
    with suppress(OSError):  # the terminal may be closed
        print("Stopped.")


def check_installed() -> None:
    """Raise an error if a package of the service is missing.

    Raises:
        UserError: one is missing; it says what to type.
    """
    missing = [name for name in _NEEDED if not is_installed(name)]
    if missing:
        raise UserError(
            f"The service needs {' and '.join(missing)}, which this Python lacks; type "
            f"`pip install {' '.join(missing)}`."
        )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the address is taken, or is none of this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except (OSError, UnicodeError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Cannot listen on {host}, port {port}: {reason}; choose another --port or --host."
        ) from error
    # Connections inherit it.  Without it the body of an answer waits 40 ms for the client to
    # confirm the head; asyncio sets it only on sockets that it made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
