"""Options that a trainer and its model can have together."""

from __future__ import annotations

from ksr_recbole.config.shared import TrainingOptions
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError


def check_options(config: Configuration, model_class: type) -> None:
    """Refuse values on which trainer or model would stop later, or which RecBole would misread.

    Raises:
        UserError: naming the config key.
    """
    if read := getattr(model_class, "read_options", None):  # RecBole's models have none
        read(config)
    TrainingOptions.of(config)
    if config["enable_scaler"] and config["clip_grad_norm"]:
        raise UserError(
            "Config keys enable_scaler and clip_grad_norm are both set, but RecBole's trainer "
            "clips gradients that the scaler has made larger; leave one of them out."
        )
    _check_kg_epochs(config, model_class)


def _check_kg_epochs(config: Configuration, model_class: type) -> None:
    """Refuse epochs on the knowledge graph that a model does not have."""
    epochs, has_kg_epochs = config["train_kg_step"], hasattr(model_class, "calculate_kg_loss")
    if has_kg_epochs and hasattr(model_class, "read_options"):  # RecBole's CKE takes None
        for key in ("train_rec_step", "train_kg_step"):
            if config[key] is None:
                raise UserError(
                    f"Config key {key} is None, but {config['model']} trains recommendation and "
                    "graph in turn; give numbers of epochs, such as 1 and 0."
                )
    if epochs and not has_kg_epochs:
        raise UserError(
            f"Config key train_kg_step is {epochs}, but {config['model']} has no epochs of its own "
            "on the knowledge graph; leave it at its default."
        )
    if epochs and config["freeze_kg"]:
        raise UserError("Config key train_kg_step is set, which needs freeze_kg: False.")
