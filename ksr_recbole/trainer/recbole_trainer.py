"""RecBole's trainers under the paper's protocol: RecBole trains, our evaluation selects."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from recbole.utils import get_trainer

from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UnusableCheckpointError
from ksr_recbole.evaluation.evaluator import SequenceScorer
from ksr_recbole.evaluation.recbole_scorer import RecBoleScorer
from ksr_recbole.trainer.trainer import ProtocolTrainer

_BEYOND = "state_beyond_the_checkpoint"
"""What a checkpoint says of a model that keeps more than weights from epoch to epoch."""


_CACHE = "restore_"
"""How RecBole's names of what a model keeps for its evaluation begin."""


class RecBoleTrainer(ProtocolTrainer):
    """Stands before one of RecBole's trainers, whose epochs it leaves alone.

    A checkpoint holds weights, buffers, the optimizer and the state of random numbers.  Of a model
    that keeps more from epoch to epoch (a second optimizer, a matrix that is no buffer), the
    checkpoint says so, and training does not resume from it.
    """

    def __init__(
        self, config: Configuration, model: torch.nn.Module, fingerprint: str, keys: frozenset[str]
    ) -> None:
        super().__init__(config, model, fingerprint, keys)
        # RecBole's trainer of models without epochs (Pop, EASE) has one, whatever epochs is.
        self.eval_step: int = min(self.eval_step, self.epochs)
        self._others: Mapping[str, Any] = {}
        self._first = dict(_loose(model))

    def _begin_epoch(self, train_data: Any, epoch: int) -> None:
        seed = self.config["seed"] + epoch
        random.seed(seed)
        loaders = [getattr(train_data, n, None) for n in ("general_dataloader", "kg_dataloader")]
        for loader in (train_data, *loaders):
            if (generator := getattr(loader, "generator", None)) is not None:
                generator.manual_seed(seed)

    def _scorer(self, dataset: Any) -> SequenceScorer:
        return RecBoleScorer(self.model, self.config, dataset)

    def _trained_state(self) -> Mapping[str, torch.Tensor]:
        return self.model.state_dict()  # with buffers, such as running means

    def _note_best(self, epoch: int) -> None:
        super()._note_best(epoch)
        caches = {n: v for n, v in vars(self.model).items() if n.startswith(_CACHE)}
        self._others = {**(self.model.other_parameter() or {}), **caches}

    def _write(self, epoch: int) -> None:
        self._given[_BEYOND] = self._beyond()
        super()._write(epoch)

    def _beyond(self) -> list[str]:
        """Names of what training has changed that a checkpoint does not hold."""
        optimizers = [n for n, v in vars(self).items() if isinstance(v, torch.optim.Optimizer)]
        changed = [
            name
            for name, value in _loose(self.model)
            if name in self._first and not _same(self._first[name], value)
        ]
        return sorted({*optimizers} - {"optimizer"}) + changed

    def _can_resume(self) -> bool:
        return not self._beyond()

    def longer(self) -> dict[str, int]:
        """See the base class; nothing where the training cannot continue."""
        return super().longer() if self._can_resume() else {}

    def load_best(self, path: str | Path) -> None:
        """Load the best model; what no file holds comes from this training."""
        if self._best_state is None:
            self._forget_caches()
            super().load_best(path)
        else:
            self.use_best()

    def use_best(self) -> None:
        """Put the best model of this training into the model."""
        self._forget_caches()  # a resumed run has none of its best epoch
        super().use_best()
        if self._others:
            self.model.load_other_parameter(self._others)

    def _forget_caches(self) -> None:
        """Let the model make again what it keeps of other weights' scores."""
        for name in vars(self.model):
            if name.startswith(_CACHE):
                setattr(self.model, name, None)

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """As of our models, where the checkpoint holds all that RecBole's model keeps.

        Raises:
            UnusableCheckpointError: it does not, or it is damaged or of another run.
        """
        # This trainer may have changed it too, in a training that was interrupted.
        if beyond := self._read(resume_file)["given"].get(_BEYOND) or self._beyond():
            raise UnusableCheckpointError(
                f"RecBole's {self.config['model']} keeps more from epoch to epoch than a "
                f"checkpoint holds ({', '.join(map(str, beyond))[:100]}), so it cannot resume from "
                f"{resume_file}; train it anew, without resume."
            )
        super().resume_checkpoint(resume_file)
        self._forget_caches()
        self._others = {}


def recbole_trainer(
    config: Configuration, model: torch.nn.Module, fingerprint: str, keys: frozenset[str]
) -> RecBoleTrainer:
    """RecBole's trainer of a model, with :class:`RecBoleTrainer` in front of it."""
    base = get_trainer(config["MODEL_TYPE"], config["model"])
    return type(base.__name__, (RecBoleTrainer, base), {})(config, model, fingerprint, keys)


def _loose(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes that are neither weights nor buffers, by name, with what tells of a change.

    What a new model does not have yet is made where it is needed, and so is no state.

    ``restore_*`` are RecBole's names of caches, which its models make again from the weights.
    """
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name.startswith(("_", _CACHE)) or name == "training":
                continue
            version = value._version if isinstance(value, torch.Tensor) else 0
            yield f"{path}.{name}".lstrip("."), (value, version)


def _same(before: tuple[Any, int], now: tuple[Any, int]) -> bool:
    if before[1] != now[1]:
        return False
    plain = (int, float, str, bool)
    return before[0] is now[0] or (isinstance(now[0], plain) and before[0] == now[0])
