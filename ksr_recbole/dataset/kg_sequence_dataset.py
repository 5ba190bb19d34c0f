"""A RecBole dataset that is both knowledge-based and sequential."""

from __future__ import annotations

import hashlib
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ksr_recbole.config import option
from ksr_recbole.dataset.attributes import attribute_relations
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.sequences import Split, UserSequences, leave_one_out
from ksr_recbole.errors import UserError
from ksr_recbole.registry import nearest


class KGSequenceDataset(LinkedDataset):
    """Interactions, knowledge graph and item-entity link, with sequences instead of prefixes.

    :class:`LinkedDataset` loads, filters and maps ids.  This class adds, once built,

    - users' whole sequences in time order, kept once as flat arrays (:attr:`sequences`);
    - the split of each sequence into training, validation and test (:attr:`split`);
    - the relations that are attributes of items (:attr:`attributes`, Sec. 4.2.1).
    """

    def build(self) -> list[KGSequenceDataset]:
        """Order and split the sequences.

        Returns:
            Three views, training, validation and test; each has the interactions of its phase
            in ``inter_feat`` and shares :attr:`sequences` and :attr:`split`.
        """
        self.sequences = UserSequences.from_interactions(
            users=self.inter_feat[self.uid_field].to_numpy(),
            items=self.inter_feat[self.iid_field].to_numpy(),
            timestamps=self.inter_feat[self.time_field].to_numpy(),
            n_users=self.user_num,
            n_items=self.item_num,
        )
        self.split = self._make_split()
        users, lengths = np.arange(self.sequences.n_users), self.sequences.lengths
        # RecBole turns timestamps into float32, which cannot tell seconds apart, so the order
        # is taken from the frame above and only then is the frame given up.
        self.inter_feat = self.inter_feat.iloc[self.sequences.order]
        self._change_feat_format()
        ends = (np.zeros_like(lengths), self.split.train_end, self.split.valid_end, lengths)
        return [
            self.copy(self.inter_feat[self.sequences.spans(users, start, end)])
            for start, end in pairwise(ends)
        ]

    def _make_split(self) -> Split:
        given = self.config["eval_args"]
        if given["split"] != {"LS": "valid_and_test"} or given["order"] != "TO":
            raise UserError(
                f"Config key eval_args has split {given['split']} and order {given['order']}; "
                "sequence models need split {'LS': 'valid_and_test'} and order 'TO'."
            )
        return leave_one_out(self.sequences)

    @cached_property
    def triples(self) -> np.ndarray:
        """Head, relation and tail ids, ``int64 [n_triples, 3]``."""
        fields = (self.head_entity_field, self.relation_field, self.tail_entity_field)
        return np.stack([np.asarray(self.kg_feat[f], dtype=np.int64) for f in fields], axis=1)

    @cached_property
    def attributes(self) -> np.ndarray:
        """Relation ids of the attributes A (Sec. 4.2.1), ``int64 [A]``.

        They are the relations in which items are heads, or those that ``attributes`` names.
        """
        tokens = self.field2token_id[self.relation_field]
        named = option(self.config, "attributes", list, optional=True)
        if named is None:
            heads, relations, tails = self.triples.T
            found = attribute_relations(
                heads, relations, tails, self.relation_num, np.unique(self.item_entities[1:])
            )
        else:
            for name in named:
                if name not in tokens:
                    raise UserError(
                        f"Config key attributes names the relation '{name}', which "
                        f"{self.dataset_name}.kg does not have{nearest(str(name), tokens)}"
                    )
            found = np.array([tokens[name] for name in named], dtype=np.int64)
        if len(found) == 0:
            raise UserError(
                f"{self.dataset_name}.kg has no relation with items as heads, so the memory "
                "would have no attribute; name some with the config key attributes."
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, sequences, split, link and triples: equal only for equal data."""
        digest = hashlib.sha256()
        for field in (self.uid_field, self.iid_field, self.entity_field, self.relation_field):
            digest.update("\n".join(map(str, self.field2id_token[field])).encode())
        arrays: list[Any] = [self.sequences.items, self.sequences.timestamps]
        arrays += [self.sequences.offsets, self.split.train_end, self.split.valid_end]
        for array in [*arrays, self.item_entities, self.triples]:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
