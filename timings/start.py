"""Seconds from the command to the first training epoch, with cached pretraining.

    python timings/start.py [--dataset=ml-1m] [--data_path=FOLDER] [--runs=3]

Runs ``run_recbole.py`` for one epoch as a user would and subtracts, from the time at which the
epoch's line appears, the seconds that the line gives for the epoch.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import common


def start_of(command: list[str]) -> float:
    """Seconds from starting ``command`` to the start of its first epoch."""
    begin = perf_counter()
    with subprocess.Popen(
        command, cwd=common.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            for _, trained, _ in common.epoch_lines(line):
                seconds = perf_counter() - begin - trained
                process.kill()
                return seconds
    common.fail(process.returncode or 1, "".join(said))


def main() -> None:
    """Print the median."""
    parser = common.parser(__doc__, "ml-1m")
    parser.add_argument("--runs", type=common.count, default=3)
    options = parser.parse_args()
    print(common.machine())
    common.prepare(options)  # so that the vectors are cached
    with tempfile.TemporaryDirectory() as folder:
        folders = {"checkpoint_dir": Path(folder)}
        command = common.run_words(options, "KSR", folders, "--epochs=1")
        seconds = [start_of(command) for _ in range(options.runs)]
    print(f"first epoch starts after {common.in_words(seconds)}")


if __name__ == "__main__":
    common.start(main)
