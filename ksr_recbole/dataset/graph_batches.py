"""Batches of triples as RecBole draws them, without its Python loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader.knowledge_dataloader import KGDataLoader
from recbole.sampler import KGSampler

from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.sequences import sorted_distinct
from ksr_recbole.errors import UserError


class GraphSampler(KGSampler):
    """RecBole's ``KGSampler``, with the same draws; all triples of a batch are looked up at once.

    Args:
        dataset: a dataset with a knowledge graph.
        distribution: ``"uniform"`` or ``"popularity"``.
        alpha: power of the popularity.

    Raises:
        UserError: a head entity has every entity as a tail, so no negative exists.
    """

    used_ids: np.ndarray

    def get_used_ids(self) -> np.ndarray:
        """A number for each pair of head and tail of a triple, rising, ``int64 [n_pairs]``.

        Raises:
            UserError: an entity is the head of triples with every entity.
        """
        heads = np.asarray(self.hid_list, np.int64)
        used = sorted_distinct(heads * self.entity_num + np.asarray(self.tid_list, np.int64))
        tails = np.bincount(used // self.entity_num, minlength=1)
        if tails.max() + 1 >= self.entity_num:  # without padding
            raise UserError(
                "An entity of the knowledge graph is the head of triples with every entity, so no "
                "negative triple exists; leave such entities out with entity_kg_num_interval."
            )
        return used

    def sample_by_key_ids(self, key_ids: Sequence[int] | np.ndarray, num: int) -> torch.Tensor:
        """Tails of negative triples.

        Args:
            key_ids: head entities, ``int64 [B]``.
            num: tails for each.

        Returns:
            ``int64 [num * B]``: first one tail for each head, then the next.
        """
        heads = np.tile(np.asarray(key_ids, np.int64), num)
        tails = np.zeros(len(heads), np.int64)
        pending = np.arange(len(heads))
        while len(pending):  # as RecBole: what is a triple is drawn again
            tails[pending] = self.sampling(len(pending))
            pending = pending[self._are_triples(heads[pending], tails[pending])]
        return torch.from_numpy(tails)

    def _are_triples(self, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
        """Whether there is a triple of each head and tail ``[n]``, ``bool [n]``."""
        codes = heads * self.entity_num + tails
        at = np.searchsorted(self.used_ids, codes).clip(max=len(self.used_ids) - 1)
        # RecBole's table of popularity can give the tail -1, by rounding; that is no entity.
        return (self.used_ids[at] == codes) & (tails >= 0)


def graph_loader(config: Configuration, dataset: Any) -> KGDataLoader:
    """RecBole's loader of triples, whose batches do not depend on the config key ``worker``.

    Workers would each draw negatives from a generator of their own.
    """
    sampler = GraphSampler(dataset, "uniform", 1.0)
    loader = KGDataLoader(config, dataset, sampler, shuffle=True)
    loader.num_workers = 0
    return loader
