"""A model from its saved weights and options: no atomic files, no pretraining, no dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.sequences import UserSequences, leave_one_out
from ksr_recbole.errors import UserError, one_line
from ksr_recbole.model.sequence_recommender import SequenceRecommender
from ksr_recbole.registry import model_class
from ksr_recbole.trainer.weights import difference, problem_in_sizes

_UNFIT = (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError, AttributeError)
"""What making a model of options ends in that no model has, besides a :class:`UserError`."""

OF_THE_MACHINE = {"memory_backend": "auto"}
"""Options that belong to the machine a model runs on, not to the model."""


ID_FIELDS = {
    "user": "user_id", "item": "item_id", "entity": "entity_id", "relation": "relation_id"
}  # fmt: skip
"""By kind of token, RecBole's name of its field: directories written before lack some."""


class Options(Mapping[str, Any]):
    """Config values for a model, ``None`` for a key that is not there, as in RecBole's ``Config``.

    Args:
        value_of: gives the value of a key, ``None`` where there is none.
        device: where the model shall run.

    Attributes:
        read: the values that were asked for so far.
    """

    def __init__(self, value_of: Callable[[str], Any], device: torch.device) -> None:
        self._value_of = value_of
        self._own = {"device": device, **OF_THE_MACHINE}
        self.read: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._own:
            self.read[key] = self._value_of(key)
            if self.read[key] is None and key.endswith("_ID_FIELD"):
                self.read[key] = ID_FIELDS.get(key.removesuffix("_ID_FIELD").lower())
        return self._own.get(key, self.read.get(key))

    def peek(self, key: str) -> Any:
        """A value, without noting that it was asked for."""
        return self._value_of(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.read)

    def __len__(self) -> int:
        return len(self.read)


class DataStandIn:
    """Takes the place of the dataset that a model is built for: sizes, maps and no interactions.

    The vectors that a model would start from are those it has learned; the rest of the weights
    replaces what the model makes of this stand-in.

    Args:
        tokens: as in :class:`~ksr_recbole.inference.content.SavedModel`.
        weights: the model's state dict.
        options: config values, for the names of the fields.
    """

    def __init__(
        self,
        tokens: Mapping[str, list[str]],
        weights: Mapping[str, Tensor],
        options: Options,
    ) -> None:
        self._sizes = {
            options[f"{kind.upper()}_ID_FIELD"]: len(tokens.get(kind, ())) for kind in ID_FIELDS
        }
        n_users, n_items = len(tokens["user"]), len(tokens["item"])
        self.pretrained = PretrainedVectors(
            items=_array(weights, "item_embedding.weight"),
            entities=_array(weights, "entity_embedding.weight"),
            relations=_array(weights, "relation_embedding.weight"),
        )
        self.item_entities = _array(weights, "item_entities")
        self.attributes = _array(weights, "attributes")
        nobody = np.empty(0, np.int64)
        self.sequences = UserSequences.from_interactions(nobody, nobody, nobody, n_users, n_items)
        self.split = leave_one_out(self.sequences)

    def num(self, field: str) -> int:
        """How many ids a field has, padding among them, as RecBole's datasets say."""
        return self._sizes[field]


def _array(weights: Mapping[str, Tensor], name: str) -> np.ndarray | None:
    return weights[name].numpy() if name in weights else None


def check_model(name: str) -> None:
    """Refuse a model that is not one of this package's sequence models.

    Raises:
        UserError: naming it.
    """
    if not issubclass(model_class(name), SequenceRecommender):
        raise UserError(
            f"The model {name} is RecBole's, so it has no model "
            "directory; models of this package (KSR, GRU, RUM and their variants) have."
        )


def build(
    name: str,
    options: Options,
    tokens: Mapping[str, list[str]],
    weights: Mapping[str, Tensor],
) -> SequenceRecommender:
    """The model with its weights, on the device of ``options``, for prediction only.

    Args:
        name: the model's name.
        options: its config values.
        tokens: as in :class:`~ksr_recbole.inference.content.SavedModel`.
        weights: its state dict, on the CPU.

    Raises:
        UserError: the model has no sequences, or options or weights do not fit it.
    """
    check_model(name)
    sizes = len(tokens["item"]), len(tokens["user"])
    if problem := problem_in_sizes(weights, options.peek, *sizes):
        raise UserError(f"The weights do not fit the model {name}: {problem}; save it again.")
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn first and then replaced
            model = model_class(name)(options, DataStandIn(tokens, weights, options))
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
    return model.to(options["device"]).requires_grad_(False).eval()
