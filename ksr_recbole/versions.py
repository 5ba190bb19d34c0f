"""Which versions of Python and of the libraries work.

RecBole's own metadata admits versions it fails with and excludes others it works with (RecBole
issue #2215 and the threads it links).  A set that does not work is refused in one sentence, instead
of failing somewhere inside a dependency.
"""

from __future__ import annotations

import sys

from packaging.specifiers import SpecifierSet

from ksr_recbole.errors import UserError
from ksr_recbole.paths import CHECKOUT, version_of

WANTED_PYTHON = SpecifierSet(">=3.11,<3.15")

WANTED: dict[str, SpecifierSet] = {
    "recbole": SpecifierSet("==1.2.1"),
    # The oldest that is tested; with 2 RecBole needs compat.recbole_on_new_libraries().
    "numpy": SpecifierSet(">=1.26.4,<3"),
    # The oldest that is tested; with 3 RecBole needs RepairedLoading.
    "pandas": SpecifierSet(">=2.3,<4"),
    # The oldest that is tested; from 1.13 on seven models of RecBole need help.
    "scipy": SpecifierSet(">=1.12,<2"),
    # torch.load(weights_only=True) must understand our checkpoints, which 2.6 made the default.
    "torch": SpecifierSet(">=2.6,<3"),
    "pykeen": SpecifierSet(">=1.11,<1.12"),
}

RECBOLE_NEEDS = (
    "colorama",
    "colorlog",
    "PyYAML",
    "psutil",
    "scikit-learn",
    "setuptools",
    "tabulate",
    "tensorboard",
    "texttable",
    "thop",
    "tqdm",
)
"""What RecBole imports.  It is installed without its dependencies, since one of them, an old Ray,
cannot be installed on Python 3.12 and newer."""

INSTALL = "pip install -r requirements.txt && pip install --no-deps recbole==1.2.1"
"""What installs a set that works, from a checkout."""

INSTALL_RECBOLE = "pip install --no-deps recbole==1.2.1"
"""What is left to install once this package is installed by its own metadata."""


def check_versions() -> None:
    """Refuse a Python or package version this project does not work with.

    Raises:
        UserError: naming the package, the version found and the version wanted.
    """
    python = ".".join(map(str, sys.version_info[:3]))
    if not WANTED_PYTHON.contains(python, prereleases=True):
        raise UserError(
            f"Python {python} was found, but {WANTED_PYTHON} is wanted; make a virtual "
            "environment with one of Python 3.11 to 3.14."
        )
    for package, wanted in WANTED.items():
        found = version_of(package)
        if found is None or not wanted.contains(found, prereleases=True):
            have = f"{package} {found} was found" if found else f"{package} is not installed"
            raise UserError(
                f"{have}, but {package}{wanted} is wanted; run `{_cure(package)}` in a fresh "
                "virtual environment."
            )
    for package in RECBOLE_NEEDS:
        if version_of(package) is None:
            raise UserError(
                f"{package} is not installed, but RecBole imports it; run `pip install {package}`."
            )


def _cure(package: str) -> str:
    """What to type: from a checkout everything at once, else the one package."""
    if CHECKOUT is not None:
        return INSTALL
    wanted = f"{package}{WANTED[package]}"
    return INSTALL_RECBOLE if package == "recbole" else f"pip install '{wanted}'"
