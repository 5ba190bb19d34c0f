"""Where the time of a whole job goes: from the command to the result, with nothing cached.

    python timings/whole_job.py [--dataset=ml-1m] [--data_path=FOLDER] [--model=KSR]

``run_recbole.py`` runs as a user would start it, with empty folders for its caches.  The start is
what is left of the wall clock after the parts that the result file names.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import common


def main() -> None:
    """Print a line for each part."""
    parser = common.parser(__doc__, "ml-1m")
    parser.add_argument("--model", default="KSR")
    options = parser.parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as temporary:
        folders = {key: Path(temporary, key) for key in common.FOLDERS}
        command = common.run_words(options, options.model, folders)
        begin = perf_counter()
        done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=False)
        whole = perf_counter() - begin
        if done.returncode:
            common.fail(done.returncode, done.stderr)
        [file] = folders["results_dir"].glob("*.json")
        result = json.loads(file.read_text())
    parts = {"start and end": whole - sum(result["seconds"].values()), **result["seconds"]}
    for name, seconds in parts.items():
        print(f"{name:>16} {seconds:8.1f} s {seconds / whole:6.1%}")
    trained = result["epochs_trained"]
    print(f"{'the whole job':>16} {whole:8.1f} s; {trained} epochs, best {result['best_epoch']}")
    print(f"peak memory {result['peak_memory_mib']:,.0f} MiB")


if __name__ == "__main__":
    common.start(main)
