"""A model from its saved weights and options: no atomic files, no pretraining, no dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.item_values import ItemValues
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.errors import UserError, one_line
from ksr_recbole.model.sequence_recommender import SequenceRecommender
from ksr_recbole.registry import model_class
from ksr_recbole.trainer.weights import difference, no_larger_than, problem_in_sizes

_UNFIT = (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError, AttributeError)
"""Errors that PyTorch raises if no model can have these options."""

OF_THE_MACHINE = {"memory_backend": "auto"}
"""Options that belong to the machine a model runs on, not to the model."""

_FIELD_OF = {
    kind: f"{kind.upper()}_ID_FIELD"
    for kind in ("user", "item", "entity", "relation", "head_entity", "tail_entity")
}
"""By kind of id, the config key of its field."""

_KEYS = (
    *_FIELD_OF.values(),
    *("LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "NEG_PREFIX", "MAX_ITEM_LIST_LENGTH"),
)
"""Config keys that RecBole's sequential and knowledge-aware models read."""


class Settings(dict[str, Any]):
    """Config values that a model is made with; ``None`` for a key it lacks, as in RecBole."""

    def __missing__(self, key: str) -> None:
        return None


def settings_of(name: str, config: Configuration) -> Settings:
    """The config values that a model is made with, those of the machine left out.

    Args:
        name: the model's name.
        config: the run's configuration.
    """
    keys = (*_KEYS, *sequence_model(name).Options.of_effect(config))
    return Settings({key: config[key] for key in keys if key not in OF_THE_MACHINE})


@dataclass(frozen=True)
class SavedData:
    """What a saved model is made of besides its options: sizes, maps and vectors.

    The vectors that a model would start from are those it has learned.

    Attributes:
        sizes: by RecBole's name of a field, how many ids it has.
        weights: the model's state dict, on the CPU.
    """

    sizes: Mapping[str, int]
    weights: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, tokens: Mapping[str, list[str]], weights: Mapping[str, Tensor], settings: Settings
    ) -> SavedData:
        """The data of a model directory.

        Args:
            tokens: as in :class:`~ksr_recbole.inference.content.SavedModel`.
            weights: the model's state dict, on the CPU.
            settings: config values, for the names of the fields.
        """
        sizes = {settings[key]: len(tokens.get(kind, ())) for kind, key in _FIELD_OF.items()}
        return cls(sizes, weights)

    def num(self, field: str) -> int:
        """How many ids a field has, padding among them, as RecBole's datasets say."""
        return self.sizes[field]

    @property
    def pretrained(self) -> PretrainedVectors:
        """The vectors that were learned."""
        return PretrainedVectors.learned(self.weights)

    @property
    def item_entities(self) -> np.ndarray:
        """Entity id of every item, ``int64 [n_items]``."""
        return self.weights["item_entities"].numpy()

    @property
    def attributes(self) -> np.ndarray:
        """Relation ids of the attributes, ``int64 [A]``."""
        return self.weights["attributes"].numpy()

    @property
    def item_values(self) -> ItemValues:
        """The values of every item, those of an exact memory."""
        names = ("starts", "columns", "attributes", "entities", "value_weights")
        return ItemValues(*(self.weights[f"exact.{name}"].numpy() for name in names))

    def training_items(self) -> np.ndarray:
        """None: what a shared value matrix was written with is among the weights as its result."""
        return np.empty(0, np.int64)


def sequence_model(name: str) -> type[SequenceRecommender]:
    """The class of one of this package's sequence models.

    Raises:
        UserError: the model is none of these.
    """
    found = model_class(name)
    if not issubclass(found, SequenceRecommender):
        raise UserError(
            f"The model {name} is RecBole's, so it has no model "
            "directory; models of this package (KSR, GRU, RUM and their variants) have."
        )
    return found


def build(
    name: str,
    settings: Mapping[str, Any],
    tokens: Mapping[str, list[str]],
    weights: Mapping[str, Tensor],
    device: torch.device,
) -> SequenceRecommender:
    """The model with its weights, for prediction only.

    Args:
        name: the model's name.
        settings: its config values.
        tokens: as in :class:`~ksr_recbole.inference.content.SavedModel`.
        weights: its state dict, on the CPU.
        device: where it shall run.

    Raises:
        UserError: the model has no sequences, or options or weights do not fit it.
    """
    model_type = sequence_model(name)
    options = Settings({**settings, "device": device, **OF_THE_MACHINE})
    sizes = len(tokens["item"]), len(tokens["user"])
    if problem := problem_in_sizes(weights, settings.get, *sizes):
        raise UserError(f"The weights do not fit the model {name}: {problem}; save it again.")
    try:
        # Weights are drawn first and then replaced.
        with torch.random.fork_rng(devices=[]), no_larger_than(weights):
            model = model_type(options, SavedData.of(tokens, weights, options))
    except _UNFIT as error:
        raise UserError(
            f"No model {name} can be made of these options: {one_line(error)[:200]}; save it again."
        ) from error
    if problem := difference(weights, model.state_dict()):
        raise UserError(f"The weights do not fit the model {name}: {problem}; save it again.")
    model.load_state_dict(weights)
    if hasattr(model, "user_embedding"):
        # User 0 is RecBole's padding and untrained; here it is everyone new, of whom the
        # memory alone speaks.
        model.user_embedding.weight.data[0] = 0
    return model.to(device).requires_grad_(False).eval()
