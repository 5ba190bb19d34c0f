"""What RecBole 1.2.1 needs to work on today's libraries (:mod:`ksr_recbole.versions`).

Each work-around says which upstream problem it answers.

No library but RecBole itself is changed: NumPy, SciPy and pandas look the same to every other
code of the process, and ``torch.load`` keeps its safe default.
"""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ksr_recbole import digests
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import check_regular
from ksr_recbole.paths import is_installed, name_of_new


@contextmanager
def recbole_stops(
    errors: type[Exception] | tuple[type[Exception], ...],
    given_of: Callable[[], list[str]],
    without: str,
    with_keys: str,
) -> Iterator[None]:
    """A block in which RecBole may stop on what nobody has checked.

    Args:
        errors: what it may raise.
        given_of: which of the config keys that may be the cause were given.
        without: the sentence if there are none; ``{error}`` in it is RecBole's error.
        with_keys: the sentence if there are; ``{keys}`` in it are these.

    Raises:
        UserError: in place of RecBole's error; one that is raised inside is passed on.
    """
    try:
        yield
    except UserError:
        raise
    except errors as error:
        given = given_of()
        sentence = with_keys.replace("{keys}", ", ".join(given)) if given else without
        told = shown(f"{type(error).__name__}: {error}", 200)
        raise UserError(sentence.replace("{error}", told)) from error


class _StandIn(ModuleType):
    """A library as RecBole knows it: with the names in its ``__dict__``, else the library's own."""

    def __init__(self, library: ModuleType, /, **content: Any) -> None:
        super().__init__(library.__name__)
        self.__dict__.update(content, _library=library)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_library"], name)


