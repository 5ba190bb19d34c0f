"""The vectors that a model starts from, kept with the dataset whose ids they are ordered by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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
