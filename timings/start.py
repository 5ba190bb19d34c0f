"""Seconds from the command to the first training epoch, with cached pretraining.

    python timings/start.py [--dataset=ml-1m] [--data_path=FOLDER] [--runs=3]

Runs ``run_recbole.py`` for one epoch as a user would and subtracts, from the time at which the
epoch's line appears, the seconds that the line gives for the epoch.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import common

ROOT = Path(__file__).resolve().parents[1]
EPOCH = re.compile(r"epoch 0 training.*?time: ([0-9.]+)s")


def start_of(command: list[str]) -> float:
    """Seconds from starting ``command`` to the start of its first epoch."""
    begin = perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            match = EPOCH.search(re.sub(r"\x1b\[[0-9;]*m", "", line))
            if match:
                seconds = perf_counter() - begin - float(match[1])
                process.kill()
                return seconds
    sys.exit("".join(said))


def main() -> None:
    """Print the median."""
    parser = common.parser(__doc__, "ml-1m")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(common.machine())
    common.prepare(options)  # so that the vectors are cached
    with tempfile.TemporaryDirectory() as folder:
        values = [f"--{pair}" for pair in options.set]
        values += [f"--data_path={Path(options.data_path).resolve()}"] if options.data_path else []
        command = [sys.executable, "run_recbole.py", "--model=KSR", f"--dataset={options.dataset}"]
        command += ["--epochs=1", "--show_progress=False", f"--checkpoint_dir={folder}", *values]
        seconds = [start_of(command) for _ in range(options.runs)]
    print(f"first epoch starts after {common.in_words(seconds)}")


if __name__ == "__main__":
    main()
