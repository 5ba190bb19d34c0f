"""RecBole 1.2.1 on today's Python: what ``requirements.txt`` cannot pin, and the check that it did.

RecBole's own metadata admits versions it fails with (RecBole issue #2215 and the threads it
links).  ``requirements.txt`` pins a set that works; this module refuses any other set in one
sentence instead of failing somewhere inside a dependency, and holds the remaining
work-arounds.  Each says which upstream issue it answers.

Nothing here changes a library globally: no monkey patching, and ``torch.load`` keeps its safe
default.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from ksr_recbole.errors import UserError
from ksr_recbole.files import sha256_of

WANTED_PYTHON = SpecifierSet(">=3.11")

WANTED: dict[str, SpecifierSet] = {
    "recbole": SpecifierSet("==1.2.1"),
    # RecBole #2215: RecBole reads np.float_ and Ray 2.6.3 np.bool8, both gone in NumPy 2.
    "numpy": SpecifierSet(">=1.26,<2"),
    # pandas 3 copy-on-write: RecBole fills columns in place through chained assignment
    # (recbole/data/dataset/dataset.py, `df[field].fillna(..., inplace=True)`), then a no-op.
    "pandas": SpecifierSet(">=2.0,<3"),
    # RecBole pull request #2187: seven graph models call dok_matrix._update, gone in SciPy 1.13.
    "scipy": SpecifierSet(">=1.10,<1.13"),
    # RecBole #2215: the newest Ray RecBole admits is 2.6.3, ...
    "ray": SpecifierSet("<=2.6.3"),
    # ... and it imports pkg_resources, which setuptools 81 removed.
    "setuptools": SpecifierSet("<81"),
    # torch.load(weights_only=True) must understand our checkpoints, which 2.6 made the default.
    "torch": SpecifierSet(">=2.6,<3"),
    "pykeen": SpecifierSet(">=1.11,<1.12"),
}


def check_versions() -> None:
    """Refuse a Python or package version this project does not work with.

    Raises:
        UserError: naming the package, the version found and the version wanted.
    """
    python = ".".join(map(str, sys.version_info[:3]))
    if python not in WANTED_PYTHON:
        raise UserError(f"Python {python} was found, but {WANTED_PYTHON} is wanted.")
    for package, wanted in WANTED.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or not wanted.contains(found, prereleases=True):
            have = f"{package} {found} was found" if found else f"{package} is not installed"
            raise UserError(
                f"{have}, but {package}{wanted} is wanted; "
                "run `pip install -r requirements.txt` in a fresh virtual environment."
            )


def silence_upstream_warnings() -> None:
    """Hide notices that a reader of our output can do nothing about."""
    # torch.distributed: a page of stack for a connection that ended, which we tell in a sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Ray 2.6.3: `import pkg_resources` (answered by the setuptools pin above).
    warnings.filterwarnings("ignore", message=r"pkg_resources is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(ray|pkg_resources)")
    # RecBole: chained-assignment fills (answered by the pandas pin above).
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.data\..*")
    # RecBole: torch.cuda.amp.GradScaler(...), deprecated for torch.amp.GradScaler("cuda", ...).
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.trainer\..*")


@contextmanager
def keeping_anomaly_mode() -> Iterator[None]:
    """Undo what importing RecBole's sequential models switches on for the whole process.

    ``recbole/model/sequential_recommender/sine.py`` turns on autograd's anomaly detection when it
    is imported, which slows every backward pass of every model.
    """
    import torch

    before = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(before)


class PickledCheckpoints:
    """Mixin over a RecBole trainer: unpickle a checkpoint only if this run wrote it.

    RecBole's checkpoints pickle the whole ``Config`` object, so ``torch.load`` refuses them
    since PyTorch 2.6 (RecBole #2215, #2212).  Unpickling runs code from the file; it is done
    only for a file this trainer wrote itself and that has not changed since, or when the user
    sets ``trust_checkpoint: True``.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self._written: dict[str, str] = {}

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        super()._save_checkpoint(epoch, verbose=verbose, **kwargs)
        path = kwargs.get("saved_model_file", self.saved_model_file)
        if os.path.exists(path):
            self._written[os.path.abspath(path)] = sha256_of(path)

    def _load_state(self, path: str) -> None:
        import torch

        if not Path(path).is_file():
            raise UserError(f"Checkpoint {path} does not exist; give the path of a saved model.")
        ours = self._written.get(os.path.abspath(path)) == sha256_of(path)
        if not ours and not self.config["trust_checkpoint"]:
            raise UserError(
                f"Checkpoint {path} was not written by this run and RecBole's checkpoints are "
                "pickles that can run any code; "
                "add --trust_checkpoint=True if you know where it comes from."
            )
        checkpoint = torch.load(path, map_location=self.device, weights_only=False)
        self.model.load_state_dict(checkpoint["state_dict"])
        self.model.load_other_parameter(checkpoint.get("other_parameter"))

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> Any:
        """As RecBole's, but loading the best model under the rule above.

        Raises:
            UserError: the checkpoint is missing, or is not this run's and is not trusted.
        """
        if load_best_model and eval_data:
            self._load_state(model_file or self.saved_model_file)
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)


def with_checkpoint_rule(trainer_class: type) -> type:
    """RecBole's ``trainer_class`` with :class:`PickledCheckpoints` in front of it."""
    return type(trainer_class.__name__, (PickledCheckpoints, trainer_class), {})
