"""The dataset of one of RecBole's own models."""

from __future__ import annotations

from functools import cache
from typing import Any

import recbole.data.dataset
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.utils import ModelType

from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.funnel import WithFunnel
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.loading import AtomicReading
from ksr_recbole.dataset.repaired_loading import RepairedLoading
from ksr_recbole.registry import recboles_name

_BY_TYPE = {ModelType.SEQUENTIAL: SequentialDataset, ModelType.KNOWLEDGE: KnowledgeBasedDataset}


def recbole_dataset(config: Configuration) -> Dataset:
    """The dataset that RecBole's ``create_dataset`` would make, loaded right and counted.

    Nothing is unpickled: RecBole's function loads a dataset saved in ``checkpoint_dir``.

    Raises:
        UserError: a missing, empty or malformed atomic file, or nothing left after filtering.
    """
    kind: Any = recboles_dataset_class(config)
    return _loaded_right(kind)(config)


def recboles_dataset_class(config: Configuration) -> type[Dataset]:
    """The class that RecBole's ``create_dataset`` takes for a model."""
    own = getattr(recbole.data.dataset, f"{recboles_name(config['model'])}Dataset", None)
    return own or _BY_TYPE.get(config["MODEL_TYPE"], Dataset)


_PREFIX = "Right"
"""What :func:`_loaded_right` puts before the name of RecBole's class, where a pickle looks."""


@cache
def _loaded_right(kind: type[Dataset]) -> type[Dataset]:
    """A class of RecBole, read and counted by ours.

    RecBole pickles the dataset with the weights of DIN, DIEN, FDSA, GRU4RecF and SASRecF, so that
    the class has to be found again by its name (:func:`__getattr__`).
    """
    if kind is KnowledgeBasedDataset:
        return LinkedDataset
    mixed: tuple[type, ...] = (LinkedDataset,)
    if not issubclass(kind, KnowledgeBasedDataset):
        mixed = (RepairedLoading, WithFunnel, AtomicReading)
    names = {"__module__": __name__, "__qualname__": _PREFIX + kind.__name__}
    return type(kind.__name__, (*mixed, kind), names)


def __getattr__(name: str) -> Any:
    kind = getattr(recbole.data.dataset, name.removeprefix(_PREFIX), None)
    if not name.startswith(_PREFIX) or not (isinstance(kind, type) and issubclass(kind, Dataset)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _loaded_right(kind)
