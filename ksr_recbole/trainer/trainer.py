"""What every trainer under the paper's protocol does: checkpoints, evaluation, resuming."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.trainer import Trainer
from recbole.utils import calculate_valid_score, set_color
from torch.optim import Optimizer

from ksr_recbole.bars import recbole_bars
from ksr_recbole.config.evaluation_keys import parse_mode, uncalibrated
from ksr_recbole.config_types import Configuration
from ksr_recbole.core_sharing import sharing_cores
from ksr_recbole.dataset.dataloader import SequenceEvalData, TrainLoader
from ksr_recbole.distributed.group import from_main, tell_parent, this_process
from ksr_recbole.errors import UserError, shown
from ksr_recbole.evaluation.candidates import (
    CandidateSets,
    draw_candidates,
    fewest_negatives,
    fitting_counts,
)
from ksr_recbole.evaluation.evaluator import (
    EvalResult,
    SequenceScorer,
    evaluate_full,
    evaluate_sampled,
)
from ksr_recbole.evaluation.popularity import (
    WithPopularity,
    popularity_weight,
)
from ksr_recbole.interruptions import naming_checkpoint
from ksr_recbole.records import as_json_values
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.averaging import WeightAverage, changed_by_training
from ksr_recbole.trainer.checkpoint_file import kept_numpy_state, kind_not_held, numpy_state
from ksr_recbole.trainer.memory_fit import MemoryFit
from ksr_recbole.trainer.optimizer_state import forget_frozen, optimizer_state
from ksr_recbole.trainer.option_checks import check_options
from ksr_recbole.trainer.precision import HalfPrecision, matrix_products
from ksr_recbole.trainer.weights import not_finite

MAY_DIFFER = frozenset(
    {"epochs", "stopping_step", "results_dir", "pretrain_dir", "pretrain_export_path"}
    | {"resume", "trust_checkpoint", "eval_batch_size", "metric_decimal_place", "memory_backend"}
    | {"report_modes", "download"}
)
"""Config keys that may change when a run is resumed."""

UNIFORM = 100
"""Largest number of uniform items in the sample that the popularity weight is fitted on."""


class ProtocolTrainer(Trainer):
    """RecBole's trainer with the paper's evaluation, and checkpoints from which it resumes.

    It stands before one of RecBole's trainers, which trains.

    One checkpoint file holds the best model so far and everything needed to resume from the
    epoch last validated; it is replaced in one step after every validation.  Of several
    processes the main one alone reads and writes it.

    Args:
        config: the run's configuration.
        model: a model of this package or of RecBole.
        fingerprint: fingerprint of the dataset, kept in checkpoints.
        keys: config keys that a checkpoint must agree on with the run that resumes it.
    """

    def __init__(
        self, config: Configuration, model: torch.nn.Module, fingerprint: str, keys: frozenset[str]
    ) -> None:
        check_options(config, type(model))
        self.matmul_precision = config["matmul_precision"]
        super().__init__(config, model)
        forget_frozen(self.optimizer)
        # RecBole's trainer of RecVAE has two more.
        optimizers = [each for each in vars(self).values() if isinstance(each, Optimizer)]
        self._average = WeightAverage(model, optimizers, config["ema_decay"])
        self._fingerprint = fingerprint
        self._settings = {k: as_json_values(config[k]) for k in sorted(keys - MAY_DIFFER)}
        folder = str(Path(config["data_path"]).resolve().parent)
        self._given = as_json_values({**config.external_config_dict, "data_path": folder})
        self.saved_model_file = str(
            checkpoint.path_of_new(self.checkpoint_dir, config["model"], config["dataset"])
        )
        self.best_epoch = -1
        self.epochs_trained = 0
        self.finished = False
        self._begun = False
        self._noticed = False
        self._best_state: dict[str, torch.Tensor] | None = None
        self.memory_fit: MemoryFit | None = None
        self.drawn_candidates: dict[tuple[str, str], CandidateSets] = {}

    # Training -------------------------------------------------------------------------------

    def fit(
        self,
        train_data: TrainLoader,
        valid_data: SequenceEvalData | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train to the best validation score, as RecBole's ``fit``.

        An interruption (Ctrl-C) leaves a checkpoint of the epoch last validated.  Called again
        after it, the training continues from there.

        Raises:
            UserError: the loss is not a number, the checkpoint cannot be written, or the training
                was interrupted before and has none.
        """
        with self.naming_checkpoint(saved):
            self._prepare(saved)
            if self.finished:
                self._fitted_before(valid_data, saved)
            else:
                self._fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        return self.best_valid_score, self.best_valid_result

    def _prepare(self, saved: bool) -> None:
        """See to it that training begins where a checkpoint is, and that there is one."""
        if self._begun and not self.finished:
            self._return_to_checkpoint()
        elif saved and self.start_epoch == 0 and not self.finished:
            self._check_can_be_kept()
            self._write(-1)  # an interrupted first epoch can be resumed too
        if saved:
            tell_parent("checkpoint", from_main(lambda: self.saved_model_file))

    def _return_to_checkpoint(self) -> None:
        """Leave what an interrupted :meth:`fit` has done since its last checkpoint."""
        path = from_main(
            lambda: self.saved_model_file if Path(self.saved_model_file).is_file() else None
        )
        if path is None:
            raise UserError(
                "The training of this trainer was interrupted and left no checkpoint; make a new "
                "model and a new trainer."
            )
        self.resume_checkpoint(path)

    def _fitted_before(self, valid_data: SequenceEvalData | None, saved: bool) -> None:
        """All that is left to do where no epoch is."""
        keys = " ".join(f"--{key}={value}" for key, value in self.longer().items())
        longer = f"to train longer, resume with {keys}; " if keys else ""
        getLogger().info(
            f"The training was finished before; {longer}to train anew, leave resume out or make a "
            "new trainer."
        )
        self.tensorboard.close()
        if self._complete(valid_data) and saved:
            self._write(self.epochs_trained - 1)

    def _fit(
        self,
        train_data: TrainLoader,
        valid_data: SequenceEvalData | None,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> None:
        self._validates = bool(valid_data) and self.eval_step > 0

        def after_evaluation(epoch: int, score: float) -> None:
            if saved:
                self._write(epoch)
            elif self.cur_step == 0:  # no file is written, but the best so far is kept
                self._note_best(epoch)
            if callback_fn:
                callback_fn(epoch, score)

        self._begun = True
        try:
            with sharing_cores(), recbole_bars():
                super().fit(train_data, valid_data, verbose, saved, show_progress, after_evaluation)
        finally:
            self.tensorboard.close()  # its thread would live as long as the process
        self._complete(valid_data)
        if self.best_epoch < 0 and not self._validates:
            self.best_epoch = self.epochs_trained - 1  # the last one, which is taken
        self.finished = True
        if saved:
            self._write(self.epochs_trained - 1)
        self._average.apply()  # what is used without loading the best model

    def longer(self) -> dict[str, int]:
        """Values of ``epochs`` and ``stopping_step`` with which the training would continue.

        Only those of the two are in it that have ended the training, or will.
        """
        least = {"epochs": self.epochs_trained + 1, "stopping_step": self.cur_step}
        given = {key: self.config[key] for key in least}
        return {key: max(2 * given[key], n) for key, n in least.items() if given[key] < n}

    def _check_can_be_kept(self) -> None:
        """Refuse what a checkpoint cannot hold or be read with, before the work is done.

        Raises:
            UserError: naming a tensor of another type, or a buffer that is not finite.
        """
        kept = self.model.state_dict()
        for name, each in kept.items():
            if kind := kind_not_held(each):
                raise UserError(
                    f"{shown(name)} of the model is {kind}, which no checkpoint here can hold; "
                    "make it a dense tensor of a common type, such as float32 or int64, or "
                    "register it with persistent=False if it is a buffer that never changes."
                )
        buffers = {name: each for name, each in self.model.named_buffers() if name in kept}
        if name := not_finite(buffers):
            raise UserError(
                f"The buffer {shown(name)} of the model has a number that is not finite, which no "
                "checkpoint here can hold; register it with persistent=False if it never changes."
            )

    def naming_checkpoint(self, saved: bool) -> AbstractContextManager[None]:
        """An interruption inside the block says from which file to resume, if there is one."""

        def file() -> str | None:
            there = saved and self._can_resume() and Path(self.saved_model_file).is_file()
            return self.saved_model_file if there else None

        return naming_checkpoint(file)

    def _can_resume(self) -> bool:
        """Whether a checkpoint holds all that training has changed."""
        return True

    def _train_epoch(
        self,
        train_data: TrainLoader,
        epoch_idx: int,
        loss_func: Any = None,
        show_progress: bool = False,
    ) -> Any:
        self._begin_epoch(train_data, epoch_idx)
        with matrix_products(self.matmul_precision), self._noticing_half_precision():
            loss = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self.epochs_trained = epoch_idx + 1
        return loss

    @contextmanager
    def _noticing_half_precision(self) -> Iterator[None]:
        """Say after the first epoch if ``enable_amp`` has changed nothing that was computed.

        Which operations it reaches depends on the device, and fused steps are none of them.
        """
        if not self.enable_amp or self._noticed:
            yield
            return
        with HalfPrecision() as seen:
            yield
        self._noticed = True
        if not seen.used:
            self.logger.warning(
                f"Config key enable_amp has no effect on {self.config['model']} on this device: "
                f"nothing that it computes on {self.device.type} takes half precision."
            )

    def _begin_epoch(self, train_data: Any, epoch: int) -> None:
        """Make what is drawn in an epoch depend on the seed and the epoch alone."""
        raise NotImplementedError

    def _complete(self, valid_data: SequenceEvalData | None) -> bool:
        """Give the best model what it gets only after its training; whether there is any."""
        return False

    def _scorer(self, dataset: Any) -> SequenceScorer:
        """The current model as the evaluation asks it."""
        raise NotImplementedError

    def _trained_state(self) -> Mapping[str, torch.Tensor]:
        """What training changes of the model's ``state_dict``."""
        return changed_by_training(self.model)

    def _check_nan(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise UserError(
                f"The training loss became {loss.item()} in epoch {self.epochs_trained}; "
                "lower learning_rate (or check the vectors given by pretrain_path)."
            )

    # Evaluation -----------------------------------------------------------------------------

    def _valid_epoch(
        self, valid_data: SequenceEvalData, show_progress: bool = False
    ) -> tuple[float, dict[str, float]]:
        with self.averaged():
            result = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        assert result is not None  # there are data
        # Select on the exact score; round only what is shown.
        decimals = self.config["metric_decimal_place"]
        shown = OrderedDict((name, round(value, decimals)) for name, value in result.items())
        return calculate_valid_score(result, self.valid_metric), shown

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the block the model has the weights that are validated (``ema_decay``)."""
        return self._average.in_place()

    def evaluate(
        self,
        eval_data: SequenceEvalData | None,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> OrderedDict[str, float] | None:
        """Metrics of ``eval_data`` in its mode, unrounded; ``None`` without data.

        Raises:
            UserError: the data are not of a phase that is evaluated, the checkpoint is damaged, a
                metric is unknown or a score is NaN.
        """
        if not eval_data:
            return None
        if not isinstance(eval_data, SequenceEvalData):
            raise UserError(
                f"evaluate was given a {type(eval_data).__name__}; it takes the data of validation "
                "or test, the second and third of data_preparation."
            )
        if load_best_model:
            self.load_best(model_file or self.saved_model_file)
        metrics = OrderedDict(self.rank(eval_data, eval_data.mode, show_progress).metrics)
        self.wandblogger.log_eval_metrics(metrics, "eval")
        return metrics

    def rank(
        self, data: SequenceEvalData, mode: str, show_progress: bool = False, weight: float = 0.0
    ) -> EvalResult:
        """Evaluate the current model on ``data`` in ``mode``, with every positive's rank.

        Args:
            data: the phase.
            mode: one of ``report_modes``.
            show_progress: whether to show a progress bar.
            weight: of popularity in the scores, from :meth:`popularity_weight`.
        """
        self.model.eval()
        dataset = data.dataset
        scorer = self._scorer(dataset)
        if weight:
            scorer = WithPopularity(scorer, dataset.sequences, dataset.split, weight)
        common = {
            "split": dataset.split,
            "phase": data.phase,
            "metrics": self.config["metrics"],
            "topk": self.config["topk"],
            "batch_size": self.config["eval_batch_size"],
            "show_progress": show_progress,
        }
        with matrix_products("highest" if self.matmul_precision == "highest" else None):
            if parse_mode(mode).kind == "full":
                return evaluate_full(scorer, dataset.sequences, **common)
            return evaluate_sampled(scorer, self.candidates(data, mode), **common)

    def popularity_weight(self, data: SequenceEvalData, mode: str) -> float:
        """The weight of popularity with which the current model fits validation best.

        Args:
            data: validation.
            mode: what the positives are ranked against; for all items a uniform sample.
        """
        self.model.eval()
        candidates = self._to_fit_on(data, mode)
        if candidates is None:
            self.logger.warning(f"{mode}: a user has every item, so popularity gets no weight.")
            return 0.0
        dataset, size = data.dataset, self.config["eval_batch_size"]
        scorer = self._scorer(dataset)
        return popularity_weight(scorer, candidates, dataset.sequences, dataset.split, size)

    def popularity_weights(self, data: SequenceEvalData, mode: str) -> dict[str, float]:
        """:meth:`popularity_weight` for the ranking of each phase, by its name."""
        return dict.fromkeys(("valid", "test"), self.popularity_weight(data, mode))

    def _to_fit_on(self, data: SequenceEvalData, mode: str) -> CandidateSets | None:
        """The candidates of a mode; for all items up to :data:`UNIFORM` uniform ones, if any."""
        if parse_mode(mode).kind == "sampled":
            return self.candidates(data, mode)
        drawn_from = (data.dataset.sequences, data.dataset.split, data.phase)
        count = min(UNIFORM, fewest_negatives(*drawn_from))
        return draw_candidates(*drawn_from, self.config["seed"], count, 0) if count else None

    def candidates(self, data: SequenceEvalData, mode: str) -> CandidateSets:
        """The candidates of a phase, drawn once per dataset, split and seed."""
        key = (data.phase, uncalibrated(mode))
        if key not in self.drawn_candidates:
            parsed = parse_mode(mode)
            drawn_from = (data.dataset.sequences, data.dataset.split, data.phase)
            counts = fitting_counts(*drawn_from, (parsed.n_uniform, parsed.n_popular))
            drawn = draw_candidates(*drawn_from, self.config["seed"], *counts)
            self.drawn_candidates[key] = drawn
        return self.drawn_candidates[key]

    # Checkpoints ----------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Called by RecBole's ``fit`` when the model is the best so far."""
        if epoch < 0:  # RecBole's fit with no epoch left to train: nothing new to keep
            return
        self._note_best(epoch)
        if not self._validates:  # fit calls back only after a validation
            self._write(epoch)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {self.saved_model_file}")

    def _note_best(self, epoch: int) -> None:
        self.best_epoch = epoch
        trained = self._trained_state()
        with self._average.in_place():
            self._best_state = {
                name: value.clone() if name in trained else value  # what is frozen needs no copy
                for name, value in self.model.state_dict().items()
            }

    def _write(self, epoch: int) -> None:
        if not this_process().main:
            return
        state = self.model.state_dict()
        content = {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "data": self._fingerprint,
            "settings": self._settings,
            "given": self._given,
            "epoch": epoch,
            "best_epoch": self.best_epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": as_json_values(self.best_valid_result),
            "finished": self.finished,
            "state_dict": self._best_state or state,
            "last": {
                "state_dict": {name: state[name] for name in self._trained_state()},
                "average": self._average.values,
                "optimizer": self.optimizer.state_dict()["state"],  # the rest are settings
                "rng": torch.get_rng_state(),
                "numpy_rng": kept_numpy_state(),
                "cuda_rng": self._cuda_rng(),
            },
        }
        checkpoint.save(self.saved_model_file, content)

    def _alone_on_gpu(self) -> bool:
        # Several processes seed every epoch anew, and each has a GPU of its own to look at.
        return self.device.type == "cuda" and this_process().size == 1

    def _cuda_rng(self) -> list[torch.Tensor]:
        """The state of this GPU's generator; another machine may have fewer GPUs."""
        return [torch.cuda.get_rng_state(self.device)] if self._alone_on_gpu() else []

    def load_best(self, path: str | Path) -> None:
        """Load the best model of a checkpoint into the model."""
        self.model.load_state_dict(self._read(path)["state_dict"])

    def use_best(self) -> None:
        """Put the best model of this training, which :meth:`fit` keeps, into the model."""
        if self._best_state is not None:
            self.model.load_state_dict(self._best_state)

    def _read(self, path: str | Path) -> dict[str, Any]:
        """The content of a checkpoint of this run, its tensors on the CPU."""

        def read() -> dict[str, Any]:
            content = checkpoint.load(path)
            run = self.config, self._fingerprint, self._settings
            checkpoint.check_same_run(path, content, *run)
            wanted = self.model.state_dict()
            checkpoint.check_weights(path, self.config["model"], content["state_dict"], wanted)
            return content

        return from_main(read)

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Resume after the checkpoint's epoch.  The result is the same as without a stop.

        Where it is not, or where a config key has no effect on a resumed run, the log says so.

        Raises:
            UnusableCheckpointError: the file is damaged, or of other data or settings.
        """
        content = self._read(resume_file)
        last = content["last"]
        state = self._checked_last(resume_file, last)
        self.saved_model_file = str(resume_file)
        self.model.load_state_dict(content["state_dict"])
        self._best_state = content["state_dict"] if content["best_epoch"] >= 0 else None
        self.model.load_state_dict(last["state_dict"], strict=False)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self._average.load(last["average"])
        torch.set_rng_state(last["rng"])
        np.random.set_state(numpy_state(last["numpy_rng"]))
        if last["cuda_rng"] and self._alone_on_gpu():
            torch.cuda.set_rng_state(last["cuda_rng"][0], self.device)
        self.start_epoch = self.epochs_trained = content["epoch"] + 1
        self.best_epoch = content["best_epoch"]
        self.cur_step = content["cur_step"]
        self.best_valid_score = content["best_valid_score"]
        self.best_valid_result = content["best_valid_result"]
        # With more epochs allowed now than then, only early stopping is final.
        # It is so as well where the run was killed before it could say that it is finished.
        trained = content["finished"] and self.start_epoch >= self.epochs
        self.finished = trained or self.cur_step > self.stopping_step
        self.logger.info(f"Resuming from {resume_file} after epoch {content['epoch']}")
        for remark in self._remarks_on_resuming():
            self.logger.warning(remark)

    def _remarks_on_resuming(self) -> Iterator[str]:
        """What a resumed run does otherwise than its configuration says."""
        if self.start_epoch > self.epochs:
            yield (
                f"Config key epochs is {self.epochs}, but the checkpoint has {self.start_epoch} "
                "epochs already, so nothing is trained and all of them count."
            )
        given, kept = self.config.external_config_dict.get("checkpoint_dir"), self.saved_model_file
        if given and Path(given).resolve() != Path(kept).resolve().parent:
            yield (
                f"Config key checkpoint_dir is {given}, but a run that is resumed keeps its "
                f"checkpoint where it was, in {kept}."
            )
        # RecBole validates the last epoch where eval_step is greater than epochs.
        validated, each = self.best_valid_result is not None, self.eval_step
        if validated and each > 0 and (self.best_epoch + 1) % each:
            yield (
                f"Epoch {self.best_epoch} was validated as the last one of a run of fewer epochs "
                f"than eval_step ({self.config['eval_step']}); a run of {self.epochs} epochs "
                "without a stop does not validate it, and can have another result."
            )

    def _checked_last(self, path: str | Path, last: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """The optimizer's state, once all that a checkpoint has of the last epoch fits the model.

        Raises:
            UnusableCheckpointError: naming what does not.
        """
        trained, name = self._trained_state(), self.config["model"]
        checkpoint.check_weights(path, name, last["state_dict"], trained)
        if last["average"]:
            checkpoint.check_weights(path, name, last["average"], self._average.weights)
        return optimizer_state(path, self.optimizer, last["optimizer"])
