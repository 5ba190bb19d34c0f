"""What a model is made of besides its options: sizes, maps, and the vectors it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from ksr_recbole.dataset.item_values import ItemValues


@dataclass
class PretrainedVectors:
    """The vectors a model starts from, by RecBole's ids (row 0 is padding), as far as wanted.

    Attributes:
        items: BPR item embeddings :math:`q_i`, ``float32 [n_items, D]``.
        entities: KB embeddings :math:`e_i`, ``float32 [n_entities, E]``.
        relations: relation embeddings :math:`r_a`, ``float32 [n_relations, E]``.
        notes: one line on where each came from.
    """

    items: np.ndarray | None = None
    entities: np.ndarray | None = None
    relations: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def learned(cls, weights: Mapping[str, Tensor]) -> PretrainedVectors:
        """What became of the vectors in a trained model, by its state dict on the CPU."""

        def table(kind: str) -> np.ndarray | None:
            found = weights.get(f"{kind}_embedding.weight")
            return None if found is None else found.numpy()

        return cls(table("item"), table("entity"), table("relation"))


class ModelData(Protocol):
    """What a model is made of besides its options.

    A built dataset has it, and so has a model directory
    (:class:`ksr_recbole.inference.building.SavedData`).
    """

    @property
    def pretrained(self) -> PretrainedVectors | None:
        """The vectors to start from."""

    def num(self, field: str) -> int:
        """How many ids one of RecBole's fields has, padding among them."""


class GraphData(ModelData, Protocol):
    """What a model that reads the knowledge graph is made of besides its options."""

    @property
    def item_entities(self) -> np.ndarray:
        """Entity id of every item, ``int64 [n_items]``."""

    @property
    def attributes(self) -> np.ndarray:
        """Relation ids of the attributes A (Sec. 4.2.1), ``int64 [A]``."""

    @property
    def item_values(self) -> ItemValues:
        """The values of every item under the attributes."""

    def training_items(self) -> np.ndarray:
        """Item ids of all training interactions by time, ``int64 [n_interactions]``."""
