"""The dataset of one of RecBole's own models."""

from __future__ import annotations

from typing import Any

import recbole.data.dataset
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.utils import ModelType

from ksr_recbole.dataset.funnel import WithFunnel
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.loading import AtomicReading
from ksr_recbole.dataset.repaired_loading import RepairedLoading
from ksr_recbole.registry import recboles_name

_BY_TYPE = {ModelType.SEQUENTIAL: SequentialDataset, ModelType.KNOWLEDGE: KnowledgeBasedDataset}


def recbole_dataset(config: Any) -> Dataset:
    """The dataset that RecBole's ``create_dataset`` would make, loaded right and counted.

    Nothing is unpickled: RecBole's function loads a dataset saved in ``checkpoint_dir``.

    Raises:
        UserError: a missing, empty or malformed atomic file, or nothing left after filtering.
    """
    own = getattr(recbole.data.dataset, f"{recboles_name(config['model'])}Dataset", None)
    kind = own or _BY_TYPE.get(config["MODEL_TYPE"], Dataset)
    if kind is KnowledgeBasedDataset:
        return LinkedDataset(config)
    if issubclass(kind, KnowledgeBasedDataset):
        return type(kind.__name__, (LinkedDataset, kind), {})(config)
    return type(kind.__name__, (RepairedLoading, WithFunnel, AtomicReading, kind), {})(config)
