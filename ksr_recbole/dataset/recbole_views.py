"""RecBole's models under the paper's protocol: our interactions and split, RecBole's loaders.

Every model is trained on the training part of the same split and on nothing else.  RecBole's
samplers see that part alone too.  They do not see later items of a user, or later popularity of an
item.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import (
    Dataset,
    KnowledgeBasedDataset,
    SequentialDataset,
)
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader
from recbole.sampler import RepeatableSampler, Sampler
from recbole.utils import ModelType

from dataset_atomic.table1 import has_graph
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.graph_batches import GraphSampler
from ksr_recbole.dataset.negatives import no_negative_item
from ksr_recbole.dataset.recbole_dataset import recboles_dataset_class
from ksr_recbole.dataset.sequence_datasets import (
    KGSequenceDataset,
    SequenceDataset,
    WithSequences,
    data_keys_named,
)
from ksr_recbole.dataset.sequences import ragged_positions
from ksr_recbole.errors import UserError

_BLOCK_ROWS = 1 << 16
"""Rows whose histories are copied at once; bounds the memory of that step."""

_VECTORS = {"ent_id": "entities", "rel_id": "relations"}
"""RecBole's names of the vectors that its models ask a dataset for, and ours."""


class RecBoleViews(WithSequences):
    """Mixin over one of our datasets: its training view has the rows that RecBole reads."""

    def build(self) -> list[WithSequences]:
        """As :class:`WithSequences`; a sequential model gets a row for every training target.

        They are made of the training part alone, so no row knows of later items.
        """
        train, valid, test = super().build()
        if isinstance(train, SequentialDataset):
            if hasattr(train, "seq_sampler"):  # DIEN's negatives belong to the rows as they are now
                items = train.inter_feat[train.iid_field]
                train.neg_item_list = train.seq_sampler.sample_neg_sequence(items)
                train.data_augmentation()
            else:
                add_histories(train)
        return [train, valid, test]

    def join(self, df: Any) -> Any:
        """RecBole's own: rows bring their histories with them."""
        return super(WithSequences, self).join(df)

    def _change_feat_format(self) -> None:
        Dataset._change_feat_format(self)  # SequentialDataset's makes rows of all interactions

    def _benchmark_presets(self) -> None:
        """Nothing: the rows of the user's own files are interactions, as those of one file."""

    def get_preload_weight(self, field: str) -> np.ndarray:
        """The vectors pretrained here, or given with ``preload_weight``, by id.

        Returns:
            ``float32``: a row for every item, of its entity (``ent_id``), or for every relation.

        Raises:
            UserError: there are no vectors for ``field``.
        """
        vectors = getattr(self.pretrained, _VECTORS.get(field, ""), None)
        if vectors is None:
            raise UserError(f"No vectors are given for {field}; give them with preload_weight.")
        if field == "rel_id":
            return vectors
        return vectors[self.item_entities]  # type: ignore[attr-defined]


def add_histories(view: Any) -> None:
    """RecBole's ``SequentialDataset.data_augmentation``, without a loop over the rows.

    Args:
        view: a sequential dataset whose rows are in the order of users and times.
    """
    view._aug_presets()
    rows, longest = view.inter_feat, view.max_item_list_len
    users = rows[view.uid_field].numpy()
    at = np.arange(len(users))
    begins = np.concatenate([[True], users[1:] != users[:-1]])
    start = np.maximum.accumulate(np.where(begins, at, 0))
    targets = at[~begins]
    lengths = np.minimum((at - start)[targets], longest)
    made = rows[targets]
    added = {view.item_list_length_field: torch.from_numpy(lengths)}
    for field in rows:
        if field != view.uid_field:
            of_field = f"{field}{view.config['LIST_SUFFIX']}"
            added[of_field] = _windows(rows[field], targets - lengths, lengths, longest)
    made.update(Interaction(added))
    view.inter_feat = made


def _windows(values: Any, begin: np.ndarray, lengths: np.ndarray, longest: int) -> torch.Tensor:
    """``values[begin[k]:begin[k] + lengths[k]]`` in row ``k``, zeros behind, ``[K, longest]``."""
    windows = values.new_zeros(len(begin), longest, *values.shape[1:])
    for first in range(0, len(begin), _BLOCK_ROWS):
        block = slice(first, first + _BLOCK_ROWS)
        row, column = ragged_positions(lengths[block])
        windows[block][row, column] = values[begin[block][row] + column]
    return windows


def needs_graph(config: Configuration) -> bool:
    """Whether a model of RecBole reads a knowledge graph."""
    return issubclass(recboles_dataset_class(config), KnowledgeBasedDataset)


def load_views(config: Configuration) -> WithSequences:
    """The dataset of a model of RecBole under the protocol, not built yet.

    It has the interactions, and the ids, of every other model's (:func:`load_dataset`).

    Raises:
        UserError: files are malformed.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    kind = recboles_dataset_class(config)
    ours = KGSequenceDataset if has_graph(folder, name) else SequenceDataset
    bases = (RecBoleViews, ours) if issubclass(ours, kind) else (RecBoleViews, ours, kind)
    with data_keys_named(config):
        return type(kind.__name__, bases, {})(config)


def recbole_loaders(
    config: Configuration, dataset: WithSequences
) -> tuple[Any, SequenceEvalData, SequenceEvalData]:
    """RecBole's training loader of the training view, and our data for evaluation.

    Raises:
        UserError: a user has interacted with every item in training, or RecBole stops on the data.
    """
    train, valid, test = dataset.build()
    sampling = config["train_neg_sample_args"]
    with data_keys_named(config):
        samplers = [_sampler(config, train, sampling)]
        if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
            samplers.append(GraphSampler(dataset, sampling["distribution"], sampling["alpha"]))
        shuffle = config["shuffle"] or len(samplers) > 1
        loader = get_dataloader(config, "train")(config, train, *samplers, shuffle=shuffle)
    return (
        loader,
        SequenceEvalData(config, valid, "valid"),
        SequenceEvalData(config, test, "test"),
    )


def _sampler(config: Configuration, train: Any, sampling: Any) -> Any:
    """RecBole's sampler of negative items, which is shown the training view alone."""
    if sampling["distribution"] == "none":
        return None
    kind = RepeatableSampler if config["repeatable"] else Sampler
    try:
        sampler = kind(["train"], train, sampling["distribution"], sampling["alpha"])
    except ValueError as error:
        raise no_negative_item() from error
    return sampler.set_phase("train")
