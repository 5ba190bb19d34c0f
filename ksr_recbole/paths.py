"""Where configurations and datasets lie, in a checkout and in an installed package."""

from __future__ import annotations

import secrets
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

IMPORTED_FROM = _PACKAGE.parent
"""The folder in which Python finds this package."""

CHECKOUT = IMPORTED_FROM if (IMPORTED_FROM / "configs" / "overall.yaml").is_file() else None
"""The checkout this package is run from, or ``None`` once it is installed."""

CONFIGS = (CHECKOUT or _PACKAGE) / "configs"
"""Folder of this project's YAML files; every key they set is documented there, on its own line."""

DATASETS = (CHECKOUT or Path()) / "dataset_atomic"
"""Where a dataset's atomic files are written and looked for unless ``data_path`` says otherwise:
the checkout's ``dataset_atomic/``, or the one in the current folder of an installed package."""


def source_of(module: str) -> Path:
    """The file of an installed module, which is not imported (its parent package is).

    Raises:
        ModuleNotFoundError: there is none.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return Path(spec.origin)


def recbole_properties() -> Path:
    """The folder of RecBole's own YAML files."""
    return source_of("recbole").parent / "properties"


def is_installed(package: str) -> bool:
    """Whether ``package`` can be imported.

    A folder of that name is not enough, although Python would import it as an empty package: Ray
    and Weights & Biases leave folders ``ray/`` and ``wandb/`` where a user works.
    """
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def version_of(package: str) -> str | None:
    """The version that is installed of a package, ``None`` where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def name_of_new(prefix: str) -> str:
    """``prefix`` with :func:`time_of_new`: no other run's name."""
    return f"{prefix}-{time_of_new()}"


def time_of_new() -> str:
    """The time as RecBole writes it and a random number, for a name that no other run has.

    The time is not enough, since several runs can begin in one second, nor is the process's
    number, since they can begin in one process or in two containers that share a folder.
    """
    now = datetime.now()
    # %b is in the language that a program has set; the months of others have up to five letters.
    return f"{_MONTHS[now.month - 1]}-{now:%d-%Y_%H-%M-%S}-{secrets.token_hex(4)}"
