"""What an update and a recommendation take over HTTP: python timings/serving.py MODEL_DIRECTORY

Starts the service as a process of its own, asks it over kept connections, and prints median and
99th percentile, requests a second, and the service's memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ksr_recbole.arguments import Parser, count_of  # noqa: E402
from ksr_recbole.commands import run_command  # noqa: E402
from ksr_recbole.errors import UserError  # noqa: E402


def main() -> int:
    """Measure and print."""
    parser = Parser("timings/serving.py", description=__doc__.partition(":")[0])
    parser.add_argument("directory", metavar="DIR", help="a model directory")
    parser.add_argument("--requests", metavar="N", take=count_of, default=1000, help="of each kind")
    return run_command(_run, parser, None)


def _run(given: Namespace) -> int:
    directory = str(Path(given.directory).resolve())
    command = [sys.executable, "-m", "ksr_recbole", "serve", directory, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as service:
        try:
            url = _address(service)
            _measure(url, given.requests)
            memory = psutil.Process(service.pid).memory_info().rss
            print(f"memory of the service: {memory / 2**20:.0f} MiB")
        finally:
            service.terminate()
            service.wait()
    return 0


def _address(service: subprocess.Popen[str]) -> str:
    assert service.stdout is not None
    for line in service.stdout:
        if line.startswith("http"):
            return line.split()[0].rstrip("/")
    raise UserError("The service did not start; its message stands above.")


def _measure(url: str, n: int) -> None:
    session = requests.Session()

    def ask(path: str, **body: Any) -> Any:
        answer = session.post(f"{url}/{path}", json=body, timeout=600)
        answer.raise_for_status()
        return answer.json()

    ids = [each["id"] for each in session.get(f"{url}/items?limit=100", timeout=60).json()]
    states = [ask("update", items=[])["state"]]
    for k in range(20):
        states.append(ask("update", state=states[-1], item=ids[k % len(ids)])["state"])

    def item(k: int) -> str:
        return ids[k % len(ids)]

    _tell("update", n, lambda k: ask("update", state=states[k % 20], item=item(k)))
    _tell("recommend", n, lambda k: ask("recommend", state=states[1 + k % 20], reasons=False))
    some = max(1, n // 10)
    _tell("recommend with reasons", some, lambda k: ask("recommend", state=states[1 + k % 20]))
    began = time.perf_counter()
    with ThreadPoolExecutor(n) as pool:
        bodies = ({"state": states[k % 20], "item": item(k)} for k in range(n))
        found = list(
            pool.map(lambda b: requests.post(f"{url}/update", json=b, timeout=600), bodies)
        )
    took = time.perf_counter() - began
    right = len({each.json().get("state") for each in found if each.ok})
    print(f"{n:,} updates at once: {right:,} answered, {n / took:,.0f} a second")


def _tell(what: str, n: int, ask: Callable[[int], Any]) -> None:
    ask(0)
    times = []
    for k in range(n):
        began = time.perf_counter()
        ask(k)
        times.append(1000 * (time.perf_counter() - began))
    median, late = np.percentile(times, [50, 99])
    print(f"{what}: median {median:.1f} ms, 99th percentile {late:.1f} ms, {n:,} requests")


if __name__ == "__main__":
    sys.exit(main())