def _numpy_of_recbole() -> ModuleType:
    """NumPy with the names that RecBole writes and NumPy has removed (RecBole #2215).

    RecBole's ``Config`` puts them into NumPy itself, for the whole process, and fails there with
    NumPy 2.  Here RecBole's modules alone see them.  Its ``load`` reads no pickles, which
    RecBole's LDiffRec asks for.
    """
    import numpy as np

    def load(file: Any, *args: Any, **options: Any) -> Any:
        try:
            return np.load(file, *args, **{**options, "allow_pickle": False})
        except ValueError as error:
            raise UserError(
                f"{shown(str(file), 500)} is no array of numbers as `numpy.save` writes it "
                f"({shown(str(error))}); pickles are not read, since they can run any code."
            ) from error

    names = {"bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128}
    names |= {"object": np.object_, "str": np.str_, "long": np.int_, "unicode": np.str_}
    return _StandIn(np, random=_random_of_recbole(), load=load, **names)


def _random_of_recbole() -> ModuleType:
    """``numpy.random`` whose ``RandomState`` has the ``integers`` of newer generators.

    RecBole's exhaustive search gives one to hyperopt, which asks it for ``integers`` since
    version 0.2.6 (RecBole #1868).
    """
    import numpy as np

    class RandomState(np.random.RandomState):
        integers = np.random.RandomState.randint

    return _StandIn(np.random, RandomState=RandomState)


def _sparse_of_recbole() -> ModuleType:
    """``scipy.sparse`` with the ``dok_matrix._update`` that seven models of RecBole call.

    SciPy 1.13 removed it (RecBole pull request #2187).
    """
    import scipy.sparse

    class DokMatrix(scipy.sparse.dok_matrix):
        def _update(self, data: dict[tuple[int, int], float]) -> None:
            self._dict.update(data)

    gone = not hasattr(scipy.sparse.dok_matrix, "_update")
    return _StandIn(scipy.sparse, **({"dok_matrix": DokMatrix} if gone else {}))


_trusting: ContextVar[bool] = ContextVar("trusting", default=False)

_trusted_everywhere = False
"""Whether :func:`trust_checkpoints` was called for the whole process."""

_written: dict[str, str] = {}
"""By its path, the digest of a file that RecBole's code has pickled in this process."""


@contextmanager
def trusting(config: Configuration) -> Iterator[None]:
    """Inside the block RecBole unpickles checkpoints of others if the user trusts them."""
    token = _trusting.set(bool(config["trust_checkpoint"]))
    try:
        yield
    finally:
        _trusting.reset(token)


def trust_checkpoints(trusted: bool) -> None:
    """Whether RecBole may unpickle checkpoints of others, in the whole process from now on."""
    global _trusted_everywhere
    _trusted_everywhere = trusted


def _is_trusted(path: str | os.PathLike[str]) -> bool:
    """The user says so, or this process wrote the file, which has not changed since."""
    if _trusting.get() or _trusted_everywhere:
        return True
    digest = _written.get(os.path.abspath(path))
    return digest is not None and digest == digests.of_file(path)


def _torch_of_recbole() -> ModuleType:
    """PyTorch whose ``load`` reads tensors from plain files only, and says what is wrong.

    RecBole's checkpoints pickle the whole ``Config`` object, so ``torch.load`` refuses them since
    PyTorch 2.6 (RecBole #2215, #2212).  Unpickling runs code from the file; here it is done only
    for a file that RecBole's trainers wrote in this process, or that the user trusts.  Six models
    of RecBole start from another model's weights, in a file that an option names.
    """
    import torch

    def save(what: Any, path: Any, *args: Any, **options: Any) -> None:
        torch.save(what, path, *args, **options)
        _written[os.path.abspath(path)] = digests.of_file(path)

    def load(path: str | os.PathLike[str], **options: Any) -> Any:
        try:
            check_regular(path)
            trusted = _is_trusted(path)
            if not trusted:
                check_unpacked_size(path)
            with warnings.catch_warnings():
                # What it says of a pickle that it does not read is in the sentence below.
                warnings.filterwarnings("ignore", message="Detected pickle protocol")
                return torch.load(path, **{**options, "weights_only": not trusted})
        except Exception as error:  # whatever such a file may lead to
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise UserError(
                f"{shown(str(path), 500)} cannot be read as the weights of a model ({reason}); "
                f"only tensors are read. {_PICKLES}"
            ) from error

    return _StandIn(torch, **{**vars(torch), "load": load, "save": save})


_PICKLES = (
    "RecBole's own checkpoints are pickles, which can run any code: if you know who wrote it, add "
    "--trust_checkpoint=True, or in your own script call "
    "ksr_recbole.register(trust_checkpoint=True)."
)


@contextmanager
def unpickling(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside the block a function of RecBole's reads a checkpoint by a bare ``torch.load``.

    Raises:
        UserError: another process wrote it, and the user does not trust it.
    """
    if not _is_trusted(path):
        raise UserError(f"This process did not write {shown(str(path), 500)}. {_PICKLES}")
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # PyTorch's: a bare torch.load unpickles
    before = os.environ.get(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"Environment variable {name}")
        os.environ[name] = "1"
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def check_unpacked_size(path: str | os.PathLike[str]) -> None:
    """Refuse an archive whose parts are larger than itself: a small one that asks for gigabytes.

    Raises:
        ValueError: it is one, or no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = sum(part.file_size for part in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError("it is no archive of PyTorch's") from error
    if parts > os.stat(path).st_size:
        raise ValueError("its parts are larger than itself")


def _pandas_of_recbole() -> ModuleType:
    """pandas whose ``read_csv`` leaves no sequence missing, for RecBole's ``_load_feat``.

    It fills them with ``df[field].fillna(value="", inplace=True)``, which pandas 3 carries out
    on a copy.
    """
    import pandas as pd

    def read_csv(*args: Any, **options: Any) -> Any:
        frame = pd.read_csv(*args, **options)
        for column in frame.columns:
            if str(column).endswith("_seq"):
                frame[column] = frame[column].fillna("")
        return frame

    return _StandIn(pd, read_csv=read_csv)


def _amp_of_recbole() -> ModuleType:
    """``torch.cuda.amp`` without the functions of it that PyTorch has deprecated."""
    import torch.cuda.amp

    return _StandIn(
        torch.cuda.amp,
        GradScaler=partial(torch.amp.GradScaler, "cuda"),
        autocast=partial(torch.amp.autocast, "cuda"),
    )


def _length(what: Any) -> Any:
    """``len``, or of a column of sequences the length of each, for ``column.agg(len)``.

    RecBole counts on pandas before version 3, where ``agg`` went through the column.
    """
    import numpy as np
    import pandas as pd

    if isinstance(what, pd.Series) and len(what) and isinstance(what.iloc[0], np.ndarray):
        return what.map(len)
    return len(what)


def _ensure_dir(dir_path: str) -> None:
    """Like RecBole's function, but safe for several runs.

    It does not fail if another run creates the folder at the same moment.
    """
    os.makedirs(dir_path, exist_ok=True)


def _collector_of_recbole(theirs: type) -> type:
    """RecBole's ``Collector``, which takes counts for tensors and stops on them.

    The metrics ItemCoverage, AveragePopularity, GiniIndex, ShannonEntropy and TailPercentage need
    counts.
    """

    class Collector(theirs):  # type: ignore[misc]
        def get_data_struct(self) -> Any:
            held = self.data_struct._data_dict
            counts = {name: value for name, value in held.items() if not hasattr(value, "cpu")}
            for name in counts:
                del held[name]
            collected = super().get_data_struct()
            held.update(counts)
            collected._data_dict.update(counts)
            return collected

    return Collector


@cache
def _stand_ins() -> dict[str, tuple[Any, Any]]:
    """By its name in RecBole's modules: a library or function, and what stands in for it."""
    import numpy
    import pandas
    import scipy.sparse
    import torch.cuda.amp
    from recbole.evaluator.collector import Collector
    from recbole.utils.utils import ensure_dir

    return {
        "np": (numpy, _numpy_of_recbole()),
        "pd": (pandas, _pandas_of_recbole()),
        "sp": (scipy.sparse, _sparse_of_recbole()),
        "amp": (torch.cuda.amp, _amp_of_recbole()),
        "ensure_dir": (ensure_dir, _ensure_dir),
        "Collector": (Collector, _collector_of_recbole(Collector)),
    }


_LOADERS = frozenset(
    {"recbole.trainer.trainer"}
    | {f"recbole.model.general_recommender.{name}" for name in ("convncf", "nais", "neumf", "ract")}
    | {"recbole.model.context_aware_recommender.kd_dagfm"}
    | {"recbole.model.sequential_recommender.s3rec"}
)
"""Modules of RecBole that call ``torch.load``."""

_stand_in_of_torch = cache(_torch_of_recbole)


def _class_of(module: ModuleType, name: str) -> type:
    """The class that a module defines under a name; in place of ``eval``, which runs any code."""
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    known = [key for key, value in classes.items() if value.__module__ == module.__name__]
    if name not in known:
        raise UserError(
            f"{shown(name)} is not a network in RecBole's {module.__name__}; there are: "
            f"{', '.join(sorted(known))}."
        )
    return classes[name]


def recbole_on_new_libraries() -> None:
    """Let RecBole's modules that are imported by now find what newer libraries have removed.

    Only the names ``np``, ``pd``, ``sp``, ``amp``, ``len``, ``ensure_dir`` and ``Collector`` inside
    RecBole's own modules change, and ``torch`` and ``eval`` in those that load or evaluate.  It is
    cheap, and called again whenever modules of RecBole may have been imported.
    """
    libraries = _stand_ins().items()
    for name in [name for name in list(sys.modules) if name.startswith("recbole.")]:
        module = sys.modules[name]
        content = getattr(module, "__dict__", {})
        for alias, (library, stand_in) in libraries:
            if content.get(alias) is library:
                setattr(module, alias, stand_in)
        if name.startswith("recbole.data.dataset."):
            module.len = _length  # type: ignore[attr-defined]
        if name in _LOADERS:
            module.torch = _stand_in_of_torch()  # type: ignore[attr-defined]
        if name.endswith(".kd_dagfm"):  # it evaluates the config value ``teacher``
            module.__dict__.setdefault("eval", partial(_class_of, module))


def import_recboles_quick_start() -> ModuleType:
    """``recbole.quick_start``, which imports Ray whether it is used or not.

    Where Ray is not installed an empty module takes its place, for the time of the import only.
    """
    if is_installed("ray") or "recbole.quick_start" in sys.modules:
        return import_module("recbole.quick_start")
    stand_in = ModuleType("ray")
    stand_in.__dict__.update(tune=_NoRay("ray.tune"))
    sys.modules["ray"] = stand_in
    try:
        return import_module("recbole.quick_start")
    finally:
        del sys.modules["ray"]


class _NoRay(ModuleType):
    """Takes the place of ``ray.tune`` in RecBole where there is no Ray."""

    @staticmethod
    def report(**_: float) -> None:
        """RecBole's ``objective_function`` reports every result to Ray, in its trials or not."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UserError("Ray is not installed; run `pip install ray`.")


def silence_upstream_warnings() -> None:
    """Hide notices that a reader of our output can do nothing about, in a process of our own."""
    # torch.distributed: a page of stack for a connection that ended, which we tell in a sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Ray 2.6.3: `import pkg_resources`, which setuptools announces the end of.
    warnings.filterwarnings("ignore", message=r"pkg_resources is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(ray|pkg_resources)")
    # RecBole's graph models: torch.sparse.FloatTensor(...).
    warnings.filterwarnings("ignore", message=r"torch\.sparse\.SparseTensor")
    # torch.optim.Adagrad makes a sparse tensor of each sparse gradient.
    warnings.filterwarnings("ignore", message=r"Sparse invariant checks are implicitly disabled")
    _silence_loading()


@contextmanager
def silent_loading() -> Iterator[None]:
    """Inside the block RecBole's loading of data gives none of the notices that mean nothing.

    For a user's own process, whose warnings stay as they are.
    """
    with warnings.catch_warnings():
        _silence_loading()
        yield


def _silence_loading() -> None:
    # RecBole's fills of missing values in place: RepairedLoading has filled them before.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.data\..*")
    warnings.filterwarnings(
        "ignore", message=r"(?s).*chained assignment", module=r"recbole\.data\..*"
    )
    warnings.filterwarnings(
        "ignore", message=r"(?s)The inplace keyword", module=r"recbole\.data\..*"
    )
    # RecBole makes tensors of pandas 3's columns, which are read-only, and does not write to them.
    warnings.filterwarnings("ignore", message=r"The given NumPy array is not writable")


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


@contextmanager
def without_pickles(config: Configuration) -> Iterator[None]:
    """Inside the block RecBole unpickles no saved dataset or loaders, which can run any code.

    It looks for them in ``checkpoint_dir`` whenever it makes a dataset, saved by itself or not.
    With ``trust_checkpoint: True`` it may.
    """
    import pickle

    import recbole.data.utils as recbole_data

    def refuse(file: Any) -> None:
        raise UserError(
            f"RecBole would load {file.name}, a pickle, which can run any code; remove it, choose "
            "another checkpoint_dir, or add --trust_checkpoint=True if you know who wrote it."
        )

    before = recbole_data.pickle
    if not config["trust_checkpoint"]:
        recbole_data.pickle = _StandIn(pickle, load=refuse)
    try:
        yield
    finally:
        recbole_data.pickle = before


if TYPE_CHECKING:
    from recbole.trainer import Trainer as _Trainer
else:
    _Trainer = object


class PickledCheckpoints(_Trainer):
    """Mixin over a RecBole trainer: checkpoints of its own name, and ``trust_checkpoint``.

    What its process wrote is read back, others' checkpoints only with ``trust_checkpoint: True``.
    """

    def __init__(self, config: Configuration, model: Any) -> None:
        super().__init__(config, model)
        name = f"{name_of_new(config['model'])}.pth"
        self.saved_model_file = os.path.join(self.checkpoint_dir, name)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As RecBole's.

        Raises:
            UserError: the checkpoint is missing, or is not this process's and is not trusted.
        """
        with trusting(self.config):
            return super().evaluate(*args, **kwargs)


def with_checkpoint_rule(trainer_class: type) -> type:
    """RecBole's ``trainer_class`` with :class:`PickledCheckpoints` in front of it."""
    return type(trainer_class.__name__, (PickledCheckpoints, trainer_class), {})
