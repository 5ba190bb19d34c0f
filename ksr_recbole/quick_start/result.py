"""What a run leaves: a JSON file that can reproduce it, and a summary a person can read."""

from __future__ import annotations

import platform
import secrets
import subprocess
import sys
from datetime import datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ksr_recbole.config_types import Configuration
from ksr_recbole.files import replacing
from ksr_recbole.paths import CHECKOUT
from ksr_recbole.records import as_json_values, json_text
from ksr_recbole.text import wrapped
from ksr_recbole.threads import used_threads
from ksr_recbole.versions import WANTED

_LABEL = 14
"""Characters before the text of a line of the summary."""


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Versions, machine and git revision of this run.

    Args:
        device: where it is computed; its GPU is named.  ``None``: not in this process.
    """
    gpus = {} if device is None else {"gpu": _gpu_name(device)}
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in WANTED},
        "machine": platform.platform(),
        **used_threads(),
        **gpus,
        "git_revision": _git_revision(),
        "command": sys.argv,
    }


def _gpu_name(device: torch.device) -> str | None:
    # To ask for the name on a GPU that is not used would take memory there, or fail.
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _git_revision() -> str | None:
    if CHECKOUT is None:
        return None
    try:
        revision = _git(CHECKOUT, "describe", "--always", "--abbrev=40")
        # describe --dirty would lock the index: a commit at that moment fails, and a killed run
        # leaves the lock.
        changed = _git(CHECKOUT, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{revision}-dirty" if changed else revision or None


def _git(folder: Path, *words: str) -> str:
    """What git prints, without taking a lock."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def settings(config: Configuration) -> dict[str, Any]:
    """All config values as JSON can hold them."""
    return as_json_values(config.final_config_dict)


def write_result(folder: str | Path, result: dict[str, Any]) -> Path:
    """Write ``result`` to ``<folder>/<model>-<dataset>-<time>-<digits>.json`` in one step.

    Raises:
        UserError: the folder cannot be written.
    """
    # With a random number, since several runs can end at one tick of a clock.
    stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    path = Path(folder) / f"{result['model']}-{result['dataset']}-{stamp}.json"
    with replacing(path) as (temporary,):
        temporary.write_text(json_text(result), encoding="utf-8")
    return path


def summary(result: dict[str, Any], path: Path, width: int | None = None) -> str:
    """The result as a few lines of text.

    Args:
        result: what a run returns.
        path: the result file.
        width: characters of a line of text; ``None`` if they may be of any number.
    """
    title = f"{result['model']} on {result['table1']}"
    pretrained = [f"  pretrained  {note}" for note in result["pretraining"]]
    head = [*pretrained, _best_epoch(result), ""]
    tail = [
        *_memory(result.get("memory_fit")),
        *_popularity(result),
        "",
        "  seconds     "
        + ", ".join(f"{stage} {value:.1f}" for stage, value in result["seconds"].items()),
        f"  peak memory {result['peak_memory_mib']:.0f} MiB",
        f"  model       {result['checkpoint']}",
        f"  result      {path}",
    ]
    fitting = partial(wrapped, width=width, indent=" " * _LABEL)
    table = _metric_table(result["metrics"], result["metric_decimal_place"], result["valid_metric"])
    lines = [wrapped(title, width, "  "), *map(fitting, head), *table, *map(fitting, tail)]
    return "\n".join(lines)


def _best_epoch(result: dict[str, Any]) -> str:
    epoch, trained = result["best_epoch"], result["epochs_trained"]
    if result["best_valid_score"] is None:
        return f"  last epoch  {epoch} (counted from 0, as in the log); none was validated"
    return (
        f"  best epoch  {epoch} (counted from 0, as in the log) of {trained} trained, by "
        f"{result['valid_metric']} on validation ({result['eval_mode']})"
    )


def _memory(fit: dict[str, Any] | None) -> list[str]:
    if fit is None or not fit["used"]:
        return []
    return [
        f"  memory      fitted on {fit['positives']:,} positives of validation, whose lines are "
        "those without it"
    ]


def _popularity(result: dict[str, Any]) -> list[str]:
    of_valid = result.get("popularity_weights_of_validation", {})
    return [
        f"  {mode}: {weight:+.3f} log(1 + training interactions) added to scores"
        + (f", {of_valid[mode]:+.3f} on validation" if mode in of_valid else "")
        for mode, weight in result.get("popularity_weights", {}).items()
    ]


def _metric_table(
    metrics: dict[str, dict[str, dict[str, float]]], decimals: int, best_by: str
) -> list[str]:
    """A line for each mode and phase; columns that do not fit 80 characters stand below."""
    names = _shown([*next(iter(metrics.values()))["valid"]], best_by)
    label = max(map(len, metrics)) + 2  # with four metrics a line fits 60 columns
    width = max(decimals + 5, *(len(name) + 2 for name in names))
    together = max(1, (80 - label - 7) // width)
    lines: list[str] = []
    for part in (names[at : at + together] for at in range(0, len(names), together)):
        lines += [""] if lines else []
        lines.append(
            "  " + " " * (label + 5) + "".join(f"{name.upper():>{width}}" for name in part)
        )
        lines += [
            f"  {mode:<{label}}{phase:<5}"
            + "".join(f"{values[name]:>{width}.{decimals}f}" for name in part)
            for mode, phases in metrics.items()
            for phase, values in phases.items()
        ]
    return lines


def _shown(names: list[str], best_by: str) -> list[str]:
    """The metrics; of a single cut, without its MAP and MRR, since the whole list's are there."""
    if len({name.partition("@")[2] for name in names if "@" in name}) > 1:
        return names
    cut = {name for name in names if name.startswith(("map@", "mrr@"))} - {best_by.lower()}
    return [name for name in names if name not in cut]
