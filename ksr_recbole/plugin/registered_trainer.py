"""The trainer that RecBole finds under the names of this package's models."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from ksr_recbole.config.kinds import compared_keys
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError
from ksr_recbole.plugin.loaders import FINGERPRINT
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer


class RegisteredTrainer(SequenceTrainer):
    """Our trainer with the arguments RecBole gives its own.

    Args:
        config: the run's configuration, with which the data were prepared.
        model: one of this package's models.

    Raises:
        UserError: no data were prepared with this configuration.
    """

    def __init__(self, config: Configuration, model: torch.nn.Module) -> None:
        if config[FINGERPRINT] is None:
            raise UserError(
                f"The trainer of {config['model']} was made before its data; call RecBole's "
                "data_preparation with the same config first."
            )
        super().__init__(config, model, config[FINGERPRINT], compared_keys(config))

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, *more: Any, **named: Any
    ) -> OrderedDict[str, float] | None:
        """As our own run: without a checkpoint, too, the best epoch is tested."""
        if not load_best_model and self.finished:
            self.use_best()
        return super().evaluate(eval_data, load_best_model, *more, **named)
