"""A command killed at any step leaves the old or the new, and the same command then ends well."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests import forked

AT_LEAST = {
    "ConvertOverwrite": 15,
    "Automatic": 12,
    "Export": 2,
    "CellOver": 10,
    "Pack": 6,
    "DataCache": 6,
    "Fetch": 15,
}
"""Places of every kind; with fewer the harness has missed some."""


@pytest.mark.parametrize("kind", AT_LEAST)
def test_killed_at_every_step(kind: str, tmp_path: Path, record_property) -> None:
    done = forked.run(["-m", "tests.killed", kind, tmp_path / "tried"], tmp_path)
    log = tmp_path / "tried" / "output.txt"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    *tries, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert whole["killed"] == 0 and len(tries) >= AT_LEAST[kind]
    record_property("places", len(tries))
    old, new = tries[0]["before"], whole["end"]
    assert old[0] == new[0] == 0 and old != new, (old, new)
    for number, each in enumerate(tries):
        where = f"place {number} of {len(tries)}: {each}\n{log.read_text()[-2000:]}"
        assert each["killed"] == -signal.SIGKILL, where
        assert each["found"] in (old, new), where
        assert (each["again"], each["end"]) == (0, new), where
        assert not each["left"], where
    assert not whole["left"]
