"""Trains sequence models; extends RecBole's KGTrainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from recbole.trainer import KGTrainer

from ksr_recbole.dataset.dataloader import SequenceEvalData, TrainLoader
from ksr_recbole.distributed.gradients import SummedGradients, check_same_buffers
from ksr_recbole.distributed.group import from_main
from ksr_recbole.evaluation.candidates import CandidateSets
from ksr_recbole.evaluation.evaluator import EvalResult, SequenceScorer
from ksr_recbole.evaluation.popularity import log_popularity
from ksr_recbole.evaluation.scorer import ModelScorer, PairScorer
from ksr_recbole.lazy_adam import with_rows
from ksr_recbole.trainer.memory_fit import MemoryFit, fit_memory, fitted_later, some_of
from ksr_recbole.trainer.row_updates import update_rows_alone
from ksr_recbole.trainer.trainer import ProtocolTrainer


class SequenceTrainer(ProtocolTrainer, KGTrainer, SummedGradients):
    """Trains on whole sequences, or single interactions, from this package's loaders."""

    def _build_optimizer(self, **given: Any) -> torch.optim.Optimizer:
        rows = update_rows_alone(self.config, self.model)
        optimizer = super()._build_optimizer(**given)
        return with_rows(optimizer) if rows else optimizer

    def _train_epoch(self, *given: Any, **named: Any) -> Any:
        loss = super()._train_epoch(*given, **named)
        trained = self._trained_state().items()
        check_same_buffers({n: v for n, v in trained if not isinstance(v, torch.nn.Parameter)})
        return loss

    def _begin_epoch(self, train_data: TrainLoader, epoch: int) -> None:
        if (memory := fitted_later(self.model)) is not None:
            memory.sleep()
        train_data.set_epoch(epoch)

    def _complete(self, valid_data: SequenceEvalData | None) -> bool:
        memory = fitted_later(self.model)
        if memory is None:
            return False
        candidates = self._to_fit_on(valid_data, valid_data.mode) if valid_data else None
        if not valid_data or candidates is None:
            self.logger.warning(
                "Config key memory_fit is validation, but there is nothing to fit the memory on "
                "(no validation, or a user who has every item), so the memory is left unread."
            )
            memory.wake(torch.zeros_like(memory.weights))
            return True
        with self._best_weights():
            some = some_of(candidates, self.config["seed"], 2 + memory.weights.numel())
            self.memory_fit = self._fit_memory(valid_data, some)
        memory.wake(self.memory_fit.weights)
        if self._best_state is not None:
            fitted = {f"exact.{name}": value for name, value in memory.state_dict().items()}
            self._best_state = {**self._best_state, **fitted}
        self.logger.info(str(self.memory_fit))
        return True

    @contextmanager
    def _best_weights(self) -> Iterator[None]:
        """Inside the block the model is the best of the training, then again the last one."""
        last = {name: value.clone() for name, value in self._trained_state().items()}
        self._average.apply()  # where no epoch was validated, the average is the best there is
        self.use_best()
        try:
            yield
        finally:
            self.model.load_state_dict(last, strict=False)

    def rank(
        self, data: SequenceEvalData, mode: str, show_progress: bool = False, weight: float = 0.0
    ) -> EvalResult:
        """See the base class; a memory that was fitted on validation is not validated."""
        with self._as_ranked_in(data.phase):
            return super().rank(data, mode, show_progress, weight)

    def popularity_weights(self, data: SequenceEvalData, mode: str) -> dict[str, float]:
        """See the base class; each weight is fitted to the scores that it is added to."""
        found = super().popularity_weights(data, mode)
        if fitted_later(self.model) is not None:
            with self._as_ranked_in("valid"):
                found["valid"] = self.popularity_weight(data, mode)
        return found

    @contextmanager
    def _as_ranked_in(self, phase: str) -> Iterator[None]:
        memory = fitted_later(self.model)
        with memory.asleep() if memory is not None and phase == "valid" else nullcontext():
            yield

    def _fit_memory(self, data: SequenceEvalData, candidates: CandidateSets) -> MemoryFit:
        dataset = data.dataset
        sequences, split = dataset.sequences, dataset.split
        scorer = ModelScorer(self.model, self.config, sequences, split)
        given = candidates, split.history_end(data.phase), log_popularity(sequences, split)
        # Only weights are sent: every process has the same model and data.
        found = from_main(lambda: vars(fit_memory(self.model, scorer, *given)))
        return MemoryFit(**found)

    def _scorer(self, dataset: Any) -> SequenceScorer:
        kind = ModelScorer if hasattr(self.model, "score_candidates") else PairScorer
        return kind(self.model, self.config, dataset.sequences, dataset.split)
