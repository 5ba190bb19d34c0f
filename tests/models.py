"""KSR models with known vectors, and their parameters as the float64 reference has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from ksr_recbole.dataset.dataloader import CHUNK_START
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.model.gru_recommender import GRU
from ksr_recbole.model.ksr import KSR
from tests.reference import Layer, ReferenceParameters

CASES = {
    "KSR": ("KSR", {}),
    "KSR-paper": ("KSR-paper", {}),
    "plain PyTorch": ("KSR-paper", {"memory_backend": "torch"}),
    "shared values": ("KSR", {"value_matrix": "shared"}),
    "exact values": ("KSR", {"value_matrix": "exact"}),
    "exact values, one scale": (
        "KSR",
        {"value_matrix": "exact", "time_scales": [2], "loss_type": "CE"},
    ),
    "projection": ("KSR", {"project_entities": True, "freeze_kg": False}),
    "KB as input, scaled": ("KSR", {"kb_input": True, "kb_scale": 2.0}),
    "two layers": ("KSR", {"num_layers": 2, "query_mlp_layers": 2, "score_mlp_layers": 2}),
    "pieces": ("KSR", {"chunk_length": 3}),
    "named attributes": ("KSR", {"attributes": ["film.genre", "film.country"]}),
    "GRU": ("GRU", {}),
    "GRU, two layers": ("GRU", {"num_layers": 2}),
    "GRU++": ("GRU++", {}),
    "GRU_F": ("GRU_F", {}),
    "KSR-exact": ("KSR-exact", {}),
    "GRU++-paper": ("GRU++-paper", {}),
    "GRU_F-paper": ("GRU_F-paper", {}),
    "GRU++-trained": ("GRU++-trained", {}),
    "GRU_F-trained": ("GRU_F-trained", {}),
    "RUM_I": ("RUM_I", {"memory_slots": 3}),
    "RUM_F": ("RUM_F", {}),
}
"""Models and options by what is tried; every model of ours is among them."""


def random_vectors(config: Any, dataset: KGSequenceDataset, seed: int = 0) -> PretrainedVectors:
    """Random vectors of the right shapes, padding rows zero."""
    rng = np.random.default_rng(seed)

    def draw(rows: int, columns: int) -> np.ndarray:
        vectors = rng.normal(0, 0.5, (rows, columns)).astype(np.float32)
        vectors[0] = 0
        return vectors

    size = config["kg_embedding_size"]
    return PretrainedVectors(
        items=draw(dataset.item_num, config["embedding_size"]),
        entities=draw(dataset.entity_num, size),
        relations=draw(dataset.relation_num, size),
    )


def let_numba_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba does not, once the variable differs from what its threads were started with."""
    started = vars(sys.modules["numba"].config)["NUMBA_NUM_THREADS"]
    monkeypatch.setenv("NUMBA_NUM_THREADS", str(started))


def make_model(config: Any, dataset: KGSequenceDataset) -> KSR:
    """A float64 KSR on random vectors, every parameter random."""
    dataset.pretrained = random_vectors(config, dataset)
    torch.manual_seed(0)
    return KSR(config, dataset).double()


def reference_parameters(model: KSR) -> ReferenceParameters:
    """The same numbers for the plain-loop model; entities and relations as the model uses them."""

    def layers(mlp: torch.nn.Sequential) -> list[Layer]:
        return [(array(part.weight), array(part.bias)) for part in mlp[::2]]

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().double().numpy().copy()

    relation = array(model.relation_embedding(model.attributes))
    return ReferenceParameters(
        item_embedding=array(model.item_embedding.weight),
        gru_weight_ih=array(model.gru.weight_ih_l0),
        gru_weight_hh=array(model.gru.weight_hh_l0),
        gru_bias_ih=array(model.gru.bias_ih_l0),
        gru_bias_hh=array(model.gru.bias_hh_l0),
        query_mlp=layers(model.query_mlp),
        entity=array(model.entity_embedding(model.item_entities)),
        relation=relation,
        key=relation.copy(),
        user_mlp=layers(model.user_mlp),
        item_mlp=layers(model.item_mlp),
        gamma=model.options.gamma,
        projection=None if model.projection is None else array(model.projection.weight),
    )


def training_batch(
    items: Sequence[Sequence[int]], negatives: Sequence[Sequence[Sequence[int]]], start: int = 0
) -> Interaction:
    """A training batch of whole sequences as the loader makes them.

    Args:
        items: sequences; each but the last item is read and each but the first is a target.
        negatives: for every target its negatives.
        start: value of ``chunk_start``.
    """
    rows, columns = len(items), max(map(len, items)) - 1
    n_negatives = len(negatives[0][0])
    inputs, targets = np.zeros((rows, columns), int), np.zeros((rows, columns), int)
    wrong = np.zeros((rows, columns, n_negatives), int)
    for row, sequence in enumerate(items):
        length = len(sequence) - 1
        inputs[row, :length], targets[row, :length] = sequence[:-1], sequence[1:]
        wrong[row, :length] = negatives[row]
    batch = {
        "user_id": np.arange(1, rows + 1),
        CHUNK_START: np.full(rows, start),
        "item_length": np.array([len(sequence) - 1 for sequence in items]),
        "item_id_list": inputs,
        "item_id": targets,
        "neg_item_id": wrong,
    }
    return Interaction({name: torch.from_numpy(value) for name, value in batch.items()})


def match_terms(model: Any, state: Any, items: torch.Tensor) -> torch.Tensor:
    """What each attribute adds to the scores of ``items [B, C]`` in a state, by plain loops.

    Returns:
        ``[B, C, A]``.
    """
    memory = model.exact
    counts = memory.counts(state.hidden[-1], state.values)
    terms = counts.new_zeros(*items.shape, len(model.attributes))
    for user, some in enumerate(items.tolist()):
        for place, item in enumerate(some):
            for column in memory.columns[memory.starts[item] : memory.starts[item + 1]].tolist():
                terms[user, place, memory.attributes[column]] += counts[user, column]
    return terms


class Counting(GRU):
    """A GRU with a buffer that every process changes in the same way."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.register_buffer("a_count", torch.zeros((), dtype=torch.int64))

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """The loss, counted."""
        self.a_count += 1
        return super().calculate_loss(interaction)


class Averaging(Counting):
    """A GRU with a running mean of the users in its share of a batch."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.register_buffer("mean", torch.zeros(()))

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """The loss, whose users are averaged."""
        self.mean.mul_(0.5).add_(0.5 * interaction[self.USER_ID].float().mean())
        return super().calculate_loss(interaction)
