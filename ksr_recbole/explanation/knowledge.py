"""What items have, as one sparse table of facts, and what everything is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix, hstack

from ksr_recbole.dataset.item_values import Facts
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.explanation.labels import Names, attribute_labels
from ksr_recbole.explanation.parts import Attribute, Item
from ksr_recbole.explanation.value_entities import ValueEntities


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The value entities of all items, with names.

    A *fact* is an attribute with one of its value entities ("directed by Nora Ephron").  Facts
    are numbered attribute by attribute, within one in the order of its range.

    Sizes: ``n`` items (padding included), ``F`` facts, ``A`` attributes.

    Attributes:
        values: which entities each item has on each attribute.
        item_tokens: by item id, the id in the ``.inter`` file.
        titles: by item id, its title (its token where it has none).
        entity_tokens: by entity id, the id in the ``.kg`` file.
        entity_names: by entity id, its name (its token where it has none).
        attributes: the memory's slots, named.
        notes: what a reader must know of the names; one sentence each.
    """

    values: ValueEntities
    item_tokens: Sequence[str]
    titles: Sequence[str]
    entity_tokens: Sequence[str]
    entity_names: Sequence[str]
    attributes: tuple[Attribute, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: KGSequenceDataset) -> Knowledge:
        """The knowledge of a built dataset, with the names in its folder.

        Raises:
            UserError: a malformed file of names.
        """
        values = ValueEntities.of(dataset)
        items, entities, relations = (
            [str(token) for token in dataset.field2id_token[field]]
            for field in (dataset.iid_field, dataset.entity_field, dataset.relation_field)
        )
        wanted = np.unique(np.concatenate(values.ranges))
        names = Names.read(dataset, set(items[1:]), {entities[e] for e in wanted})
        rows = zip(values.attributes, attribute_labels(dataset), values.ranges, strict=True)
        return cls(
            values,
            items,
            [names.item(token) for token in items],
            entities,
            [names.entity(token) for token in entities],
            tuple(Attribute(relations[r], label, len(found)) for r, label, found in rows),
            names.notes,
        )

    @classmethod
    def of_facts(
        cls,
        facts: Facts,
        tokens: Mapping[str, Sequence[str]],
        names: Mapping[str, Sequence[str]],
        attributes: np.ndarray,
    ) -> Knowledge:
        """The knowledge that a model directory holds.

        Args:
            facts: every fact once.
            tokens: by ``item``, ``entity`` and ``relation``, the token of every id.
            names: titles by ``item``, names by ``entity``, labels by ``attribute``.
            attributes: relation ids of the attributes, ``int64 [A]``.
        """
        values = ValueEntities.of_facts(facts, attributes, len(tokens["item"]))
        rows = zip(attributes.tolist(), names["attribute"], values.ranges, strict=True)
        return cls(
            values,
            tokens["item"],
            names["item"],
            tokens["entity"],
            names["entity"],
            tuple(Attribute(tokens["relation"][r], label, len(e)) for r, label, e in rows),
        )

    # Facts ----------------------------------------------------------------------------------

    @cached_property
    def of_items(self) -> csr_matrix:
        """1 where the item has the fact, ``float64 [n, F]``, sparse."""
        return csr_matrix(hstack(self.values.of_items, format="csr"))

    @cached_property
    def attribute_of(self) -> np.ndarray:
        """Position of each fact's attribute, ``int64 [F]``."""
        return np.repeat(np.arange(len(self.attributes)), [len(r) for r in self.values.ranges])

    @cached_property
    def entity_of(self) -> np.ndarray:
        """Entity id of each fact, ``int64 [F]``."""
        return np.concatenate(self.values.ranges)

    @cached_property
    def n_items_with(self) -> np.ndarray:
        """How many items have each fact, ``int64 [F]``."""
        return np.bincount(self.of_items.indices, minlength=self.of_items.shape[1])

    @cached_property
    def rarity(self) -> np.ndarray:
        """Inverse item frequency ``log(items / items with it)``, ``float64 [F]``."""
        return np.log((len(self.item_tokens) - 1) / np.maximum(self.n_items_with, 1))

    @cached_property
    def has(self) -> np.ndarray:
        """Whether an item has any entity on an attribute, ``bool [n, A]``."""
        return np.stack([np.diff(of.indptr) > 0 for of in self.values.of_items], axis=1)

    @cached_property
    def coverage(self) -> np.ndarray:
        """Share of the items that have an entity on each attribute, ``float64 [A]``."""
        return self.has[1:].mean(axis=0)

    def name_of(self, fact: int) -> str:
        """Name of a fact's entity."""
        return self.entity_names[self.entity_of[fact]]

    def item(self, item: int) -> Item:
        """An item by its id."""
        return Item(self.item_tokens[item], self.titles[item])
