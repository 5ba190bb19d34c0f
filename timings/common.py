"""What the benchmarks share: runs without a log or in a child process, medians, the machine."""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksr_recbole.compat import recbole_on_new_libraries, silence_upstream_warnings
from ksr_recbole.versions import check_versions

check_versions()
silence_upstream_warnings()

import torch  # noqa: E402
from recbole.config import Config as RecBoleConfig  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

from ksr_recbole.commands import ended  # noqa: E402
from ksr_recbole.config import Config  # noqa: E402
from ksr_recbole.quick_start.prepare import find_vectors, load_data, make_trainer  # noqa: E402
from ksr_recbole.quick_start.stages import peak_memory_mib  # noqa: E402, F401
from ksr_recbole.text import without_colour  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
"""This checkout."""

LONGEST = 50
"""Items of a history that RecBole keeps (MAX_ITEM_LIST_LENGTH)."""

FOLDERS = ("checkpoint_dir", "results_dir", "pretrain_dir", "data_cache_dir")
"""Config keys of the folders that a run writes to."""

EPOCH = re.compile(r"epoch (\d+) training.*?time: ([0-9.]+)s(?:.*?loss: ([0-9.]+))?")
"""The line of a trained epoch in what ``run_recbole.py`` says: number, seconds and loss."""


class Bench(NamedTuple):
    """A dataset, split and batched, and the trainer of a model on it once there is one."""

    config: Any
    dataset: Any
    train: Any
    valid: Any
    test: Any
    trainer: Any = None

    def train_epoch(self, epoch: int) -> None:
        """Train an epoch, the first one being 0."""
        self.trainer._train_epoch(self.train, epoch)

    def step(self, batch: Any) -> None:
        """Train on a batch."""
        self.trainer.optimizer.zero_grad()
        self.trainer.model.calculate_loss(batch).backward()
        self.trainer.optimizer.step()


def start(main: Callable[[], None]) -> NoReturn:
    """Run a benchmark and end its process: a mistake gives one sentence, as in every command."""

    def command() -> int:
        main()
        return 0

    sys.exit(ended(command))


def fail(status: int, said: str) -> NoReturn:
    """End as a command has that a benchmark started, with what that said."""
    print(said.strip(), file=sys.stderr)
    sys.exit(status)


def count(text: str) -> int:
    """A whole number from 1, for an argument."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def amount(text: str) -> float:
    """A number above 0, for an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def pair(text: str) -> str:
    """``KEY=VALUE``, for an argument."""
    if not text.partition("=")[0] or "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as epochs=3")
    return text


def parser(doc: str | None, dataset: str = "ml-100k") -> argparse.ArgumentParser:
    """Options of every benchmark: the dataset and config values."""
    result = argparse.ArgumentParser(description=(doc or "benchmark").splitlines()[0])
    result.add_argument("--dataset", default=dataset)
    result.add_argument("--data_path", help="folder with a folder of the dataset's name")
    result.add_argument("--gpu_id", default="", help="a GPU; by default the CPU")
    result.add_argument(
        "--set", nargs="*", default=[], type=pair, metavar="KEY=VALUE", help="config values"
    )
    return result


def for_generated(folder: Path) -> argparse.Namespace:
    """Options for the dataset that a benchmark has written to ``folder/generated``."""
    return parser(None).parse_args(["--dataset=generated", f"--data_path={folder}"])


def load(options: argparse.Namespace, model: str = "KSR-paper", **values: Any) -> Bench:
    """Load and split the data; KSR in the paper's setting unless another model is named."""
    given = {"show_progress": False, "gpu_id": options.gpu_id, "state": "WARNING"}
    given["checkpoint_dir"] = tempfile.mkdtemp()
    given |= dict(pair.split("=", 1) for pair in options.set) | values
    if options.data_path:
        given["data_path"] = options.data_path
    config = Config(model, options.dataset, None, given)
    loaded = Bench(config, *load_data(config))
    print(loaded.dataset.table1().line(), flush=True)
    return loaded


def ready(loaded: Bench) -> Bench:
    """Pretrain (or find the cached vectors) unless there are vectors; make model and trainer."""
    if loaded.dataset.pretrained is None:
        find_vectors(loaded.config, loaded.dataset)
    return loaded._replace(trainer=make_trainer(loaded.config, loaded.dataset))


def prepare(options: argparse.Namespace, **values: Any) -> Bench:
    """:func:`load` and :func:`ready`."""
    return ready(load(options, **values))


class RecBolesConfig(RecBoleConfig):
    """RecBole's own configuration, which stops on today's NumPy otherwise."""

    def compatibility_settings(self) -> None:
        recbole_on_new_libraries()


def loss_values(loss: str) -> dict[str, Any]:
    """Config values of a loss, which may name its number of sampled items: ``sampled_CE:256``."""
    name, _, n = loss.partition(":")
    return {"loss_type": name, **({"sampled_items": n} if n else {})}


def recbole_config(model: type, name: str, folder: Path, values: dict[str, Any]) -> Any:
    """RecBole's own configuration of one of its models on ``folder/name``, and its seed set."""
    sys.argv = sys.argv[:1]  # RecBole reads it
    fixed = {
        "show_progress": False,
        "state": "WARNING",
        "gpu_id": "",
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "MAX_ITEM_LIST_LENGTH": LONGEST,
    }
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
    split |= values.pop("eval_args", {})
    config = RecBolesConfig(model, name, None, {**fixed, **values, "eval_args": split})
    init_seed(config["seed"], True)
    return config


def run_words(
    options: argparse.Namespace, model: str, folders: Mapping[str, Path], *more: str
) -> list[str]:
    """The command that trains a model as a user would; it is to be run in a checkout.

    Args:
        options: of :func:`parser`.
        model: its name.
        folders: where the run writes, by config key (:data:`FOLDERS`).
        more: other arguments.
    """
    words = [sys.executable, "run_recbole.py", f"--model={model}", f"--dataset={options.dataset}"]
    words += ["--show_progress=False", *more, *(f"--{pair}" for pair in options.set)]
    words += [f"--{key}={folder}" for key, folder in folders.items()]
    if options.data_path:
        words.append(f"--data_path={Path(options.data_path).resolve()}")
    return words


def epoch_lines(text: str) -> list[tuple[int, float, str]]:
    """Number, seconds and loss, as it is printed, of each epoch in what a run said."""
    found = EPOCH.findall(without_colour(text))
    return [(int(epoch), float(seconds), loss) for epoch, seconds, loss in found]


def json_of(command: Sequence[str]) -> dict[str, Any]:
    """Run a command and read the JSON in the last line that it prints.

    Raises:
        SystemExit: it failed; with its status, and what it said is printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        fail(done.returncode, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def seconds_of(action: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call, the GPU's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - start


def gemm_peak() -> float:
    """GFLOP/s of a large float32 matrix product on the CPU, the median of several."""
    a = torch.randn(2048, 2048)
    a @ a
    return 2 * 2048**3 / median(seconds_of(lambda: a @ a) for _ in range(9)) / 1e9


def machine() -> str:
    """One line about where the figures were measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_cpu_name()}, {torch.get_num_threads()} threads, {device}; "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def in_words(values: list[float], unit: str = "s") -> str:
    """Median and range of measured values."""
    spread = f"{min(values):.2f}-{max(values):.2f}, {len(values)} runs"
    return f"{median(values):.2f} {unit} ({spread})"
