"""What the benchmarks share: runs without a log, medians, the machine."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksr_recbole.compat import (
    check_versions,
    recbole_on_new_libraries,
    silence_upstream_warnings,
)

check_versions()
silence_upstream_warnings()

import torch  # noqa: E402
from recbole.config import Config as RecBoleConfig  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

from ksr_recbole.config import Config  # noqa: E402
from ksr_recbole.quick_start.prepare import find_vectors, load_data, make_trainer  # noqa: E402
from ksr_recbole.quick_start.stages import peak_memory_mib  # noqa: E402, F401

LONGEST = 50
"""Items of a history that RecBole keeps (MAX_ITEM_LIST_LENGTH)."""


class Bench(NamedTuple):
    """A dataset, split and batched, and the trainer of a model on it once there is one."""

    config: Any
    dataset: Any
    train: Any
    valid: Any
    test: Any
    trainer: Any = None


def parser(doc: str | None, dataset: str = "ml-100k") -> argparse.ArgumentParser:
    """Options of every benchmark: the dataset and config values."""
    result = argparse.ArgumentParser(description=(doc or "benchmark").splitlines()[0])
    result.add_argument("--dataset", default=dataset)
    result.add_argument("--data_path", help="folder with a folder of the dataset's name")
    result.add_argument("--gpu_id", default="", help="a GPU; by default the CPU")
    result.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="config values")
    return result


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
